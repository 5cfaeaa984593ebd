"""Messages with one thing changed: every field, however deep, by one, to an extreme, shortened, turned round."""

from collections.abc import Iterator
from typing import Any

import msgspec

from bftkit.core.statement import SignedMessage

_EXTREMES = (0, -1, 2**31, 2**53 - 1, 2**63 - 1)


def alterations(value: Any) -> Iterator[Any]:
    """Yield every value that differs from this one in one place; some of them are no messages any more."""
    match value:
        case bool():
            yield not value
        case int():
            for other in dict.fromkeys((value + 1, value - 1, *_EXTREMES)):
                if other != value and other < 2**63:
                    yield other
        case bytes():
            yield from _altered_bytes(value)
        case str():
            yield value + "x"
            yield ""
        case tuple():
            yield from _altered_tuples(value)
        case msgspec.Struct():
            for name in value.__struct_fields__:
                for other in alterations(getattr(value, name)):
                    yield msgspec.structs.replace(value, **{name: other})


def _altered_bytes(value: bytes) -> Iterator[bytes]:
    if value:
        yield bytes((value[0] ^ 1,)) + value[1:]
        yield value[:-1]
        yield b""
    yield value + b"\0"


def _altered_tuples(value: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if value:
        yield value[1:]
        yield (*value, value[-1])
    if len(value) > 1:
        yield ()
        yield value[:-1]
        yield value[::-1]
    for place, item in enumerate(value):
        for other in alterations(item):
            yield (*value[:place], other, *value[place + 1 :])


def exchanges(value: msgspec.Struct, donor: msgspec.Struct) -> Iterator[Any]:
    """Yield a message with one field taken from another message of its type."""
    for name in value.__struct_fields__:
        other = getattr(donor, name)
        if other != getattr(value, name):
            yield msgspec.structs.replace(value, **{name: other})


def leaves(value: Any) -> Iterator[Any]:
    """Yield every value inside a message, however deep, the message itself first."""
    yield value
    match value:
        case tuple() | list():
            for item in value:
                yield from leaves(item)
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from leaves(getattr(value, name))


def unsigned(message: Any) -> Any:
    """Return a message as its sender's engine makes it: without the sender's own signature."""
    return msgspec.structs.replace(message, signature=b"") if isinstance(message, SignedMessage) else message
