"""A listening port: strangers are limited, get a deadline, and become connections or refusals."""

import errno
import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from bftkit.errors import ConfigurationError, HandshakeRefused
from bftkit.runtime.clock import Clock, SystemClock
from bftkit.runtime.connection import FramedConnection, NetworkTuning, close_stream
from bftkit.runtime.endpoint import Endpoint

REFUSALS_KEPT: Final = 64
"""How many different refusals are remembered."""
_ACCEPT_PAUSE_S: Final = 0.1


class Refusal(msgspec.Struct):
    """Somebody who could not connect, or could not be reached."""

    address: str
    """The host, or the address that was dialled."""
    reason: str
    """Why, in words."""
    count: int = 1
    """How often."""


class Refusals:
    """The latest refusals, equal ones counted together; bounded, for the status and the log."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Refusal] = OrderedDict()
        self.total = 0
        """All refusals so far."""

    def note(self, address: str, reason: str) -> None:
        """Remember a refusal."""
        self.total += 1
        refusal = self._kept.get((address, reason))
        if refusal is not None:
            refusal.count += 1
            self._kept.move_to_end((address, reason))
            return
        self._kept[address, reason] = Refusal(address, reason)
        if len(self._kept) > REFUSALS_KEPT:
            self._kept.popitem(last=False)

    def latest(self) -> list[Refusal]:
        """Return the refusals, the latest last."""
        return list(self._kept.values())


class Strangers:
    """Those who are connected and have not said who they are: few altogether, fewer from one address."""

    def __init__(self, tuning: NetworkTuning, clock: Clock | None = None) -> None:
        self._tuning = tuning
        self._clock = clock or SystemClock()
        self._scopes: dict[anyio.CancelScope, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self._scopes)

    def admit(self, host: str) -> anyio.CancelScope:
        """Return the scope in which the stranger may say who it is; raise `HandshakeRefused` if there is no room.

        When there are too many, the oldest makes way if it has had enough time, so that nobody who holds many
        connections open keeps the members out.
        """
        hosts = [other for other, _ in self._scopes.values()]
        if not _is_loopback(host) and hosts.count(host) >= self._tuning.strangers_per_address:
            raise HandshakeRefused("too many connections of this address that have not said who they are")
        if len(self._scopes) >= self._tuning.strangers:
            oldest = next(iter(self._scopes))
            if self._clock.now_ms() - self._scopes[oldest][1] < self._tuning.stranger_grace_ms:
                raise HandshakeRefused("too many connections that have not said who they are")
            oldest.cancel()
            del self._scopes[oldest]
        scope = anyio.CancelScope()
        self._scopes[scope] = host, self._clock.now_ms()
        return scope

    def dismiss(self, scope: anyio.CancelScope) -> None:
        """Give the place back, whatever became of the stranger."""
        self._scopes.pop(scope, None)


class Listener:
    """One listening port whose connections are handed to a function, each in a task of its own."""

    def __init__(self, listen_address: str, endpoint: Endpoint, refusals: Refusals) -> None:
        """Prepare to listen at "host:port"; port 0 lets the system choose, host "*" is every interface."""
        self._listen_address = listen_address
        self._endpoint = endpoint
        self._refusals = refusals
        self._strangers = Strangers(endpoint.tuning, endpoint.clock)
        self._listeners: list[SocketListener] = []
        self.address = listen_address
        """Where it listens; with the real port as soon as it does."""

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            ConfigurationError: the address cannot be listened at.
        """
        host, port = host_and_port(self._listen_address)
        try:
            multi = await anyio.create_tcp_listener(local_host=None if host == "*" else host, local_port=port)
        except OSError as error:
            raise ConfigurationError(f"cannot listen at {self._listen_address}: {error.strerror or error}") from error
        self._listeners = [listener for listener in multi.listeners if isinstance(listener, SocketListener)]
        self.address = _address_text(self._listeners[0].extra(SocketAttribute.local_address))

    async def run(self, serve: Callable[[FramedConnection], Awaitable[None]]) -> None:
        """Accept until cancelled, then stop listening; `serve` owns each connection and ends when it ends."""
        try:
            async with anyio.create_task_group() as tasks:
                for listener in self._listeners:
                    tasks.start_soon(self._accept, listener, serve, tasks)
        finally:
            listeners, self._listeners = self._listeners, []
            with anyio.CancelScope(shield=True):
                for listener in listeners:
                    await listener.aclose()

    async def _accept(
        self, listener: SocketListener, serve: Callable[[FramedConnection], Awaitable[None]], tasks: TaskGroup
    ) -> None:
        while True:
            try:
                stream = await listener.accept()
            except (OSError, anyio.BrokenResourceError) as error:
                # Whoever hung up before it was accepted, or a system that is out of descriptors, ends nothing here.
                cause = error if isinstance(error, OSError) else error.__cause__
                self._refusals.note(self._listen_address, f"cannot accept: {getattr(cause, 'strerror', cause)}")
                aborted = isinstance(cause, OSError) and cause.errno == errno.ECONNABORTED
                await anyio.sleep(0 if aborted else _ACCEPT_PAUSE_S)
                continue
            tasks.start_soon(self._welcome, stream, serve)

    async def _welcome(self, stream: SocketStream, serve: Callable[[FramedConnection], Awaitable[None]]) -> None:
        address = _remote_address(stream)
        host = host_and_port(address)[0]
        connection: FramedConnection | None = None
        try:
            with self._strangers.admit(host) as scope:
                try:
                    connection = await self._endpoint.establish(stream, address, initiator=False)
                finally:
                    self._strangers.dismiss(scope)
            if connection is None:
                self._refusals.note(host, "made way for a newcomer before it had said who it is")
        except HandshakeRefused as refusal:
            self._refusals.note(host, str(refusal))
            await close_stream(stream)
        if connection is not None:
            await serve(connection)


def host_and_port(address: str) -> tuple[str, int]:
    """Split "host:port", an IPv6 host in brackets; the port may be 0."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def _address_text(address: object) -> str:
    """Return "host:port" of a socket's address."""
    if not isinstance(address, tuple) or len(address) < 2:
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _remote_address(stream: SocketStream) -> str:
    """Return where a stream comes from; "?:0" if the other side is gone already."""
    try:
        return _address_text(stream.extra(SocketAttribute.remote_address))
    except (OSError, anyio.TypedAttributeLookupError):
        return "?:0"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
