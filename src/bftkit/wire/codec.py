"""Messages to bytes and back, with one encoding for each message.

Two replicas must never disagree on whether some bytes are a message, nor hold two encodings of one message; so a
decoded message is encoded again and compared (about 0.1 microseconds for a vote).
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from bftkit.errors import ConfigurationError, MalformedMessage
from bftkit.wire.framing import Buffer

M = TypeVar("M")

_REFUSED = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError)
"""What msgspec, a message's `__post_init__` or the interpreter raises on hostile bytes."""


class Codec(Generic[M]):
    """Encode and decode the messages of one union; total on any bytes.

    The union may hold neither floats nor `Any`: a NaN differs from itself, and what is not typed is not checked.
    Integers outside 64 bits cannot be encoded; narrower ranges belong into the types (`msgspec.Meta`).
    """

    __slots__ = ("_again", "_decode", "encode")

    def __init__(self, union_type: Any) -> None:
        fault = next(_faults(inspect.type_info(union_type), []), None)
        if fault is not None:
            raise ConfigurationError(f"{union_type} cannot be a message: {fault}")
        self.encode = msgspec.msgpack.Encoder(order="deterministic").encode
        """Return the one encoding of a message."""
        self._again = self.encode
        self._decode = msgspec.msgpack.Decoder(union_type).decode

    def decode(self, data: Buffer) -> M:
        """Return the message; raise `MalformedMessage`, and nothing else, if the bytes are not its one encoding."""
        try:
            message: M = self._decode(data)
            canonical = self._again(message) == data
        except _REFUSED as error:
            raise MalformedMessage(_explain(error)) from None
        if not canonical:
            raise MalformedMessage("the message is not in its canonical encoding")
        return message


def _explain(error: Exception) -> str:
    """Return a short, printable reason: an error's text may quote what the peer sent."""
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return text[:200].encode("unicode_escape").decode("ascii")


def _faults(kind: inspect.Type, seen: list[type]) -> Iterator[str]:
    """Yield what keeps a type from having one checked encoding."""
    match kind:
        case inspect.FloatType() | inspect.DecimalType():
            yield "it holds a float"
        case inspect.AnyType():
            yield "it holds an untyped field"
        case inspect.DateTimeType() | inspect.TimeType() | inspect.DateType() | inspect.TimeDeltaType():
            yield "it holds a wall-clock time; times are integers"
        case inspect.UnionType():
            for member in kind.types:
                yield from _faults(member, seen)
        case inspect.TupleType():
            for item in kind.item_types:
                yield from _faults(item, seen)
        case inspect.VarTupleType() | inspect.ListType() | inspect.SetType() | inspect.FrozenSetType():
            yield from _faults(kind.item_type, seen)
        case inspect.DictType():
            yield from _faults(kind.key_type, seen)
            yield from _faults(kind.value_type, seen)
        case inspect.Metadata():
            yield from _faults(kind.type, seen)
        case inspect.StructType() if kind.cls not in seen:
            seen.append(kind.cls)
            for field in kind.fields:
                for fault in _faults(field.type, seen):
                    yield f"{kind.cls.__name__}.{field.name}: {fault}"
