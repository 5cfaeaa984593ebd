"""Small changes of messages: each field a bit off, stale, swapped with another, or gone.

Small-scope mutation: many attacks on a protocol are one field away from what a correct member would say (Winter et al.,
"Randomized Testing of Byzantine Fault Tolerant Algorithms", OOPSLA 2023). The mutations of a message can be counted and
made one by one, so that a test can go through all of them, or drawn.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

LARGE = 1 << 40
"""A number far beyond every window."""

Path = tuple[str | int, ...]
"""Names of fields and indices in tuples that lead to a value inside a message."""

_SIGNATURES = ("signature", "signatures")
_FEW = 3
"""Elements of a long tuple that are looked into: the first, the second and the last."""


def leaves(message: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Go through the values inside a message: numbers, texts, bytes, and tuples as a whole."""
    if isinstance(message, msgspec.Struct):
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


def mutations(message: Any, earlier: Any = None) -> list[Callable[[], Any]]:
    """List all single mutations of a message, each to be made by a call.

    `earlier` is an older message of the same type: its values stand in for stale ones.
    """
    found: list[Callable[[], Any]] = []
    places = list(leaves(message))
    old = dict(leaves(earlier)) if type(earlier) is type(message) else {}
    for path, value in places:
        candidates = _changes(value)
        if path in old:
            candidates.append(old[path])
        candidates += [other for place, other in places if place != path and type(other) is type(value)][:_FEW]
        for candidate in candidates:
            if candidate != value:
                found.append(lambda path=path, candidate=candidate: with_value(message, path, candidate))  # type: ignore[misc]
    return found


def count_mutations(message: Any, earlier: Any = None) -> int:
    """Count the single mutations of a message."""
    return len(mutations(message, earlier))


def nth_mutation(message: Any, number: int, earlier: Any = None) -> Any:
    """Return a message with one thing changed; the numbers begin at 0."""
    return mutations(message, earlier)[number]()
