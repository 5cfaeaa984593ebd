"""A network inside one program: the transport of tests, of demonstrations and of single-process clusters."""

from collections.abc import Sequence

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from bftkit.errors import ConfigurationError, WireError
from bftkit.runtime.outbox import OUTBOX_BYTES, OUTBOX_MESSAGES, Outbox
from bftkit.runtime.transport import LinkStatistics, PeerHandler
from bftkit.wire.framing import PEER_FRAMES, FrameDecoder

_STOPPED = "the other side stopped"


class MemoryNetwork:
    """Connect the transports of one program, everyone with everyone unless they are cut apart.

    It is used from one event loop. Frames go through the same outbox and the same decoder as on a socket.
    """

    def __init__(self, *, outbox_bytes: int = OUTBOX_BYTES, outbox_messages: int = OUTBOX_MESSAGES) -> None:
        self._outbox_limits = outbox_bytes, outbox_messages
        self._running: dict[str, MemoryTransport] = {}
        self._cut: set[frozenset[str]] = set()

    def transport(self, name: str) -> "MemoryTransport":
        """Return a transport for a node of this name; it joins the network while its `run` runs."""
        return MemoryTransport(self, name)

    def disconnect(self, one: str, other: str) -> None:
        """Cut two nodes apart, whether they run or not; what is on its way between them is lost."""
        self._cut.add(frozenset((one, other)))
        self._end(one, other, "the network is cut")

    def reconnect(self, one: str, other: str) -> None:
        """Let two nodes reach each other again."""
        self._cut.discard(frozenset((one, other)))
        self._begin(one, other)

    def isolate(self, name: str) -> None:
        """Cut a node from every node that runs now."""
        for other in [other for other in self._running if other != name]:
            self.disconnect(name, other)

    def heal(self) -> None:
        """Undo every cut."""
        pairs, self._cut = self._cut, set()
        for one, other in sorted(map(sorted, pairs)):
            self._begin(one, other)

    def _join(self, transport: "MemoryTransport") -> None:
        others = list(self._running)
        self._running[transport.name] = transport
        for other in others:
            self._begin(transport.name, other)

    def _leave(self, transport: "MemoryTransport") -> None:
        for other in list(self._running):
            if other != transport.name:
                self._end(transport.name, other, _STOPPED)
        del self._running[transport.name]

    def _begin(self, one: str, other: str) -> None:
        first, second = self._running.get(one), self._running.get(other)
        if first is None or second is None or frozenset((one, other)) in self._cut or other in first.peers:
            return
        first.attach(second, *self._outbox_limits)
        second.attach(first, *self._outbox_limits)
        first.tell_up(other)
        second.tell_up(one)

    def _end(self, one: str, other: str, reason: str) -> None:
        for end, peer in ((self._running.get(one), other), (self._running.get(other), one)):
            if end is not None:
                end.detach(peer, reason)


class MemoryTransport:
    """One node's end of a `MemoryNetwork`; a `Transport`."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        """Whose end it is."""
        self.peers: dict[str, Outbox] = {}
        """What goes out to each peer that is up."""
        self._network = network
        self._inward: dict[str, Outbox] = {}
        self._statistics: dict[str, LinkStatistics] = {}
        self._handler: PeerHandler | None = None
        self._tasks: TaskGroup | None = None

    def send(self, peer: str, priority: int, buffers: Sequence[bytes | memoryview]) -> bool:
        """Append whole frames to what goes to the peer; False if they were dropped."""
        outbox = self.peers.get(peer)
        if outbox is None:
            self._link(peer).dropped_unconnected += 1
            return False
        return outbox.push(priority, buffers)

    def flush(self) -> None:
        """Let what was sent go out."""
        for outbox in self.peers.values():
            outbox.wake()

    async def run(self, handler: PeerHandler, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Be part of the network until cancelled."""
        if self.name in self._network._running:
            raise ConfigurationError(f"there is a node {self.name!r} already")
        self._handler = handler
        try:
            async with anyio.create_task_group() as self._tasks:
                self._network._join(self)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            if self._network._running.get(self.name) is self:
                self._network._leave(self)
            self._handler = self._tasks = None

    def statistics(self) -> dict[str, LinkStatistics]:
        """Return what happened on each link."""
        for peer, link in self._statistics.items():
            outbox = self.peers.get(peer)
            link.outbox_bytes = outbox.waiting_bytes if outbox else 0
            link.outbox_messages = outbox.waiting_messages if outbox else 0
        return {peer: self._statistics[peer] for peer in sorted(self._statistics)}

    def attach(self, other: "MemoryTransport", outbox_bytes: int, outbox_messages: int) -> None:
        """Open the direction from here to another node; for `MemoryNetwork`."""
        outbox = Outbox(outbox_bytes, outbox_messages, statistics=self._link(other.name))
        self.peers[other.name] = other._inward[self.name] = outbox
        if other._tasks is not None:
            other._tasks.start_soon(other._deliver, self.name, outbox)

    def tell_up(self, peer: str) -> None:
        """Say that both directions are open; for `MemoryNetwork`."""
        link = self._link(peer)
        link.connected = True
        link.connects += 1
        if self._handler is not None:
            self._handler.on_peer_up(peer)

    def detach(self, peer: str, reason: str) -> None:
        """Close both directions at this end; for `MemoryNetwork`."""
        outward, inward = self.peers.pop(peer, None), self._inward.pop(peer, None)
        if inward is not None:
            inward.close()
        if outward is None:
            return
        outward.close()
        link = self._link(peer)
        link.connected = False
        link.last_reason = reason
        if self._handler is not None:
            self._handler.on_peer_down(peer, reason)

    async def _deliver(self, peer: str, inward: Outbox) -> None:
        """Hand what a peer sends to this node's handler, until the link is closed."""
        decoder = FrameDecoder(PEER_FRAMES)
        link, handler = self._link(peer), self._handler
        while handler is not None:
            await inward.wait()
            if inward.closed:
                return
            data = inward.take()
            try:
                frames = decoder.feed(data)
                link.frames_received += len(frames)
                link.bytes_received += len(data)
                await handler.on_frames(peer, frames)
            except WireError as error:
                self._network._end(self.name, peer, f"{peer}: {error}")
                return

    def _link(self, peer: str) -> LinkStatistics:
        return self._statistics.setdefault(peer, LinkStatistics())
