"""Virtual time: a heap of events in whole microseconds, and clocks that read it, each a bit wrong."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Any

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""The date at which simulated clocks stand at zero."""
TRUE_RATE = 1_000
"""What a clock counts in a thousand microseconds that is neither slow nor fast."""


class EventHeap:
    """What is going to happen, in order of time and, at one time, of having been scheduled."""

    __slots__ = ("_heap", "_order", "now_us", "taken")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self.now_us = 0
        """Virtual time."""
        self.taken = 0
        """Events that have happened."""

    def __len__(self) -> int:
        return len(self._heap)

    def after(self, delay_us: int, function: Callable[..., None], *arguments: Any) -> None:
        """Let something happen in so many microseconds."""
        self._order += 1
        heappush(self._heap, (self.now_us + delay_us, self._order, function, arguments))

    def due(self, kind: str, where: int, delay_us: int, function: Callable[..., None], *arguments: Any) -> None:
        """Let something happen likewise that a source brings on: a link, a member's timers, ...; see `adversary.py`."""
        self._order += 1
        heappush(self._heap, (self.now_us + delay_us, self._order, function, arguments))

    def keep_time(self) -> None:
        """Let everything happen at its time from now on, as here it always does."""

    def hasten(self, function: Callable[..., None], most_us: int) -> None:
        """Let all calls of a function that are to come happen within so many microseconds.

        Those that would have been later keep the order in which they were scheduled.
        """
        latest = self.now_us + most_us
        for place, event in enumerate(self._heap):
            if event[0] > latest and event[2] == function:
                self._heap[place] = (latest, *event[1:])
        heapify(self._heap)

    def run(self, until_us: int, stop: Callable[[], bool] | None = None, every: int = 1) -> bool:
        """Let events happen up to a time, or until `stop` says so; say whether it did. It is asked every few events."""
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            self.now_us, _, function, arguments = heappop(heap)
            self.taken += 1
            function(*arguments)
            if stop is not None and self.taken % every == 0 and stop():
                return True
        self.now_us = max(self.now_us, until_us)
        return False


class VirtualClock:
    """One member's monotonic clock, in milliseconds: a start of its own, a rate of its own, and leaps forward."""

    __slots__ = ("_events", "_offset_us", "_per_mille")

    def __init__(self, events: EventHeap, offset_ms: int, per_mille: int = TRUE_RATE) -> None:
        self._events = events
        self._offset_us = offset_ms * 1_000
        self._per_mille = per_mille
        """Microseconds that this clock counts in a thousand of virtual time."""

    def now_ms(self) -> int:
        """Return milliseconds since this clock's start."""
        return (self._events.now_us * self._per_mille // 1_000 + self._offset_us) // 1_000

    def wall_time(self) -> datetime:
        """Return a date and time of day that goes with this clock; simulated members judge no certificates."""
        return BEGINNING + timedelta(milliseconds=self.now_ms())

    def leap(self, ms: int) -> None:
        """Go forward at once, as after a pause of the whole machine."""
        self._offset_us += ms * 1_000

    def virtual_us(self, delay_ms: int) -> int:
        """Return how long a delay by this clock takes in virtual time."""
        return delay_ms * 1_000_000 // self._per_mille
