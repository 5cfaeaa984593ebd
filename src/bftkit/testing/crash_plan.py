"""Where one simulated member is going to crash: in the middle of outputs, at a failpoint, or while it starts."""

from collections import Counter as Tally
from typing import TYPE_CHECKING

from bftkit.testing.disk import SimulatedCrash

if TYPE_CHECKING:
    from bftkit.testing.nemesis import Fault


FAILPOINT_HIT = "failpoint: "
"""What stands before the name of a failpoint where crashes at it are counted."""


class CrashPlan:
    """The crashes and failures in the middle of something that are planned for a member.

    Each is counted in `hits` when it happens, and not before: a plan may come to nothing.
    """

    def __init__(self, hits: Tally[str]) -> None:
        self._hits = hits
        self.in_recovery: list[int] = []
        """For each of the next starts, after how many operations of the disk it crashes."""
        self.recovery: Fault | None = None
        """What such a crash leaves, and how long it lasts."""
        self.fault: Fault | None = None
        """What the crash that is happening leaves, and how long it lasts; None where nobody planned it."""
        self._outputs_left = -1
        self._at_output: Fault | None = None
        self._armed: dict[str, tuple[int, Fault | None]] = {}

    @property
    def armed(self) -> bool:
        """Say whether any failpoint is armed."""
        return bool(self._armed)

    def happens(self, kind: str, fault: "Fault | None") -> None:
        """Count something that ends this life, and note what it leaves; without a fault, as if unplanned."""
        self._hits[kind] += 1
        self.fault = fault

    def in_recovery_happens(self) -> None:
        """Count a crash while it starts."""
        self._hits["crashes_in_recovery"] += 1
        self.fault = self.recovery

    def after_outputs(self, count: int, fault: "Fault") -> None:
        """Crash in place of the output that follows so many others in this life."""
        self._outputs_left, self._at_output = count, fault

    def arm(self, failpoint: str, hits: int, fault: "Fault | None") -> None:
        """Crash at a place that has a name, when it is passed so many times, in this life or in a later one."""
        self._armed[failpoint] = (hits, fault)

    def reached(self, failpoint: str) -> None:
        """Crash where this failpoint is armed and it is its time."""
        if failpoint in self._armed:
            hits, fault = self._armed.pop(failpoint)
            if hits > 1:
                self._armed[failpoint] = (hits - 1, fault)
                return
            self.happens(FAILPOINT_HIT + failpoint, fault)
            raise SimulatedCrash(f"at the failpoint {failpoint}")

    def performing(self) -> None:
        """Count an output that is about to be performed, and crash in its place if it is its time."""
        if self._at_output is not None:
            self._outputs_left -= 1
            if self._outputs_left < 0:
                fault, self._at_output = self._at_output, None
                self.happens("crashes_at_output", fault)
                raise SimulatedCrash("in the middle of a step's outputs")

    def crashed(self) -> None:
        """Forget what was planned for the life that has ended."""
        self._at_output = None
        self.fault = None

    def clear(self) -> None:
        """Forget everything that was planned."""
        self.crashed()
        self._armed.clear()
        self.in_recovery.clear()
