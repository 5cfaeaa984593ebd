"""One heap of deadlines for all timers of a shard, and the draw of their jitter."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from random import Random
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

COMPACTION_FLOOR = 16
"""A heap with fewer stale entries than this is not worth rebuilding."""


class TimerHeap(Generic[K]):
    """Keep the deadlines of named timers; setting a name again replaces its deadline.

    It has no clock: the caller says what time it is, in integer milliseconds of any monotonic clock. Cancelled and
    replaced entries stay in the heap until they surface, or until they outnumber the live ones, when the heap is
    rebuilt: its size is at most twice the number of live timers, plus a small constant, and each operation is O(log n)
    amortised.
    """

    __slots__ = ("_heap", "_live", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, K]] = []
        self._live: dict[K, tuple[int, int]] = {}
        self._order = 0

    def __len__(self) -> int:
        """Return the number of timers that are set."""
        return len(self._live)

    def __contains__(self, key: object) -> bool:
        """Say whether a timer of this name is set."""
        return key in self._live

    def set(self, key: K, deadline_ms: int) -> None:
        """Set a timer, or move it if it is set already."""
        # The running number makes ties fire in the order of setting, and keeps the keys out of every comparison.
        self._order += 1
        self._live[key] = (deadline_ms, self._order)
        heappush(self._heap, (deadline_ms, self._order, key))
        self._compact()

    def cancel(self, key: K) -> bool:
        """Forget a timer; return whether it was set."""
        if self._live.pop(key, None) is None:
            return False
        self._compact()
        return True

    def pop_due(self, now_ms: int) -> list[K]:
        """Remove and return the timers whose deadline is not after `now_ms`, by deadline, then by order of setting."""
        due: list[K] = []
        heap, live = self._heap, self._live
        while heap and heap[0][0] <= now_ms:
            deadline_ms, order, key = heappop(heap)
            if live.get(key) == (deadline_ms, order):
                del live[key]
                due.append(key)
        # Each fired timer takes one from the live ones, so the stale may now be the greater part.
        if due:
            self._compact()
        return due

    def next_deadline(self) -> int | None:
        """Return the earliest deadline in milliseconds, or None if no timer is set."""
        heap, live = self._heap, self._live
        while heap:
            deadline_ms, order, key = heap[0]
            if live.get(key) == (deadline_ms, order):
                return deadline_ms
            heappop(heap)
        return None

    def _compact(self) -> None:
        stale = len(self._heap) - len(self._live)
        if stale > len(self._live) and stale > COMPACTION_FLOOR:
            self._heap = [(deadline_ms, order, key) for key, (deadline_ms, order) in self._live.items()]
            heapify(self._heap)


def draw(delay_ms: int, jitter_ms: int, random: Random) -> int:
    """Return `delay_ms` plus an even draw from 0 to `jitter_ms`, both ends included, in milliseconds."""
    return delay_ms + random.randrange(jitter_ms + 1) if jitter_ms > 0 else delay_ms
