"""Cut a byte stream into frames, with every length checked before anything is allocated.

A frame is an 8-byte header (magic ``b"bk"``, version, type, payload length as u32 big-endian) and a payload.
`CAPS` is the one table that says how long the payload of each type may be.
"""

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct as Layout
from typing import Final

import msgspec

from bftkit.errors import FrameTooLarge, WireError

Buffer = bytes | bytearray | memoryview
"""What a writer can hand to a transport without copying."""

MAGIC: Final = b"bk"
"""The first two bytes of every frame."""
FRAME_VERSION: Final = 1
"""The version of the frame layout, the third byte."""
HEADER_BYTES: Final = 8
"""The length of a frame's header."""
LARGE_PAYLOAD_BYTES: Final = 64 * 1024
"""From more than this on, a payload that came in pieces is handed out as a view of its buffer, uncopied."""

HELD_BYTES: Final = 256 * 1024
"""How much may wait behind a handshake's last frame for the caller to say what it accepts."""

_KIB: Final = 1024
_MIB: Final = 1024 * 1024


class FrameType(IntEnum):
    """What a frame carries, and so how long it may be and which queue it enters."""

    HELLO = 1
    """The first word of each side."""
    PROOF = 2
    """The signature over both hellos."""
    REFUSE = 3
    """Why the sender closes."""
    PING = 4
    """Are you there?"""
    PONG = 5
    """I am."""
    CONTROL = 16
    """Checkpoint votes, status, requests for synchronisation."""
    VOTE = 17
    """Messages of an engine."""
    PROPOSAL = 18
    """Proposals, and other large messages of an engine."""
    BODY = 19
    """The body of a batch: a short header and the blob."""
    BULK = 20
    """State transfer: chunks of snapshots and logs."""
    REQUEST = 32
    """A client's commands."""
    REPLY = 33
    """The answers to them."""
    ADMIN = 34
    """An operator's order."""
    ADMIN_REPLY = 35
    """The answer to it."""


CAPS: Final[dict[FrameType, int]] = {
    FrameType.HELLO: 16 * _KIB,
    FrameType.PROOF: 1 * _KIB,
    FrameType.REFUSE: 4 * _KIB,
    FrameType.PING: 64,
    FrameType.PONG: 64,
    FrameType.CONTROL: 64 * _KIB,
    FrameType.VOTE: 64 * _KIB,
    FrameType.PROPOSAL: 1 * _MIB,
    FrameType.BODY: 1 * _MIB + 4 * _KIB,
    FrameType.BULK: 2 * _MIB,
    FrameType.REQUEST: 1 * _MIB + 4 * _KIB,
    FrameType.REPLY: 1 * _MIB,
    FrameType.ADMIN: 1 * _MIB,
    FrameType.ADMIN_REPLY: 1 * _MIB,
}
"""The longest payload of each type, bytes."""

HANDSHAKE_FRAMES: Final = frozenset({FrameType.HELLO, FrameType.PROOF, FrameType.REFUSE})
"""What a stranger may send."""
ALL_FRAMES: Final = frozenset(FrameType)
"""What nobody in particular may send; an endpoint narrows it to the role that it talks to."""
_ALWAYS = frozenset({FrameType.REFUSE, FrameType.PING, FrameType.PONG})
PEER_FRAMES: Final = _ALWAYS | {
    FrameType.CONTROL,
    FrameType.VOTE,
    FrameType.PROPOSAL,
    FrameType.BODY,
    FrameType.BULK,
}
"""What a replica may send to a replica."""
CLIENT_FRAMES: Final = _ALWAYS | {FrameType.REQUEST, FrameType.ADMIN}
"""What a client may send to a replica: commands, and questions that change nothing."""
ADMIN_FRAMES: Final = CLIENT_FRAMES
"""What an operator may send to a replica."""
REPLY_FRAMES: Final = _ALWAYS | {FrameType.REPLY, FrameType.ADMIN_REPLY}
"""What a replica may send to a client or an operator."""

_HEADER = Layout(">II")
_read_header = _HEADER.unpack_from


def _first_word(frame_type: FrameType) -> int:
    """Return magic, version and type as the one integer that a header starts with."""
    return int.from_bytes(MAGIC + bytes((FRAME_VERSION, frame_type)))


_WORDS: Final = {frame_type: _first_word(frame_type) for frame_type in FrameType}
_KINDS: Final = {word: (frame_type, CAPS[frame_type]) for frame_type, word in _WORDS.items()}
_PROOF_WORD: Final = _WORDS[FrameType.PROOF]
_NEVER: Final = -1


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it came off the wire."""

    type: FrameType
    """What the payload is."""
    payload: bytes | memoryview
    """The payload; a read-only view where it was long and came in pieces."""


def frame_header(frame_type: FrameType, payload_bytes: int) -> bytes:
    """Return the header of a frame; raise `FrameTooLarge` above the cap of its type."""
    if payload_bytes > CAPS[frame_type]:
        raise _too_large(frame_type, payload_bytes, CAPS[frame_type])
    return _HEADER.pack(_WORDS[frame_type], payload_bytes)


def encode_frame(frame_type: FrameType, *buffers: Buffer) -> list[Buffer]:
    """Return the buffers of one frame, header first, for a gathering write; nothing is copied."""
    return [frame_header(frame_type, sum(map(len, buffers))), *buffers]


class FrameDecoder:
    """Turn chunks of a stream into frames, sans-I/O.

    Frames that lie whole in a chunk are sliced out of it; of a frame that is cut, the payload is gathered piece by
    piece in one buffer of its announced (and checked) size, so the remains of a chunk are never glued to the next.

    With ``HANDSHAKE_FRAMES`` the decoder stops behind a PROOF, as the bytes that follow belong to the established
    connection: `accept` names what that may carry and returns the frames that were already there.

    After an error the decoder is dead: the connection must be closed.
    """

    __slots__ = ("_buffer", "_error", "_filled", "_held", "_kinds", "_pause", "_rest", "_type")

    def __init__(self, accepted: Iterable[FrameType] = ALL_FRAMES) -> None:
        accepted = frozenset(accepted)
        self._kinds = _kinds_of(accepted)
        self._pause = _PROOF_WORD if accepted <= HANDSHAKE_FRAMES else _NEVER
        self._held: bytes | None = None
        self._rest = b""
        self._buffer: bytearray | None = None
        self._filled = 0
        self._type = FrameType.PING
        self._error: WireError | None = None

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and not ended: the caller's deadline for it runs."""
        return self._buffer is not None or bool(self._rest)

    @property
    def pending_bytes(self) -> int:
        """Bytes received of the frame that is not complete, its header included."""
        held = len(self._held) if self._held is not None else 0
        if self._buffer is not None:
            return HEADER_BYTES + self._filled + held
        return len(self._rest) + held

    def accept(self, accepted: Iterable[FrameType]) -> list[Frame]:
        """Accept these types from now on, and return the frames that had arrived behind the handshake."""
        self._kinds = _kinds_of(accepted)
        self._pause = _NEVER
        held, self._held = self._held, None
        return self.feed(held) if held else []

    def feed(self, data: Buffer) -> list[Frame]:
        """Return the frames that this chunk completes.

        Raise `FrameTooLarge` or `WireError` at the first header that cannot be; the chunk's earlier frames are
        dropped with it.
        """
        if self._error is not None:
            raise self._error
        if self._held is not None:
            # The handshake is over but nobody has said yet what follows; the caller reads no more until then.
            self._held += bytes(data)
            if len(self._held) > HELD_BYTES:
                raise FrameTooLarge(f"more than {HELD_BYTES} bytes behind a handshake that is not finished")
            return []
        try:
            return self._feed(data)
        except WireError as error:
            self._error = error
            self._buffer, self._rest = None, b""
            raise

    def _feed(self, data: Buffer) -> list[Frame]:
        frames: list[Frame] = []
        start = 0
        if self._rest or self._buffer is not None:
            start = self._resume(data, frames)
            if self._buffer is not None or self._rest:
                return frames
            if frames and frames[0].type is FrameType.PROOF and self._pause != _NEVER:
                self._held = bytes(data[start:])
                return frames
        if type(data) is not bytes:
            # The caller may use its buffer again; what is handed out must not change under the receiver.
            data, start = bytes(data[start:]), 0
        self._scan(data, start, frames)
        return frames

    def _scan(self, data: bytes, start: int, frames: list[Frame]) -> None:
        """Slice whole frames out of the chunk; the hot loop."""
        kinds, pause, append, read, frame = self._kinds, self._pause, frames.append, _read_header, Frame
        size = len(data)
        last_header = size - HEADER_BYTES
        while start <= last_header:
            word, length = read(data, start)
            try:
                frame_type, cap = kinds[word]
            except KeyError:
                raise _bad_header(data[start : start + HEADER_BYTES]) from None
            if length > cap:
                raise _too_large(frame_type, length, cap)
            start += HEADER_BYTES
            end = start + length
            if end > size:
                self._begin(frame_type, length)
                self._gather(memoryview(data), start)
                return
            append(frame(frame_type, data[start:end]))
            start = end
            if word == pause:
                self._held = data[start:]
                return
        self._rest = data[start:]

    def _resume(self, data: Buffer, frames: list[Frame]) -> int:
        """Go on with the frame that the last chunk left open; return where the chunk's next frame starts."""
        start = 0
        if self._rest:
            start = HEADER_BYTES - len(self._rest)
            self._rest += bytes(data[:start])
            if len(self._rest) < HEADER_BYTES:
                return len(data)
            header, self._rest = self._rest, b""
            word, length = _read_header(header)
            if word not in self._kinds:
                raise _bad_header(header)
            frame_type, cap = self._kinds[word]
            if length > cap:
                raise _too_large(frame_type, length, cap)
            self._begin(frame_type, length)
        start = self._gather(memoryview(data), start)
        buffer = self._buffer
        if buffer is not None and self._filled == len(buffer):
            self._buffer = None
            large = len(buffer) > LARGE_PAYLOAD_BYTES
            frames.append(Frame(self._type, memoryview(buffer).toreadonly() if large else bytes(buffer)))
        return start

    def _begin(self, frame_type: FrameType, length: int) -> None:
        """Allocate for a payload whose length was checked."""
        self._type = frame_type
        self._buffer = bytearray(length)
        self._filled = 0

    def _gather(self, data: memoryview, start: int) -> int:
        """Copy what the chunk has of the open payload into its place; return where the rest of the chunk starts."""
        buffer = self._buffer
        if buffer is None:
            return start
        end = min(len(data), start + len(buffer) - self._filled)
        filled = self._filled + end - start
        buffer[self._filled : filled] = data[start:end]
        self._filled = filled
        return end


def _kinds_of(accepted: Iterable[FrameType]) -> dict[int, tuple[FrameType, int]]:
    words = {_WORDS[frame_type] for frame_type in accepted}
    return {word: kind for word, kind in _KINDS.items() if word in words}


def _too_large(frame_type: FrameType, length: int, cap: int) -> FrameTooLarge:
    return FrameTooLarge(f"a {frame_type.name} frame of {length} bytes: at most {cap} are accepted")


def _bad_header(header: bytes) -> WireError:
    if header[:2] != MAGIC:
        return WireError(f"not a bftkit frame: it starts with {header[:2].hex()}")
    if header[2] != FRAME_VERSION:
        return WireError(f"frame version {header[2]}; this side speaks {FRAME_VERSION}")
    if _KINDS.get(int.from_bytes(header[:4])) is None:
        return WireError(f"unknown frame type {header[3]}")
    return WireError(f"a {FrameType(header[3]).name} frame is not accepted here")
