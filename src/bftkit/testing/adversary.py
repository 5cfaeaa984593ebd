"""An order of delivery that nobody's network would choose: by priority, whatever the time.

Probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010): each link has a random priority, and of all
messages that are on their way the one on the link with the highest priority arrives next; a few times in a run
the link whose turn it is falls behind all others. A bug that needs d such changes of order is found with a
probability that falls with d alone, not with the length of the run.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from bftkit.testing.choices import Stream
from bftkit.testing.clock import EventHeap

TICK_US = 40
"""Most virtual time between two deliveries: timers run on while messages wait."""

CHANGE_RATE = 0.002
"""How often, by deliveries, the link whose turn it is falls behind all others: about three to five times in a run."""


class AdversarialOrder:
    """Messages on their way, delivered by the priority of their link."""

    def __init__(self, stream: Stream, events: EventHeap, deliver: Callable[..., None], in_order: bool) -> None:
        self._stream = stream
        self._events = events
        self._deliver = deliver
        self._in_order = in_order
        self._waiting: dict[int, deque[tuple[Any, ...]]] = {}
        self._priority: dict[int, int] = {}
        self._lowest = 0
        self._ticking = False
        self.changes = 0
        """How often a link fell behind."""

    def put(self, link: int, arguments: tuple[Any, ...]) -> None:
        """Put a message on its way; `deliver` gets the arguments when its turn has come."""
        queue = self._waiting.get(link)
        if queue is None:
            queue = self._waiting[link] = deque()
            self._priority.setdefault(link, 1 + self._stream.below("priority", link, 1 << 20))
        queue.append(arguments)
        if not self._ticking:
            self._ticking = True
            self._events.after(1 + self._stream.below("tick", 0, TICK_US), self._tick)

    def _tick(self) -> None:
        """Deliver the message whose turn it is."""
        self._ticking = False
        if not self._waiting:
            return
        link = max(self._waiting, key=lambda one: (self._priority[one], one))
        queue = self._waiting[link]
        if not self._in_order:
            queue.rotate(-self._stream.below("pick", link, len(queue)))
        arguments = queue.popleft()
        if not queue:
            del self._waiting[link]
        if self._stream.chance("change", 0, CHANGE_RATE):
            self.changes += 1
            self._lowest -= 1
            self._priority[link] = self._lowest
        if self._waiting:
            self._ticking = True
            self._events.after(1 + self._stream.below("tick", 0, TICK_US), self._tick)
        self._deliver(*arguments)

    def release(self) -> list[tuple[Any, ...]]:
        """Give back everything that waits, link by link, to be delivered otherwise."""
        waiting = [arguments for link in sorted(self._waiting) for arguments in self._waiting[link]]
        self._waiting.clear()
        return waiting
