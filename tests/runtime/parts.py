"""Pieces of a node, put together by hand around the real log, codec and keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from bftkit.replica.client_messages import AnyReply
from bftkit.wire.codec import Codec
from bftkit.wire.framing import HEADER_BYTES, Frame, FrameDecoder

_replies: Codec[Any] = Codec(AnyReply)


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000

    def now_ms(self) -> int:
        return self.now

    def wall_time(self) -> datetime:
        return datetime.fromtimestamp(self.now / 1_000, UTC)


class Channel:
    """A client's connection that keeps what it was sent."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self.writes: list[list[bytes]] = []

    def send(self, buffers: Sequence[bytes | memoryview]) -> bool:
        self.writes.append([bytes(buffer) for buffer in buffers])
        return True

    @property
    def replies(self) -> list[Any]:
        return [_replies.decode(buffer[HEADER_BYTES:]) for write in self.writes for buffer in write]


def frames_of(buffers: Sequence[bytes | memoryview]) -> list[Frame]:
    """What arrives of what was sent."""
    return FrameDecoder().feed(b"".join(bytes(buffer) for buffer in buffers))


def respelt(encoded: bytes) -> bytes:
    """The same message in another spelling: its first small number takes a byte more."""
    for at, octet in enumerate(encoded):
        if 0 < octet < 0x80:
            again = encoded[:at] + bytes((0xCC, octet)) + encoded[at + 1 :]
            try:
                if msgspec.msgpack.decode(again) == msgspec.msgpack.decode(encoded):
                    return again
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
    raise AssertionError("there is no number to spell")
