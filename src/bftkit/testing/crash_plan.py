"""Where one simulated member is going to crash: in the middle of outputs, at a failpoint, or while it starts."""

from typing import TYPE_CHECKING

from bftkit.testing.disk import SimulatedCrash

if TYPE_CHECKING:
    from bftkit.testing.nemesis import Fault


class CrashPlan:
    """The crashes in the middle of something that are planned for a member; most last for one life only."""

    def __init__(self) -> None:
        self.outputs_left = -1
        """Outputs until a crash; negative for none."""
        self.in_recovery: list[int] = []
        """For each of the next starts, after how many operations of the disk it crashes."""
        self.at_start: tuple[str, int] | None = None
        """The failpoint that is armed at the next start, and how often it is passed."""
        self.sync_fails = False
        """Whether a failure of this disk was injected and has not shown yet."""
        self.kind = ""
        """Class of the fault that was planned last."""
        self.fault: Fault | None = None
        """What the next crash leaves, and how long it lasts."""
        self._failpoint = ""
        self._hits_left = 0

    def plan(self, kind: str, fault: "Fault") -> None:
        """Note what the next crash is, leaves and lasts."""
        self.kind = kind
        self.fault = fault

    def arm(self, failpoint: str, hits: int) -> None:
        """Crash at a place that has a name, when it is passed so many times."""
        self._failpoint, self._hits_left = failpoint, hits

    def reached(self, failpoint: str) -> None:
        """Crash where this failpoint is armed and it is its time."""
        if failpoint == self._failpoint:
            self._hits_left -= 1
            if not self._hits_left:
                self._failpoint = ""
                raise SimulatedCrash(f"at the failpoint {failpoint}")

    def performing(self) -> None:
        """Count an output that is about to be performed, and crash in its place if it is its time."""
        if self.outputs_left >= 0:
            self.outputs_left -= 1
            if self.outputs_left < 0:
                raise SimulatedCrash("in the middle of a step's outputs")

    def crashed(self) -> None:
        """Forget what was planned for the life that has ended."""
        self.outputs_left = -1
        self.sync_fails = False
        self.kind = ""
        self._failpoint = ""

    def clear(self) -> None:
        """Forget everything that was planned."""
        self.crashed()
        self.fault = None
        self.at_start = None
        self.in_recovery.clear()
