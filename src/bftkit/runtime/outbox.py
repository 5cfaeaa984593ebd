"""What waits to be written to one connection: bounded, by priority, and joined into few writes."""

from collections import deque
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel

from bftkit.errors import ConfigurationError
from bftkit.runtime.channel import BULK
from bftkit.runtime.transport import PRIORITIES, LinkStatistics

OUTBOX_BYTES: Final = 32 * 1024 * 1024
"""The default for the bytes that may wait."""
OUTBOX_MESSAGES: Final = 65_536
"""The default for the messages that may wait."""
WRITE_BYTES: Final = 1024 * 1024
"""The default for the bytes of one write; a longer message goes alone."""
FAIR_EVERY: Final = 4
"""Every so many full writes, the least urgent message that waits goes along, so that no flood starves it."""


class Outbox:
    """Keep messages until the writer of a connection takes them; many senders, one writer, nobody waits to send.

    When it is full, bulk messages are thrown out first, the latest first (the earliest is nearest to being of use);
    when that is not enough, or the message is bulk itself, the message is refused.
    """

    __slots__ = (
        "_bytes",
        "_full_writes",
        "_max_bytes",
        "_max_messages",
        "_messages",
        "_queues",
        "_wakeup",
        "_write_bytes",
        "closed",
        "statistics",
    )

    def __init__(
        self,
        max_bytes: int = OUTBOX_BYTES,
        max_messages: int = OUTBOX_MESSAGES,
        write_bytes: int = WRITE_BYTES,
        statistics: LinkStatistics | None = None,
    ) -> None:
        if min(max_bytes, max_messages, write_bytes) < 1:
            raise ConfigurationError("an outbox holds at least one byte and one message")
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._write_bytes = write_bytes
        self._queues: tuple[deque[tuple[int, Sequence[bytes | memoryview]]], ...] = tuple(
            deque() for _ in range(PRIORITIES)
        )
        self._bytes = 0
        self._messages = 0
        self._full_writes = 0
        self._wakeup: anyio.Event | None = None
        self.closed = False
        """Whether it takes nothing more."""
        self.statistics = statistics if statistics is not None else LinkStatistics()
        """Where it counts; all outboxes of one link may share it."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait now."""
        return self._bytes

    @property
    def waiting_messages(self) -> int:
        """Messages that wait now."""
        return self._messages

    def push(self, priority: int, buffers: Sequence[bytes | memoryview]) -> bool:
        """Append a message; return False, and count it, if there is no room. The writer is not woken."""
        if self.closed:
            self.statistics.dropped_unconnected += 1
            return False
        size = sum(map(len, buffers))
        full = self._bytes + size > self._max_bytes or self._messages >= self._max_messages
        if full and (priority == BULK or not self._make_room(size)):
            self.statistics.dropped_full += 1
            return False
        self._queues[priority].append((size, buffers))
        self._bytes += size
        self._messages += 1
        return True

    def wake(self) -> None:
        """Let the writer take what waits."""
        # Forgetting the event at once is what makes it one wake-up per write, however often this is called.
        if self._wakeup is not None and self._messages:
            self._wakeup.set()
            self._wakeup = None

    async def wait(self) -> None:
        """Wait until there is something to take and `wake` was called, or something was there, or it is closed."""
        if self._messages or self.closed:
            await anyio.lowlevel.checkpoint()
            return
        self._wakeup = wakeup = anyio.Event()
        try:
            await wakeup.wait()
        finally:
            self._wakeup = None

    def take(self) -> bytes:
        """Return the bytes of one write, the most urgent messages first; empty if nothing waits."""
        taken: list[bytes | memoryview] = []
        count, room = self._messages, self._write_bytes
        if self._bytes <= room:
            for queue in self._queues:
                for _, buffers in queue:
                    taken.extend(buffers)
                queue.clear()
            size = self._bytes
        else:
            count, size = self._take_some(room, taken)
        self._bytes -= size
        self._messages -= count
        self.statistics.messages_sent += count
        self.statistics.bytes_sent += size
        self.statistics.writes += count > 0
        first = taken[0] if len(taken) == 1 else None
        return first if type(first) is bytes else b"".join(taken)

    def close(self) -> None:
        """Throw everything out, take nothing more, and let the writer go."""
        self.closed = True
        self.statistics.dropped_unsent += self._messages
        self._messages = self._bytes = 0
        for queue in self._queues:
            queue.clear()
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    def _take_some(self, room: int, taken: list[bytes | memoryview]) -> tuple[int, int]:
        """Fill one write of many; return (messages, bytes)."""
        count = size = 0
        self._full_writes += 1
        if self._full_writes % FAIR_EVERY == 0:
            queue = next(queue for queue in reversed(self._queues) if queue)
            size, buffers = queue.popleft()
            taken.extend(buffers)
            count = 1
        for queue in self._queues:
            while queue and (not count or size + queue[0][0] <= room):
                length, buffers = queue.popleft()
                taken.extend(buffers)
                size += length
                count += 1
            if queue:
                break
        return count, size

    def _make_room(self, size: int) -> bool:
        """Throw out as many bulk messages as it takes for one more message; False, and none, if that is not enough."""
        bulk = self._queues[BULK]
        bulk_bytes = sum(length for length, _ in bulk)
        if self._bytes - bulk_bytes + size > self._max_bytes or self._messages - len(bulk) >= self._max_messages:
            return False
        while self._bytes + size > self._max_bytes or self._messages >= self._max_messages:
            length, _ = bulk.pop()
            self._bytes -= length
            self._messages -= 1
            self.statistics.dropped_bulk += 1
        return True
