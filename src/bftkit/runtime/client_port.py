"""The port for clients and operators: their connections, each with its own bounded outbox."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from bftkit.errors import WireError
from bftkit.runtime.channel import CLIENTS
from bftkit.runtime.clock import Clock
from bftkit.runtime.connection import FramedConnection, NetworkTuning
from bftkit.runtime.credentials import CredentialFiles
from bftkit.runtime.endpoint import Endpoint, HelloFactory
from bftkit.runtime.listener import Listener, Refusals, host_and_port
from bftkit.wire.framing import Frame

CLIENT_ROLES: Final = frozenset({"client", "admin"})
"""Who may connect to this port."""
MAX_CONNECTIONS: Final = 1024
"""The default for the connections of clients; operators are let in beyond it."""
MAX_CONNECTIONS_PER_KEY: Final = 64
"""How many connections one key may have."""
CLIENT_OUTBOX_BYTES: Final = 8 * 1024 * 1024
"""The default for the bytes that may wait for one client."""


class ClientConnection:
    """One client or operator that is connected. Equal only to itself; a client may have several."""

    __slots__ = ("_connection", "address", "name", "public_key", "role")

    def __init__(self, connection: FramedConnection) -> None:
        self._connection = connection
        self.role = connection.peer.role
        """"client" or "admin"."""
        self.name = connection.peer.name
        """Its name: the certificate's, or only what it claims on an insecure port."""
        self.public_key = connection.peer.public_key
        """The key that it has proved to hold."""
        self.address = connection.address
        """Where it is, for people."""

    @property
    def reason(self) -> str | None:
        """Why the connection has ended; None while it lives."""
        return self._connection.reason

    def send(self, buffers: Sequence[bytes | memoryview]) -> bool:
        """Send whole frames when the loop turns, without waiting; False if they were dropped.

        A client that lets its outbox fill up is disconnected: it may ask again, others should not wait for it. The
        buffers must not change afterwards.
        """
        if self._connection.send(buffers, CLIENTS):
            return True
        self._connection.close("answers are not read quickly enough", tell=True)
        return False

    def close(self, reason: str) -> None:
        """End the connection and tell the client why; what waits to be written is lost."""
        self._connection.close(reason, tell=True)


class ClientHandler(Protocol):
    """The node, as the port for clients sees it."""

    async def on_client_frames(self, connection: ClientConnection, frames: list[Frame]) -> None:
        """Take frames in the order in which the client sent them.

        The port awaits this before it reads on from this client. A `WireError` from it ends the connection.
        """
        ...

    def on_client_up(self, connection: ClientConnection) -> None:
        """Learn of a client that has proved who it is."""
        ...

    def on_client_down(self, connection: ClientConnection) -> None:
        """Learn that a client is gone, `connection.reason` why; follows every `on_client_up`."""
        ...


class ClientPort:
    """Listen for clients and operators."""

    def __init__(
        self,
        hello: HelloFactory,
        listen_address: str,
        members: Mapping[str, bytes],
        *,
        credentials: CredentialFiles | None,
        tuning: NetworkTuning | None = None,
        max_connections: int = MAX_CONNECTIONS,
        clock: Clock | None = None,
    ) -> None:
        """Prepare to listen at "host:port"; `hello` says who this replica is.

        Without `credentials` there is no TLS, and a client's name is only what it says: for tests, or on an explicit
        insecure setting.
        """
        self.refusals = Refusals()
        """Who was not let in lately, and why."""
        self.connections: list[ClientConnection] = []
        """Who is connected now."""
        tuning = tuning or NetworkTuning(outbox_bytes=CLIENT_OUTBOX_BYTES)
        self._endpoint = Endpoint(
            hello, members, credentials=credentials, accepted_roles=CLIENT_ROLES, tuning=tuning, clock=clock
        )
        self._listener = Listener(listen_address, self._endpoint, self.refusals)
        self._max_connections = max_connections
        self._per_key: Counter[bytes] = Counter()
        self._handler: ClientHandler | None = None

    @property
    def address(self) -> str:
        """Where it listens: "host:port", with the real port once it does."""
        return self._listener.address

    async def run(self, handler: ClientHandler, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `task_status.started()` says that clients can connect.

        Raises:
            ConfigurationError: the address cannot be listened at.
        """
        await self._listener.open()
        self._handler = handler
        task_status.started()
        await self._listener.run(self._serve)

    def use_credentials(self, credentials: CredentialFiles) -> None:
        """Use renewed certificates from the next connection on."""
        self._endpoint.use_credentials(credentials)

    async def _serve(self, connection: FramedConnection) -> None:
        fault = self._fault(connection)
        if fault is not None:
            self.refusals.note(host_and_port(connection.address)[0], fault)
            connection.close(fault, tell=True)
            await connection.run()
            return
        client = ClientConnection(connection)
        self.connections.append(client)
        self._per_key[client.public_key] += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.run)
                await self._read(connection, client)
        finally:
            connection.close("this side has stopped")
            self.connections.remove(client)
            self._per_key[client.public_key] -= 1
            if not self._per_key[client.public_key]:
                del self._per_key[client.public_key]

    def _fault(self, connection: FramedConnection) -> str | None:
        """Say why one more client is too many."""
        if self._per_key[connection.peer.public_key] >= MAX_CONNECTIONS_PER_KEY:
            return f"more than {MAX_CONNECTIONS_PER_KEY} connections with one key"
        if connection.peer.role == "client" and len(self.connections) >= self._max_connections:
            return f"more than {self._max_connections} clients"
        return None

    async def _read(self, connection: FramedConnection, client: ClientConnection) -> None:
        handler = self._handler
        if handler is None:
            return
        handler.on_client_up(client)
        try:
            while True:
                await handler.on_client_frames(client, await connection.receive())
        except WireError as error:
            # Of the connection, which then has its reason already; or of the handler, which does not want these frames.
            connection.close(str(error), tell=True)
        finally:
            connection.close("this side has stopped")
            handler.on_client_down(client)
