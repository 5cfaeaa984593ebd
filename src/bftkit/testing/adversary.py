"""An order of events that no clock would choose: by priority, with a few changes of it in a run.

Probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010): whatever takes turns has a random priority, whoever
has the highest goes next, and a few times in a run the one whose turn it is falls behind all others. A bug that needs
d such changes of order is found with a probability that falls with d alone, not with the length of the run.

What takes turns here are the sources of events: each link, the requests and the answers of each member, each client,
and each member's timers, disk and application. As timers go on for ever, nobody is ever blocked, and a source of low
priority would never have its turn. So a priority is a time: how long a source lets all others go before it. Of all
events that are pending the one goes next that has waited for so long. A message may outlive many views, a timer may
run out long after what it was set against, and no wait is longer than a bound. What the world itself does, faults and
new connections, keeps its time.
"""

from collections import Counter as Tally
from collections.abc import Callable
from heapq import heapify, heappush
from typing import Any

from bftkit.testing.choices import Stream
from bftkit.testing.clock import EventHeap

LONGEST_WAIT_US = 2_000_000
"""How long a source of the lowest priority waits at most: several views, and less than a schedule."""

MOST_CHANGES = 5
"""How often in a run the source whose turn it is may fall behind all others."""

CHANGE_RATE = 0.8
"""Share of these changes that do happen."""

FINE = 1_024
"""In how many steps priorities are drawn."""

Source = tuple[str, int]
"""Its kind, and the number of the link, the member or the client."""


class AdversarialHeap(EventHeap):
    """What is going to happen, in the order of an adversary until it is told to stop."""

    __slots__ = ("_changes_at", "_hits", "_latest_due_us", "_longest_us", "_over", "_stream", "_waits", "changes")

    def __init__(self, stream: Stream, duration_us: int, hits: Tally[str]) -> None:
        """Draw how long anybody waits in this run, and when priorities change in so many microseconds."""
        super().__init__()
        self._stream = stream
        self._hits = hits
        self._longest_us = stream.below("longest wait", 0, LONGEST_WAIT_US + 1)
        self._changes_at = sorted(
            stream.below("change at", number, duration_us)
            for number in range(MOST_CHANGES)
            if stream.chance("change", number, CHANGE_RATE)
        )
        self._waits: dict[Source, int] = {}
        """For each source, how long it lets all others go first."""
        self._latest_due_us = 0
        self._over = False
        self.changes = 0
        """How often a source fell behind all others."""

    def due(self, kind: str, where: int, delay_us: int, function: Callable[..., None], *arguments: Any) -> None:
        """Let something become due in so many microseconds, and happen when its source has its turn."""
        if self._over:
            self.after(delay_us, function, *arguments)
            return
        source, due_us = (kind, where), self.now_us + delay_us
        wait_us = self._waits.get(source)
        if wait_us is None:
            wait_us = self._waits[source] = self._draw_wait_us(kind, where)
        self._order += 1
        heappush(
            self._heap,
            (due_us + wait_us, self._order, self._take_turn, (self._order, source, due_us, function, arguments)),
        )

    def _draw_wait_us(self, kind: str, where: int) -> int:
        """Draw a priority: most sources wait little beside the few that wait longest."""
        share = self._stream.below(f"wait of {kind}", where, FINE)
        return self._longest_us * share**3 // FINE**3

    def _take_turn(
        self, order: int, source: Source, due_us: int, function: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Let an event happen, unless its source has fallen behind since it was scheduled, or does so now."""
        if self._changes_at and self.now_us >= self._changes_at[0]:
            del self._changes_at[0]
            self.changes += 1
            self._waits[source] = self._longest_us
        turn_us = due_us + self._waits[source]
        if turn_us > self.now_us:
            heappush(self._heap, (turn_us, order, self._take_turn, (order, source, due_us, function, arguments)))
            return
        if due_us < self._latest_due_us:
            self._hits["adversarial order"] += 1
        else:
            self._latest_due_us = due_us
        function(*arguments)

    def keep_time(self) -> None:
        """Go on in the order of time, and let what has waited happen next."""
        self._over = True
        for place, event in enumerate(self._heap):
            if event[2] == self._take_turn:
                order, _, due_us, function, arguments = event[3]
                self._heap[place] = (max(self.now_us + 1, due_us), order, function, arguments)
        heapify(self._heap)
