"""A bounded channel with priorities that moves lists: many senders, one consumer, one wake-up per drain."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import anyio
import anyio.lowlevel

from bftkit.errors import ConfigurationError

CONTROL = 0
"""Epoch changes, checkpoints, view changes: what frees everything else."""
PROPOSALS = 1
"""Proposals and votes."""
CLIENTS = 2
"""Client envelopes."""
BULK = 3
"""Bodies of batches, state transfer: what can be asked for again."""

DRAIN_LIMIT = 1024
"""The default for the number of items that one `receive` returns at most."""
SHARE_DIVISOR = 16
"""A priority that has items waiting gets at least one in so many places of a full drain."""

T = TypeVar("T")


class ChannelStatistics(NamedTuple):
    """What a channel holds and what it did; each tuple has one entry per priority."""

    depth: tuple[int, ...]
    """Items that wait now."""
    capacity: tuple[int, ...]
    """Items that may wait."""
    high_water: tuple[int, ...]
    """The greatest depth ever seen."""
    sent: tuple[int, ...]
    """Items accepted so far."""
    refused: tuple[int, ...]
    """Items that `send_nowait` and `send_many_nowait` turned away because the priority was full."""
    waiting_senders: tuple[int, ...]
    """Tasks that are blocked in `send`."""


class _Waiter(Generic[T]):
    """A blocked sender and the item that it holds out."""

    __slots__ = ("accepted", "item", "wakeup")

    def __init__(self, item: T) -> None:
        self.item = item
        self.wakeup = anyio.Event()
        self.accepted = False


class PriorityChannel(Generic[T]):
    """Carry items from many tasks to one, the most urgent first, in lists.

    Priority 0 is the most urgent. Within one priority the order of sending is the order of receiving. A drain of up to
    `limit` items serves urgent priorities first, but every priority that has items waiting gets at least
    ``max(1, limit // 16)`` places (or as many as it has items), so no flood of urgent items starves the others: an item
    with `d` items of its own priority before it leaves after at most ``d // max(1, limit // 16) + 1`` drains.

    All calls must come from the event loop's own thread.

    Raises:
        ConfigurationError: there is no priority or more than 16, a capacity is below 1, or `limit` is below the number
            of priorities.
    """

    __slots__ = (
        "_busy",
        "_capacities",
        "_closed",
        "_high_water",
        "_limit",
        "_queues",
        "_received",
        "_refused",
        "_share",
        "_waiters",
        "_wakeup",
    )

    def __init__(self, capacities: Sequence[int], limit: int = DRAIN_LIMIT) -> None:
        if not capacities or min(capacities) < 1:
            raise ConfigurationError(f"a channel needs one capacity of at least 1 per priority, not {list(capacities)}")
        if len(capacities) > min(limit, SHARE_DIVISOR):
            raise ConfigurationError(f"a drain of {limit} items cannot serve {len(capacities)} priorities")
        self._capacities = tuple(capacities)
        self._limit = limit
        self._share = max(1, limit // SHARE_DIVISOR)
        self._queues: tuple[deque[T], ...] = tuple(deque() for _ in capacities)
        self._waiters: tuple[deque[_Waiter[T]], ...] = tuple(deque() for _ in capacities)
        self._received = [0] * len(capacities)
        self._refused = [0] * len(capacities)
        self._high_water = [0] * len(capacities)
        self._wakeup: anyio.Event | None = None
        self._busy = False
        self._closed = False

    def send_nowait(self, priority: int, item: T) -> bool:
        """Add an item if there is room; return False, and count it as refused, if there is none.

        Raises:
            anyio.ClosedResourceError: the channel is closed.
        """
        queue = self._queues[priority]
        if len(queue) >= self._capacities[priority] or self._closed:
            self._require_open()
            self._refused[priority] += 1
            return False
        queue.append(item)
        if self._wakeup is not None:
            self._wake()
        return True

    def send_many_nowait(self, priority: int, items: Sequence[T]) -> int:
        """Add as many of the items as there is room for, in order; return how many, and count the rest as refused.

        Raises:
            anyio.ClosedResourceError: the channel is closed.
        """
        self._require_open()
        queue = self._queues[priority]
        room = self._capacities[priority] - len(queue)
        accepted = items if len(items) <= room else items[:room]
        queue.extend(accepted)
        self._refused[priority] += len(items) - len(accepted)
        if self._wakeup is not None and accepted:
            self._wake()
        return len(accepted)

    async def send(self, priority: int, item: T) -> None:
        """Add an item, waiting for room where there is none.

        It does not yield when there is room: the capacity bounds how long a sender can go on. A sender that is
        cancelled while it waits has not sent its item, except if the consumer made room in the same turn of the loop:
        then the item is in the channel.

        Raises:
            anyio.ClosedResourceError: the channel is closed, or was closed before there was room.
        """
        self._require_open()
        if len(self._queues[priority]) < self._capacities[priority]:
            self._queues[priority].append(item)
            if self._wakeup is not None:
                self._wake()
            return
        waiter = _Waiter(item)
        self._waiters[priority].append(waiter)
        try:
            await waiter.wakeup.wait()
        except BaseException:
            if not waiter.accepted and waiter in self._waiters[priority]:
                self._waiters[priority].remove(waiter)
            raise
        if not waiter.accepted:
            raise anyio.ClosedResourceError

    async def receive(self) -> list[T]:
        """Return what is there, at most `limit` items, the most urgent first; wait if there is nothing.

        It always yields to the loop once, before it takes anything, so a cancelled consumer loses nothing and what
        arrives meanwhile comes in the same list.

        Raises:
            anyio.EndOfStream: the channel is closed and empty.
            anyio.BusyResourceError: another task is receiving.
        """
        if self._busy:
            raise anyio.BusyResourceError("receiving from")
        self._busy = True
        try:
            if any(self._queues):
                await anyio.lowlevel.checkpoint()
            elif self._closed:
                raise anyio.EndOfStream
            else:
                await self._wait_for_items()
        finally:
            self._busy = False
        return self.receive_nowait()

    def receive_nowait(self) -> list[T]:
        """Return what is there, at most `limit` items, the most urgent first; the list may be empty.

        Raises:
            anyio.EndOfStream: the channel is closed and empty.
        """
        depths = [len(queue) for queue in self._queues]
        if self._closed and not any(depths):
            raise anyio.EndOfStream
        takes = depths if sum(depths) <= self._limit else self._shares(depths)
        drained: list[T] = []
        for priority, take in enumerate(takes):
            if not take:
                continue
            queue = self._queues[priority]
            self._high_water[priority] = max(self._high_water[priority], depths[priority])
            if take == depths[priority]:
                drained.extend(queue)
                queue.clear()
            else:
                drained.extend([queue.popleft() for _ in range(take)])
            self._received[priority] += take
            if self._waiters[priority]:
                self._admit(priority)
        return drained

    def close(self) -> None:
        """Refuse further items; those that are in can still be received, those of blocked senders are not sent."""
        self._closed = True
        for waiters in self._waiters:
            for waiter in waiters:
                waiter.wakeup.set()
            waiters.clear()
        if self._wakeup is not None:
            self._wake()

    def statistics(self) -> ChannelStatistics:
        """Say how full the channel is and was, and what it accepted and refused."""
        depth = tuple(len(queue) for queue in self._queues)
        return ChannelStatistics(
            depth=depth,
            capacity=self._capacities,
            high_water=tuple(max(pair) for pair in zip(self._high_water, depth, strict=True)),
            sent=tuple(sum(pair) for pair in zip(self._received, depth, strict=True)),
            refused=tuple(self._refused),
            waiting_senders=tuple(len(waiters) for waiters in self._waiters),
        )

    def _require_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def _wake(self) -> None:
        # Forgetting the event at once is what makes it one wake-up per drain, however many items arrive.
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    async def _wait_for_items(self) -> None:
        self._wakeup = wakeup = anyio.Event()
        try:
            await wakeup.wait()
        finally:
            self._wakeup = None

    def _shares(self, depths: Sequence[int]) -> list[int]:
        """Divide a full drain: everyone's least share first, the rest by urgency."""
        takes = [min(depth, self._share) for depth in depths]
        left = self._limit - sum(takes)
        for priority, depth in enumerate(depths):
            extra = min(depth - takes[priority], left)
            takes[priority] += extra
            left -= extra
        return takes

    def _admit(self, priority: int) -> None:
        """Move the items of blocked senders into the room that a drain has made, in order of arrival."""
        queue, waiters = self._queues[priority], self._waiters[priority]
        while waiters and len(queue) < self._capacities[priority]:
            waiter = waiters.popleft()
            queue.append(waiter.item)
            waiter.accepted = True
            waiter.wakeup.set()
