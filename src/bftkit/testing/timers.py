"""The timers of a simulated member, run by its own clock, and some of them late."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bftkit.core.outputs import CancelTimer, SetTimer
from bftkit.replica.replica import ENGINE_TIMER

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

LATEST = 10
"""How many times its delay a late timer takes at most."""


class SimulatedTimers:
    """Named timers of one life of a member. `fired` is told when one runs out."""

    def __init__(self, node: "SimulatedNode", late: float, fired: Callable[[str], None]) -> None:
        self._node = node
        self._late = late
        self._fired = fired
        self.running: dict[str, tuple[int, int]] = {}
        """For each running timer, its number and its deadline by the member's clock."""
        self.of_engine: set[str] = set()
        """Names that the engine has for those of its timers that run."""
        self._overdue: set[int] = set()
        """Numbers of timers that will be late."""
        self._count = 0

    def __len__(self) -> int:
        return len(self.running)

    def __contains__(self, timer: str) -> bool:
        return timer in self.running

    def set(self, output: SetTimer) -> None:
        """Start a timer, or start it again."""
        node = self._node
        stream = node.world.choices.clock
        delay_ms = output.delay_ms
        if output.jitter_ms:
            delay_ms += stream.below("jitter", node.instance, output.jitter_ms + 1)
        delay_us = node.clock.virtual_us(delay_ms)
        if self._late and not node.world.healed and stream.chance("late", node.instance, self._late):
            times = 1 + stream.below("lateness", node.instance, LATEST)
            delay_us *= times
            if times > 1:
                self._overdue.add(self._count + 1)
        self._start(output.timer, node.clock.now_ms() + delay_ms, delay_us)

    def _start(self, timer: str, deadline: int, delay_us: int) -> None:
        self._count += 1
        self.running[timer] = (self._count, deadline)
        if timer.startswith(ENGINE_TIMER):
            self.of_engine.add(timer[len(ENGINE_TIMER) :])
        self._node.later(delay_us, self._fire, timer, self._count, kind="timers")

    def cancel(self, output: CancelTimer) -> None:
        """Stop a timer, if it runs."""
        self._forget(output.timer)

    def _forget(self, timer: str) -> None:
        if self.running.pop(timer, None) is not None:
            self.of_engine.discard(timer[len(ENGINE_TIMER) :])

    def leap(self) -> None:
        """Look at all deadlines again, after the clock has gone forward."""
        now = self._node.clock.now_ms()
        for timer, (_, deadline) in list(self.running.items()):
            self._start(timer, deadline, self._node.clock.virtual_us(max(0, deadline - now)))

    def _fire(self, timer: str, count: int) -> None:
        running = self.running.get(timer)
        if running is not None and running[0] == count:
            self._forget(timer)
            if count in self._overdue:
                self._overdue.remove(count)
                self._node.world.hits["late_timers"] += 1
            self._fired(timer)
