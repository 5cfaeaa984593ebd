"""A connection that carries frames, from the moment that both sides know each other to its end."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import anyio
import msgspec

from bftkit.errors import WireError
from bftkit.runtime.channel import CLIENTS, CONTROL
from bftkit.runtime.clock import Clock, SystemClock
from bftkit.runtime.outbox import OUTBOX_BYTES, OUTBOX_MESSAGES, WRITE_BYTES, Outbox
from bftkit.runtime.tls_stream import LOST, RECEIVE_BYTES, ByteStream, linger
from bftkit.wire.framing import Frame, FrameDecoder, FrameType, frame_header
from bftkit.wire.handshake import Handshake, PeerIdentity, refuse_frame

SILENT_INTERVALS: Final = 3
"""After so many ping intervals without a byte the other side counts as dead."""
FAREWELL_TIMEOUT_S: Final = 0.5
"""How long the last word to the other side may take, seconds."""
_PING: Final = (frame_header(FrameType.PING, 0),)
_PONG: Final = (frame_header(FrameType.PONG, 0),)
_FIRST_MESSAGE: Final = FrameType.CONTROL
"""Frames of a lower type concern the connection itself."""


class NetworkTuning(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and deadlines of connections; the defaults suit a local network and a cautious operator."""

    handshake_timeout_ms: int = 5_000
    """How long a stranger has to say who it is, TLS included."""
    frame_timeout_ms: int = 10_000
    """How long a frame may take from its first to its last byte."""
    ping_interval_ms: int = 5_000
    """After so long without a write a PING is sent; after `SILENT_INTERVALS` times that without a byte, it is over."""
    write_timeout_ms: int = 30_000
    """How long one write may wait for a peer that does not read."""
    dial_timeout_ms: int = 3_000
    """How long resolving a name and connecting may take."""
    reconnect_min_ms: int = 50
    """The first pause between two attempts to reach a peer; each further one doubles it."""
    reconnect_max_ms: int = 1_000
    """The longest such pause."""
    outbox_bytes: int = OUTBOX_BYTES
    """Bytes that may wait for one connection."""
    outbox_messages: int = OUTBOX_MESSAGES
    """Messages that may wait for one connection."""
    write_bytes: int = WRITE_BYTES
    """Bytes of one write."""
    strangers: int = 64
    """Connections of one port that have not said who they are yet."""
    strangers_per_address: int = 8
    """The same, from one address; the loopback addresses are exempt."""
    stranger_grace_ms: int = 1_000
    """A stranger of this age makes way for a newcomer when there are too many."""


class FramedConnection:
    """Exchange frames with a peer that has proved who it is.

    The owner starts `run` as a task; it writes, pings and watches until the connection ends, and closes the stream.
    One other task calls `receive` in a loop; while it does not, nothing is read, so a slow reader holds up the sender.
    `send` and `close` are for anybody on the same event loop. Whatever ends the connection becomes its `reason`.
    """

    def __init__(
        self,
        stream: ByteStream,
        decoder: FrameDecoder,
        handshake: Handshake,
        address: str,
        tuning: NetworkTuning,
        clock: Clock | None = None,
    ) -> None:
        self.peer: PeerIdentity = handshake.result
        """Who is at the other end."""
        self.address = address
        """Where it is, for people."""
        self.reason: str | None = None
        """Why the connection has ended; None while it lives."""
        self.outbox = Outbox(tuning.outbox_bytes, tuning.outbox_messages, tuning.write_bytes)
        """What waits to be written; a `push` needs a `wake`."""
        self._stream = stream
        self._decoder = decoder
        self._handshake = handshake
        self._tuning = tuning
        self._clock = clock or SystemClock()
        self._ended = anyio.Event()
        self._farewell = b""
        self._arrived: list[Frame] = []
        self._reading = False
        # Moments are milliseconds of the clock.
        self._heard_at = self._sent_at = self._clock.now_ms()
        self._frame_began: int | None = None
        self._write_began: int | None = None

    def hand_over(self, frames: list[Frame]) -> None:
        """Put frames that came with the end of the handshake before what `receive` will read."""
        self._arrived += frames

    def send(self, buffers: Sequence[bytes | memoryview], priority: int = CLIENTS) -> bool:
        """Send whole frames as soon as the loop turns, without waiting; False if they were dropped.

        What is sent in one turn of the loop goes out in one write. The buffers must not change afterwards.
        """
        accepted = self.outbox.push(priority, buffers)
        self.outbox.wake()
        return accepted

    async def receive(self) -> list[Frame]:
        """Return the next frames in order, at least one.

        Raises:
            WireError: the connection has ended; `reason` says why.
        """
        while self.reason is None:
            frames = await self._read()
            if any(frame.type < _FIRST_MESSAGE for frame in frames):
                frames = self._take_signals(frames)
            if frames:
                return frames
        raise WireError(self.reason)

    def close(self, reason: str, *, tell: bool = False) -> None:
        """End the connection; the first reason counts, and what waits to be written is lost.

        With `tell` the other side gets the reason as a REFUSE.
        """
        if self.reason is not None:
            return
        self.reason = reason
        self._farewell = refuse_frame(reason) if tell else b""
        self.outbox.close()
        self._ended.set()

    async def run(self) -> None:
        """Write, ping and watch until the connection ends, then close the stream; raise nothing."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                tasks.start_soon(self._watch)
                await self._ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.close("this side has stopped")
            with anyio.CancelScope(shield=True):
                await self._shut()

    async def _read(self) -> list[Frame]:
        """Return what one read brought, or nothing if it brought no whole frame or the connection has ended."""
        if self._arrived:
            frames, self._arrived = self._arrived, []
            self._frame_began = None
            return frames
        self._heard_at = now = self._clock.now_ms()
        if not self._decoder.in_frame:
            self._frame_began = None
        elif self._frame_began is None:
            self._frame_began = now
        self._reading = True
        try:
            data = await self._stream.receive(RECEIVE_BYTES)
        except LOST as error:
            self.close(loss_reason(error))
            return []
        finally:
            self._reading = False
        try:
            frames = self._decoder.feed(data)
        except WireError as error:
            self.close(str(error), tell=True)
            return []
        if frames:
            self._frame_began = None
        statistics = self.outbox.statistics
        statistics.frames_received += len(frames)
        statistics.bytes_received += len(data)
        return frames

    def _take_signals(self, frames: list[Frame]) -> list[Frame]:
        """Answer what concerns the connection itself and return the rest."""
        types = {frame.type for frame in frames}
        if FrameType.REFUSE in types:
            self._handshake.receive(next(frame for frame in frames if frame.type is FrameType.REFUSE))
            self.close(str(self._handshake.failure))
        elif FrameType.PING in types:
            # One answer to a read, however many questions were in it.
            self.send(_PONG, CONTROL)
        return [frame for frame in frames if frame.type >= _FIRST_MESSAGE]

    async def _write(self) -> None:
        outbox = self.outbox
        try:
            while not outbox.closed:
                await outbox.wait()
                data = outbox.take()
                if data:
                    self._write_began = self._clock.now_ms()
                    await self._stream.send(data)
                    self._sent_at, self._write_began = self._clock.now_ms(), None
        except LOST as error:
            self.close(loss_reason(error))

    async def _watch(self) -> None:
        """Ping an idle connection, and end one that is dead, stuck or slow on purpose."""
        tuning = self._tuning
        tick_ms = min(tuning.ping_interval_ms, tuning.frame_timeout_ms, tuning.write_timeout_ms) / 4
        last = self._clock.now_ms()
        while self.reason is None:
            await anyio.sleep(tick_ms / 1_000)
            now = self._clock.now_ms()
            if now - last > 2 * tick_ms:
                # The whole process stood still; what the other side sent meanwhile is waiting to be read.
                self._forgive(now - last - int(tick_ms))
            last = now
            self._check(now)

    def _check(self, now: int) -> None:
        tuning = self._tuning
        silence = now - self._heard_at
        if self._reading and silence >= SILENT_INTERVALS * tuning.ping_interval_ms:
            self.close(f"nothing heard for {silence / 1_000:.1f} s")
        elif self._reading and _passed(self._frame_began, now, tuning.frame_timeout_ms):
            self.close(f"a frame was not complete within {tuning.frame_timeout_ms} ms", tell=True)
        elif _passed(self._write_began, now, tuning.write_timeout_ms):
            self.close(f"the other side did not read for {tuning.write_timeout_ms} ms")
        elif self._write_began is None and now - self._sent_at >= tuning.ping_interval_ms:
            self._sent_at = now
            self.send(_PING, CONTROL)

    def _forgive(self, milliseconds: int) -> None:
        self._heard_at += milliseconds
        if self._frame_began is not None:
            self._frame_began += milliseconds
        if self._write_began is not None:
            self._write_began += milliseconds

    async def _shut(self) -> None:
        """Say the last word, unless a write was cut in two, and close."""
        tells = bool(self._farewell) and self._write_began is None
        # If the connection breaks before the last word is out, the reason it ended for is still the one that counts.
        with anyio.move_on_after(FAREWELL_TIMEOUT_S), suppress(*LOST):
            if tells:
                await self._stream.send(self._farewell)
                await linger(self._stream)
        await close_stream(self._stream)


async def close_stream(stream: ByteStream) -> None:
    """Close a stream whatever its state, in bounded time."""
    with anyio.move_on_after(FAREWELL_TIMEOUT_S, shield=True), suppress(*LOST):
        await stream.aclose()


def loss_reason(error: BaseException) -> str:
    """Say in words how a connection was lost."""
    if isinstance(error, anyio.EndOfStream):
        return "the other side closed the connection"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or type(error).__name__}"
    cause = error if isinstance(error, OSError) else error.__cause__
    detail = getattr(cause, "strerror", None) or type(cause or error).__name__
    return f"the connection was lost: {detail}"


def _passed(since: int | None, now: int, limit_ms: int) -> bool:
    return since is not None and now - since >= limit_ms
