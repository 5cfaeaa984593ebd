"""Metrics for a monitoring system: one page of text over HTTP, and nothing else."""

from collections.abc import Callable

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import SocketStream, TaskStatus

from bftkit.runtime.connection import close_stream
from bftkit.runtime.listener import host_and_port

REQUEST_BYTES = 8192
"""Longest request head that is read."""

REQUEST_TIMEOUT_S = 5.0
"""How long a request may take, answer included."""

_PAGE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPort:
    """Answers ``GET /metrics``; everything else gets an error and the connection closes."""

    def __init__(self, listen_address: str, page: Callable[[], str]) -> None:
        """Prepare to listen at "host:port"; `page` makes the text anew for each request."""
        self._host, self._port = host_and_port(listen_address)
        self._page = page

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; OSError where the address cannot be had."""
        async with await anyio.create_tcp_listener(local_host=self._host, local_port=self._port) as listener:
            task_status.started()
            await listener.serve(self._serve)

    async def _serve(self, stream: SocketStream) -> None:
        try:
            with anyio.move_on_after(REQUEST_TIMEOUT_S):
                await stream.send(self._answer(await _read_head(stream)))
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            # Whoever asked has gone; nobody else is concerned.
            return
        finally:
            with anyio.CancelScope(shield=True):
                await close_stream(stream)

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", "not an HTTP request\n")
        if words[0] != b"GET":
            return _response("405 Method Not Allowed", "only GET\n")
        if words[1].split(b"?", 1)[0] != b"/metrics":
            return _response("404 Not Found", "there is only /metrics\n")
        return _response("200 OK", self._page())


async def _read_head(stream: SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < REQUEST_BYTES:
        head += await stream.receive(REQUEST_BYTES)
    return head


def _response(status: str, text: str) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_PAGE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
