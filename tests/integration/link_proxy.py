"""A proxy between two members of a cluster: everything that a network does to a connection, on command.

One stands on each link. It forwards bytes in both directions, and each direction can be stopped (nothing is lost: the
sender's window fills), made to swallow everything, delayed or slowed down; connections can be reset, or cut in the
middle of what they carry.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener

CHUNK_BYTES = 65_536


@dataclass
class Direction:
    """What happens to bytes that go one way."""

    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """How many may pass; 0 for all."""
    swallows: bool = False
    cuts_next: bool = False
    """Whether the next chunk is cut, and the connection with it."""
    stopped: int = 0
    """How many faults keep bytes from passing."""
    passed: int = 0
    """Bytes that have passed."""
    _released: anyio.Event = field(default_factory=anyio.Event)

    def stop(self) -> None:
        self.stopped += 1

    def release(self) -> None:
        self.stopped = max(0, self.stopped - 1)
        if not self.stopped:
            self._released.set()
            self._released = anyio.Event()

    async def passage(self) -> None:
        """Wait until bytes may pass."""
        while self.stopped:
            await self._released.wait()


class LinkProxy:
    """Listens for one member's connections to another."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.there, self.back = Direction(), Direction()
        self._connections: dict[anyio.CancelScope, tuple[ByteStream, ByteStream]] = {}
        self._listener: SocketListener | None = None

    async def listen(self) -> str:
        """Open a port; return the address to dial."""
        multi = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        (self._listener,) = multi.listeners
        return f"127.0.0.1:{self._listener.extra(SocketAttribute.local_port)}"

    async def serve(self) -> None:
        """Forward connections until cancelled."""
        assert self._listener is not None
        async with self._listener:
            await self._listener.serve(self._forward)

    async def _forward(self, near: ByteStream) -> None:
        async with near:
            try:
                far = await anyio.connect_tcp(*self._target)
            except OSError:
                return
            async with far, anyio.create_task_group() as tasks:
                self._connections[tasks.cancel_scope] = (near, far)
                try:
                    tasks.start_soon(self._pump, near, far, self.there, tasks)
                    tasks.start_soon(self._pump, far, near, self.back, tasks)
                    await anyio.sleep_forever()
                finally:
                    del self._connections[tasks.cancel_scope]

    async def _pump(self, source: ByteStream, sink: ByteStream, way: Direction, tasks: anyio.abc.TaskGroup) -> None:
        try:
            while True:
                data = await source.receive(CHUNK_BYTES)
                if way.delay_s:
                    await anyio.sleep(way.delay_s)
                if way.bytes_per_s:
                    await anyio.sleep(len(data) / way.bytes_per_s)
                await way.passage()
                if way.swallows:
                    continue
                if way.cuts_next:
                    way.cuts_next = False
                    await sink.send(data[: len(data) // 2])
                    break
                await sink.send(data)
                way.passed += len(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # one end is gone; the other one is let go below
        tasks.cancel_scope.cancel()

    @property
    def connections(self) -> int:
        """Count the connections that go through now."""
        return len(self._connections)

    def reset(self) -> int:
        """Break all connections as a crash of the network would; return how many."""
        broken = 0
        for scope, streams in list(self._connections.items()):
            for stream in streams:
                try:
                    raw = stream.extra(SocketAttribute.raw_socket)
                    # Closed without a farewell: whoever is there sees a reset.
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    continue  # it is gone already
            scope.cancel()
            broken += 1
        return broken

    def heal(self) -> None:
        """End all faults of this link."""
        for way in (self.there, self.back):
            way.delay_s = way.bytes_per_s = 0.0
            way.swallows = way.cuts_next = False
            while way.stopped:
                way.release()
