"""A client's way to the node in the same process: no socket, no TLS, and no doubt about what the node says."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from bftkit.runtime.client_connector import ClientSink
from bftkit.wire.framing import HEADER_BYTES


class LocalChannel:
    """Where the node's client edge puts the frames of answers; a `client_edge.ReplyChannel`."""

    def __init__(self, public_key: bytes, sink: ClientSink) -> None:
        self.public_key = public_key
        """Whose answers these are."""
        self._sink = sink

    def send(self, buffers: Sequence[bytes | memoryview]) -> bool:
        """Hand answers on; each buffer is one whole REPLY frame."""
        self._sink.on_replies(0, [buffer[HEADER_BYTES:] for buffer in buffers])
        return True


class Edge(Protocol):
    """What a local client needs of a node's client edge."""

    def connect(self, channel: LocalChannel) -> None:
        """Note where the answers go."""
        ...

    def disconnect(self, channel: LocalChannel) -> None:
        """Forget it."""
        ...


class LocalConnector:
    """Carry requests to one node in this process, which is replica 0 to the client.

    `submit` is `Node.submit_encoded`, `edge` is `Node.edge`; the client is built with the quorum of a single
    member, since whoever runs a node believes it: `Client(key, domain, Quorum.of(FaultModel.CRASH, 1), connector)`.
    """

    def __init__(
        self, public_key: bytes, edge: Edge, submit: Callable[[LocalChannel, Sequence[bytes]], Awaitable[None]]
    ) -> None:
        self._public_key = public_key
        self._edge = edge
        self._submit = submit
        # The session bounds what is in flight, so this queue needs no bound of its own.
        self._send, self._receive = anyio.create_memory_object_stream[Sequence[bytes]](math.inf)

    async def run(self, sink: ClientSink, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Pass requests on until cancelled."""
        channel = LocalChannel(self._public_key, sink)
        self._edge.connect(channel)
        try:
            sink.on_up(0)
            task_status.started()
            async for requests in self._receive:
                await self._submit(channel, requests)
        finally:
            self._edge.disconnect(channel)
            self._send.close()
            self._receive.close()

    def send(self, replica: int, requests: Sequence[bytes]) -> None:
        """Queue encoded requests for the node."""
        try:
            self._send.send_nowait(requests)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    def ask(self, replica: int, question: bytes) -> bool:
        """Answer no questions: who runs the node asks it directly."""
        return False
