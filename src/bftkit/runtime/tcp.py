"""Links to the other members over TCP, with TLS unless it is switched off: one connection for each pair."""

import random as random_module
from collections.abc import Mapping, Sequence

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from bftkit.errors import HandshakeRefused, WireError
from bftkit.runtime.clock import Clock
from bftkit.runtime.connection import FramedConnection, NetworkTuning
from bftkit.runtime.credentials import CredentialFiles
from bftkit.runtime.dialer import dial
from bftkit.runtime.endpoint import Endpoint, HelloFactory
from bftkit.runtime.listener import Listener, Refusals, host_and_port
from bftkit.runtime.transport import LinkStatistics, PeerHandler

_REPLACED = "replaced by a newer connection"
_STOPPED = "this side has stopped"
_REMOVED = "no member any more"


class TcpTransport:
    """Keep one connection to each other member; a `Transport`.

    Of two members the one with the smaller name dials, again and again with growing pauses, and the other accepts. A
    second connection of the same peer replaces the first: the peer has restarted before its old connection was missed.
    """

    def __init__(
        self,
        hello: HelloFactory,
        listen_address: str,
        peers: Mapping[str, str],
        members: Mapping[str, bytes],
        *,
        credentials: CredentialFiles | None,
        tuning: NetworkTuning | None = None,
        random: random_module.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare to listen at "host:port".

        `peers` maps the other members' names to their addresses, `members` all names to public keys. Without
        `credentials` there is no TLS: for tests, or on an explicit insecure setting.
        """
        self.name = hello().name
        """Who this side is."""
        self.refusals = Refusals()
        """Who could not connect or be reached lately, and why."""
        self._endpoint = Endpoint(hello, members, credentials=credentials, tuning=tuning, clock=clock)
        self._listener = Listener(listen_address, self._endpoint, self.refusals)
        self._random = random or random_module.Random()
        self._links: dict[str, _Link] = {
            name: _Link(name, address) for name, address in sorted(peers.items()) if name != self.name
        }
        self._handler: PeerHandler | None = None
        self._tasks: TaskGroup | None = None

    @property
    def address(self) -> str:
        """Where it listens: "host:port", with the real port once it does."""
        return self._listener.address

    def send(self, peer: str, priority: int, buffers: Sequence[bytes | memoryview]) -> bool:
        """Append whole frames to the peer's outbox; False if they were dropped."""
        link = self._links.get(peer)
        if link is None:
            return False
        if link.connection is None:
            link.statistics.dropped_unconnected += 1
            return False
        return link.connection.outbox.push(priority, buffers)

    def flush(self) -> None:
        """Let what was sent go out, in one write per peer."""
        for link in self._links.values():
            if link.connection is not None:
                link.connection.outbox.wake()

    async def run(self, handler: PeerHandler, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Listen and dial until cancelled; `task_status.started()` says that peers can connect.

        Raises:
            ConfigurationError: the address cannot be listened at.
        """
        await self._listener.open()
        self._handler = handler
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._listener.run, self._serve_accepted)
                for link in self._links.values():
                    self._start_dialling(link)
                task_status.started()
        finally:
            self._handler = self._tasks = None

    def statistics(self) -> dict[str, LinkStatistics]:
        """Return what happened on each link."""
        for link in self._links.values():
            outbox = link.connection.outbox if link.connection is not None else None
            link.statistics.outbox_bytes = outbox.waiting_bytes if outbox is not None else 0
            link.statistics.outbox_messages = outbox.waiting_messages if outbox is not None else 0
        return {name: link.statistics for name, link in self._links.items()}

    def change_members(self, peers: Mapping[str, str], members: Mapping[str, bytes]) -> None:
        """Follow a change of members or addresses: who is removed, or has a new key, is cut off at once."""
        before, self._endpoint.members = self._endpoint.members, members
        for name, link in list(self._links.items()):
            if name not in peers or before.get(name) != members.get(name):
                link.end(_REMOVED)
                del self._links[name]
        for name, address in sorted(peers.items()):
            if name == self.name:
                continue
            if name in self._links:
                self._links[name].address = address
            else:
                self._links[name] = link = _Link(name, address)
                self._start_dialling(link)

    def use_credentials(self, credentials: CredentialFiles) -> None:
        """Use renewed certificates from the next connection on."""
        self._endpoint.use_credentials(credentials)

    # -- Parts ----------------------------------------------------------------------------------------------------

    async def _serve_accepted(self, connection: FramedConnection) -> None:
        name = connection.peer.name
        link = self._links.get(name)
        if link is None:
            await self._turn_away(connection, f"{name!r} is not a peer of {self.name!r}")
        elif name > self.name:
            await self._turn_away(connection, f"of {name!r} and {self.name!r} the smaller name dials")
        else:
            await self._serve(link, connection)

    async def _turn_away(self, connection: FramedConnection, reason: str) -> None:
        self.refusals.note(host_and_port(connection.address)[0], reason)
        connection.close(reason, tell=True)
        await connection.run()

    def _start_dialling(self, link: "_Link") -> None:
        if self._tasks is not None and self.name < link.name:
            self._tasks.start_soon(self._keep_dialled, link)

    async def _keep_dialled(self, link: "_Link") -> None:
        """Connect to a peer whenever there is no connection."""
        tuning = self._endpoint.tuning
        pause_ms = tuning.reconnect_min_ms
        with anyio.CancelScope() as link.dialling:
            while True:
                try:
                    connection = await dial(self._endpoint, link.address, link.name)
                except HandshakeRefused as refusal:
                    self.refusals.note(link.address, str(refusal))
                    link.statistics.last_reason = str(refusal)
                else:
                    began = self._endpoint.clock.now_ms()
                    await self._serve(link, connection)
                    if self._endpoint.clock.now_ms() - began >= tuning.reconnect_max_ms:
                        pause_ms = tuning.reconnect_min_ms
                await anyio.sleep(pause_ms * self._random.uniform(0.5, 1.0) / 1_000)
                pause_ms = min(2 * pause_ms, tuning.reconnect_max_ms)

    async def _serve(self, link: "_Link", connection: FramedConnection) -> None:
        """Hand the peer's frames to the node until the connection ends."""
        predecessor, served = link.served, anyio.Event()
        link.served = served
        self._take_down(link, link.connection, _REPLACED)
        connection.outbox.statistics = link.statistics
        link.connection = connection
        self._tell_up(link)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.run)
                # The node gets the frames of one peer from one task at a time, also when it is slow to take the last.
                if predecessor is not None:
                    await predecessor.wait()
                await self._read(link.name, connection)
        finally:
            connection.close(_STOPPED)
            served.set()
            self._take_down(link, connection, _STOPPED)

    async def _read(self, name: str, connection: FramedConnection) -> None:
        handler = self._handler
        while handler is not None:
            try:
                frames = await connection.receive()
            except WireError:
                return
            try:
                await handler.on_frames(name, frames)
            except WireError as error:
                connection.close(str(error), tell=True)

    def _tell_up(self, link: "_Link") -> None:
        link.statistics.connected = True
        link.statistics.connects += 1
        if self._handler is not None:
            self._handler.on_peer_up(link.name)

    def _take_down(self, link: "_Link", connection: FramedConnection | None, reason: str) -> None:
        """End the connection, and tell the node if it was the link's present one."""
        if connection is None or link.connection is not connection:
            return
        connection.close(reason)
        link.connection = None
        link.statistics.connected = False
        link.statistics.last_reason = connection.reason or reason
        if self._handler is not None:
            self._handler.on_peer_down(link.name, link.statistics.last_reason)


class _Link:
    """What is known of one peer, over all its connections."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.statistics = LinkStatistics()
        self.connection: FramedConnection | None = None
        self.dialling: anyio.CancelScope | None = None
        self.served: anyio.Event | None = None
        """Set when the node has got the last frame of the latest connection."""

    def end(self, reason: str) -> None:
        """End the present connection for good."""
        if self.connection is not None:
            self.connection.close(reason, tell=True)
        if self.dialling is not None:
            self.dialling.cancel()
