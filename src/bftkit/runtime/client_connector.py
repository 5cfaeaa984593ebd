"""How a client reaches replicas: the seam, and the way over connections that are made again when they break."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from bftkit.errors import BftkitError, MalformedMessage
from bftkit.runtime.admin_messages import AdminAnswer
from bftkit.runtime.connection import FramedConnection
from bftkit.wire.codec import Codec
from bftkit.wire.framing import Frame, FrameType, frame_header

FIRST_PAUSE_S = 0.05
"""Pause before a replica is dialled again; doubled each time."""
LONGEST_PAUSE_S = 1.0
"""Longest such pause."""

_answers: Codec[AdminAnswer] = Codec(AdminAnswer)


class ClientSink(Protocol):
    """The client, as a connector sees it; every method returns at once."""

    def on_up(self, replica: int) -> None:
        """Learn that a replica can be reached."""
        ...

    def on_down(self, replica: int, reason: str) -> None:
        """Learn that it cannot be reached, or not any more."""
        ...

    def on_replies(self, replica: int, payloads: Sequence[bytes | memoryview]) -> None:
        """Take encoded `AnyReply`s; MalformedMessage where one is none."""
        ...

    def on_answer(self, replica: int, answer: AdminAnswer) -> None:
        """Take the answer to a question."""
        ...


class Connector(Protocol):
    """Whatever carries requests to replicas, by index, and their replies back to the sink."""

    async def run(self, sink: ClientSink, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Connect, and stay connected until cancelled; `started()` does not mean that anybody has answered."""
        ...

    def send(self, replica: int, requests: Sequence[bytes]) -> None:
        """Send encoded `AnyRequest`s without waiting; what cannot be sent is dropped, the session repeats it."""
        ...

    def ask(self, replica: int, question: bytes) -> bool:
        """Send an encoded `AdminAsk`; False where the replica cannot be reached."""
        ...


Dial = Callable[[], Awaitable[FramedConnection]]
"""Makes a connection to one replica, handshake included; `BftkitError` or `OSError` where that fails."""


class RemoteConnector:
    """Keep one connection to each replica."""

    def __init__(self, dials: Sequence[Dial]) -> None:
        self._dials = tuple(dials)
        self._connections: list[FramedConnection | None] = [None] * len(dials)

    async def run(self, sink: ClientSink, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Keep all connections until cancelled."""
        async with anyio.create_task_group() as tasks:
            for replica in range(len(self._dials)):
                tasks.start_soon(partial(self._keep, replica, sink))
            task_status.started()

    async def _keep(self, replica: int, sink: ClientSink) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                connection = await self._dials[replica]()
            except (BftkitError, OSError, TimeoutError) as error:
                sink.on_down(replica, str(error) or type(error).__name__)
            else:
                pause = FIRST_PAUSE_S
                await self._serve(replica, connection, sink)
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _serve(self, replica: int, connection: FramedConnection, sink: ClientSink) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.run)
            self._connections[replica] = connection
            try:
                sink.on_up(replica)
                while True:
                    self._take(replica, await connection.receive(), sink)
            except MalformedMessage as error:
                connection.close(str(error), tell=True)
            except BftkitError as error:
                connection.close(str(error))
            finally:
                self._connections[replica] = None
                tasks.cancel_scope.cancel()
        sink.on_down(replica, connection.reason or "")

    def _take(self, replica: int, frames: Sequence[Frame], sink: ClientSink) -> None:
        replies = [frame.payload for frame in frames if frame.type is FrameType.REPLY]
        if replies:
            sink.on_replies(replica, replies)
        for frame in frames:
            if frame.type is FrameType.ADMIN_REPLY:
                sink.on_answer(replica, _answers.decode(frame.payload))

    def send(self, replica: int, requests: Sequence[bytes]) -> None:
        """Send encoded requests in one write."""
        connection = self._connections[replica]
        if connection is not None:
            buffers: list[bytes | memoryview] = []
            for request in requests:
                buffers += (frame_header(FrameType.REQUEST, len(request)), request)
            connection.send(buffers)

    def ask(self, replica: int, question: bytes) -> bool:
        """Send an encoded question."""
        connection = self._connections[replica]
        return connection is not None and connection.send((frame_header(FrameType.ADMIN, len(question)), question))
