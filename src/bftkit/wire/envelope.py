"""Say for whom a message is, without decoding it.

An envelope's few fields route a message to its group, epoch and lane; the body stays undecoded until a worker has
made the cheap checks. A batch's body travels in a layout of its own with the blob last, so that the blob is never
copied between the socket and the disk.
"""

from struct import Struct as Layout
from typing import Annotated, Final

import msgspec

from bftkit.errors import MalformedMessage
from bftkit.wire.framing import Buffer

LANE_KEY_BYTES: Final = 32
"""The longest lane key."""
BODY_HEADER_BYTES: Final = 4 * 1024 - 2
"""The longest header of a BODY or REQUEST frame; the frame's cap leaves room for it beside 1 MiB of blob."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Envelope(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The outside of a message between replicas. The sender is not in it: the channel says who that is."""

    group: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    """The replicated log that the message belongs to."""
    epoch: _Count
    """The epoch that it belongs to."""
    lane_key: Annotated[bytes, msgspec.Meta(max_length=LANE_KEY_BYTES)]
    """What the message is about (a proposal's id): messages with equal keys go through one lane, in order."""
    kind: Annotated[int, msgspec.Meta(ge=0, le=255)]
    """Which codec the body needs."""
    body: msgspec.Raw
    """The message, encoded."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode
_U16 = Layout(">H")


def encode_envelope(group: int, epoch: int, lane_key: bytes, kind: int, body: bytes) -> bytes:
    """Return the payload of a frame; `body` is a message as its codec encoded it."""
    return _encode(Envelope(group, epoch, lane_key, kind, msgspec.Raw(body)))


def decode_envelope(payload: Buffer) -> Envelope:
    """Return the envelope, its body undecoded (a view into `payload`); raise `MalformedMessage` on anything else."""
    try:
        envelope = _decode(payload)
        canonical = _encode(envelope) == payload
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedMessage(f"not an envelope: {type(error).__name__}") from None
    if not canonical:
        raise MalformedMessage("the envelope is not in its canonical encoding")
    return envelope


def encode_body(header: bytes, blob: Buffer) -> list[Buffer]:
    """Return the payload of a BODY or REQUEST frame as buffers: u16 header length, header, blob uncopied."""
    if len(header) > BODY_HEADER_BYTES:
        raise MalformedMessage(f"a body header of {len(header)} bytes: at most {BODY_HEADER_BYTES} are accepted")
    return [_U16.pack(len(header)) + header, blob]


def decode_body(payload: Buffer) -> tuple[bytes, memoryview]:
    """Return (header, view of the blob); raise `MalformedMessage` if the payload is shorter than it says."""
    view = memoryview(payload)
    if len(view) < _U16.size:
        raise MalformedMessage("a body without a header")
    (length,) = _U16.unpack_from(view)
    end = _U16.size + length
    if length > BODY_HEADER_BYTES or end > len(view):
        raise MalformedMessage(f"a body header of {length} bytes in a payload of {len(view)}")
    return bytes(view[_U16.size : end]), view[end:]
