"""What a replica writes to its log, and reads back when it starts."""

from enum import IntEnum

import msgspec


class RecordKind(IntEnum):
    """Kind of a log record."""

    STEP = 1
    """What one step made durable: `StepRecord`."""
    BODY = 2
    """A batch body: its header followed by its blob; see `split_body`."""
    COMMIT = 3
    """A decided position: `bftkit.core.log.CommitEntry`."""
    STABLE = 4
    """A stable checkpoint: `bftkit.core.checkpoint.CheckpointCertificate`."""


class SignedSlot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One statement that was signed, as the watermark remembers it."""

    kind: str
    view: int
    position: int
    content: bytes


class StepRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Everything that one step persists: the engine's records and the signing watermark, in one."""

    records: tuple[bytes, ...]
    """The engine's records, encoded."""
    replaces_earlier: bool
    """Earlier step records of the epoch are obsolete; `signed` is then complete."""
    floor: int
    """Guarded statements below this view are never signed again."""
    low_mark: int
    """Statements at or below this position are never signed again."""
    signed: tuple[SignedSlot, ...]


def split_body(payload: bytes) -> tuple[bytes, memoryview]:
    """Split a stored body into its header and its blob: the header is one msgpack array of five fields.

    Raises ValueError where the payload is too short to hold one.
    """
    end = 1
    for _ in range(5):
        end = _skip_scalar(payload, end)
    return payload[:end], memoryview(payload)[end:]


def _skip_scalar(payload: bytes, at: int) -> int:
    """Return the index behind a msgpack integer or boolean."""
    if at >= len(payload):
        raise ValueError("a stored body is cut short")
    first = payload[at]
    widths = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
    if first <= 0x7F or first in (0xC2, 0xC3):
        return at + 1
    if first in widths:
        return at + 1 + widths[first]
    raise ValueError("a stored body does not start with a header")
