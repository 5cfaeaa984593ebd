"""Small changes of messages: each field a bit off, stale, swapped with another, or gone.

Small-scope mutation: many attacks on a protocol are one field away from what a correct member would say (Winter et al.,
"Randomized Testing of Byzantine Fault Tolerant Algorithms", OOPSLA 2023). The mutations of a message can be counted and
made one by one, so that a test can go through all of them, or drawn.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from bftkit.core.certificate import QuorumCertificate

LARGE = 1 << 40
"""A number far beyond every window."""

Path = tuple[str | int, ...]
"""Names of fields and indices in tuples that lead to a value inside a message."""

_SIGNATURES = ("signature", "signatures")
_SWAPS = 3
"""Values from elsewhere in the message that are put in the place of one."""


def leaves(message: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Go through the values inside a message: numbers, texts, bytes, and its parts and tuples as a whole too.

    Of a long tuple the first, the second and the last element are looked into.
    """
    if isinstance(message, msgspec.Struct):
        if path:
            yield path, message
        for name in message.__struct_fields__:
            value = getattr(message, name)
            if name in _SIGNATURES and not value:
                continue  # it is signed when it leaves
            yield from leaves(value, (*path, name))
    elif isinstance(message, tuple):
        yield path, message
        for index in sorted({0, 1, len(message) - 1} & set(range(len(message)))):
            yield from leaves(message[index], (*path, index))
    elif isinstance(message, bool | int | bytes | memoryview | str):
        yield path, message


def with_value(message: Any, path: Path, value: Any) -> Any:
    """Return a message with another value at a place inside it."""
    if not path:
        return value
    step, *rest = path
    if isinstance(message, tuple):
        index = int(step)
        return (*message[:index], with_value(message[index], tuple(rest), value), *message[index + 1 :])
    changed = with_value(getattr(message, str(step)), tuple(rest), value)
    return msgspec.structs.replace(message, **{str(step): changed})


def without_a_signer(value: Any) -> Any:
    """Return a message whose certificates lack the last signer each: the bit and the signature, so that both agree."""
    if isinstance(value, QuorumCertificate) and value.signatures:
        kept = dict(zip(value.signers[:-1], value.signatures, strict=False))
        return QuorumCertificate.of(value.statement, kept, 8 * len(value.bitmap))
    if isinstance(value, tuple):
        return tuple(map(without_a_signer, value))
    if isinstance(value, msgspec.Struct):
        parts = {name: getattr(value, name) for name in value.__struct_fields__}
        changed = {name: without_a_signer(part) for name, part in parts.items()}
        return value if changed == parts else msgspec.structs.replace(value, **changed)
    return value


def _numbers(value: int) -> list[int]:
    return [value + 1, max(0, value - 1), 0, value + LARGE]


def _bytes(value: bytes) -> list[bytes]:
    return [bytes([value[0] ^ 1]) + value[1:], value[:-1], bytes(len(value)), value + b"\0"] if value else [b"\0"]


def _tuples(value: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [(), value[1:], value[:-1], (*value, value[-1]), value[::-1]] if value else []


def _changes(value: Any) -> list[Any]:
    match value:
        case bool():
            return [not value]
        case int():
            return _numbers(value)
        case bytes() | memoryview():
            return list(_bytes(bytes(value)))
        case tuple():
            return list(_tuples(value))
    return []


@lru_cache
def _may_be_missing(kind: type, name: str) -> bool:
    return NoneType in get_args(get_type_hints(kind)[name])


def _optional_parts(message: Any, path: Path = ()) -> Iterator[Path]:
    """Go through the places inside a message where something stands that may be left out."""
    parts = dict(leaves(message, path)) | {path: message}
    for place, part in parts.items():
        if isinstance(part, msgspec.Struct):
            for name in part.__struct_fields__:
                if getattr(part, name) is not None and _may_be_missing(type(part), name):
                    yield (*place, name)


def mutations(message: Any, earlier: Any = None) -> list[Callable[[], Any]]:
    """List all single mutations of a message, each to be made by a call.

    `earlier` is an older message of the same type: its values stand in for stale ones. A whole part that is stale or
    stands in another's place may well be signed by others, as a certificate is.
    """
    found: list[tuple[Path, Any]] = [(path, None) for path in _optional_parts(message)]
    places = list(leaves(message))
    old = dict(leaves(earlier)) if type(earlier) is type(message) else {}
    for path, value in places:
        candidates = _changes(value)
        if path in old:
            candidates.append(old[path])
        candidates += _others(value, [other for _, other in places])
        found += [(path, candidate) for candidate in _different(value, candidates)]
    return [lambda path=path, value=value: with_value(message, path, value) for path, value in found]  # type: ignore[misc]


def _others(value: Any, values: list[Any]) -> list[Any]:
    """Choose a few other values of the same type."""
    return _different(value, [other for other in values if type(other) is type(value)])[:_SWAPS]


def _different(value: Any, candidates: list[Any]) -> list[Any]:
    """Leave out what is the value itself, and what is there already."""
    kept: list[Any] = []
    for candidate in candidates:
        if candidate != value and candidate not in kept:
            kept.append(candidate)
    return kept


def count_mutations(message: Any, earlier: Any = None) -> int:
    """Count the single mutations of a message."""
    return len(mutations(message, earlier))


def nth_mutation(message: Any, number: int, earlier: Any = None) -> Any:
    """Return a message with one thing changed; the numbers begin at 0."""
    return mutations(message, earlier)[number]()
