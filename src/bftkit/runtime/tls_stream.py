"""TLS over a byte stream, in reads as large as what has arrived.

anyio's own `TLSStream` returns one record (16 KiB) per `receive` and keeps the alert that says why a handshake failed
to itself. Here a `receive` returns all records that are there, and the alert is sent, so that the operator at the other
end reads the reason.
"""

import ssl
from contextlib import suppress
from typing import Final, Protocol

import anyio

RECEIVE_BYTES: Final = 256 * 1024
"""How much one `receive` asks for."""
_RECORD_BYTES: Final = 16 * 1024
"""The most plaintext that a record holds (RFC 8446 §5.1), so the most that one read can return."""
_ALERT_TIMEOUT_S: Final = 0.5
LINGER_S: Final = 0.2
"""How long the other side has to read a last word before the connection is closed."""
LOST: Final = (
    OSError,
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.BusyResourceError,
)
"""What a stream raises when the connection is gone; `ssl.SSLError` and `TimeoutError` are `OSError`s."""


class ByteStream(Protocol):
    """What a connection needs of a stream; anyio's byte streams have it."""

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Return what has arrived, at least one byte."""
        ...

    async def send(self, item: bytes) -> None:
        """Write all of it."""
        ...

    async def aclose(self) -> None:
        """Close at once."""
        ...


async def linger(stream: ByteStream) -> None:
    """Give the other side a moment to close first, after a last word to it.

    A close while its bytes are unread resets the connection, and the reset can overtake what was said.
    """
    with anyio.move_on_after(LINGER_S), suppress(*LOST):
        while True:
            await stream.receive(RECEIVE_BYTES)


class TlsStream:
    """One end of an established TLS connection. One task may receive while another sends."""

    def __init__(self, stream: ByteStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._sending = anyio.Lock(fast_acquire=True)

    def getpeercert(self, binary_form: bool = False, /) -> object:
        """Return the certificate of the other side, as `ssl.SSLObject` does; after the handshake."""
        return self._object.getpeercert(binary_form)

    async def handshake(self) -> None:
        """Shake hands.

        Raises:
            ssl.SSLError: one side does not accept the other; the other was told.
            anyio.EndOfStream, OSError, anyio.BrokenResourceError: the connection is gone.
        """
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                await self._fetch()
                continue
            except ssl.SSLEOFError:
                raise anyio.EndOfStream from None
            except ssl.SSLError:
                # What is told is what is raised, whether the other side can still hear it or not.
                if self._outgoing.pending:
                    with anyio.move_on_after(_ALERT_TIMEOUT_S), suppress(*LOST):
                        await self._flush()
                        await linger(self._stream)
                raise
            await self._flush()
            return

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Return what has arrived, at most `max_bytes` and a record.

        Raises:
            anyio.EndOfStream: the other side has closed.
            ssl.SSLError: the bytes are no TLS, or carry an alert.
            OSError, anyio.BrokenResourceError, anyio.ClosedResourceError: the connection is gone.
        """
        records: list[bytes] = []
        size = 0
        read = self._object.read
        while size < max_bytes:
            try:
                record = read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                if records:
                    break
                await self._fetch()
                continue
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                record = b""
            if not record:
                if records:
                    break
                raise anyio.EndOfStream
            records.append(record)
            size += len(record)
        return records[0] if len(records) == 1 else b"".join(records)

    async def send(self, item: bytes) -> None:
        """Encrypt and write all of it; cancelled half way, the connection cannot be written to any more."""
        self._object.write(item)
        await self._flush()

    async def aclose(self) -> None:
        """Close the connection beneath; a cut is not told from a close, frames tell what is whole."""
        await self._stream.aclose()

    async def _fetch(self) -> None:
        """Send what TLS itself has to say, then wait for more bytes."""
        if self._outgoing.pending:
            await self._flush()
        try:
            data = await self._stream.receive(RECEIVE_BYTES)
        except anyio.EndOfStream:
            self._incoming.write_eof()
        else:
            self._incoming.write(data)

    async def _flush(self) -> None:
        async with self._sending:
            if self._outgoing.pending:
                await self._stream.send(self._outgoing.read())
