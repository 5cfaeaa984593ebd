"""What a node asks of a network, and what a network asks of a node."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from bftkit.runtime.channel import BULK
from bftkit.wire.framing import Frame

PRIORITIES: Final = BULK + 1
"""How many priorities there are, `channel.CONTROL` to `channel.BULK`."""


class LinkStatistics(msgspec.Struct, kw_only=True):
    """What happened between this node and one peer since the transport started; plain numbers, for status and metrics.

    A *message* here is what one `send` handed over: one frame, or several that belong together.
    """

    connected: bool = False
    """Whether the peer is up now."""
    connects: int = 0
    """How often it came up."""
    messages_sent: int = 0
    """Messages that were written."""
    bytes_sent: int = 0
    """Bytes that were written."""
    writes: int = 0
    """Writes that they went out in; bytes per write say how well messages coalesce."""
    frames_received: int = 0
    """Frames that arrived whole."""
    bytes_received: int = 0
    """Bytes that arrived."""
    dropped_unconnected: int = 0
    """Messages that were dropped because the peer was not up."""
    dropped_full: int = 0
    """Messages that were refused because the outbox was full."""
    dropped_bulk: int = 0
    """Bulk messages that were thrown out of the outbox to make room for others."""
    dropped_unsent: int = 0
    """Messages that waited in the outbox when the connection ended."""
    outbox_messages: int = 0
    """Messages that wait now."""
    outbox_bytes: int = 0
    """Bytes that wait now."""
    last_reason: str = ""
    """Why the last connection ended, or could not be made."""


class PeerHandler(Protocol):
    """The node, as a transport sees it."""

    async def on_frames(self, peer: str, frames: list[Frame]) -> None:
        """Take frames in the order in which the peer sent them.

        The transport awaits this before it reads on, so a slow handler holds up this peer and no other. A `WireError`
        from it ends the connection to this peer.
        """
        ...

    def on_peer_up(self, peer: str) -> None:
        """Learn that the peer can be reached; what was sent to it before is lost."""
        ...

    def on_peer_down(self, peer: str, reason: str) -> None:
        """Learn that the peer cannot be reached any more; every `on_peer_up` is followed by one of these."""
        ...


class Transport(Protocol):
    """Links to the other members; fire and forget, in order per link and priority, each message whole or not at all."""

    def send(self, peer: str, priority: int, buffers: Sequence[bytes | memoryview]) -> bool:
        """Append whole frames to the peer's outbox, without waiting; return False if they were dropped.

        The buffers must not change afterwards. Nothing leaves before `flush`.
        """
        ...

    def flush(self) -> None:
        """Let what was sent go out: the end of a turn, one write per peer."""
        ...

    async def run(self, handler: PeerHandler, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `task_status.started()` says that peers can connect."""
        ...

    def statistics(self) -> dict[str, LinkStatistics]:
        """Return what happened on each link."""
        ...
