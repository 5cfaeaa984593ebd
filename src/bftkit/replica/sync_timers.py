"""The two timers of catching up, each of them set once at a time."""

from typing import TYPE_CHECKING

from bftkit.core.outputs import SetTimer

if TYPE_CHECKING:
    from bftkit.replica.replica import Replica

PROGRESS_TIMER = "replica/progress"
"""Tell the peers how far this replica is, until all that are connected are equal."""

SYNC_TIMER = "replica/sync"
"""Ask somebody who is ahead, and look after a state that is being fetched."""


def arm(replica: "Replica", timer: str, delay_ms: int) -> None:
    """Set one of the two, unless it runs already."""
    if not replica.catch_up.timers[timer]:
        replica.catch_up.timers[timer] = True
        replica.emit(SetTimer(timer, delay_ms, delay_ms // 4))


def arm_progress(replica: "Replica") -> None:
    """See to it that the peers will be told."""
    arm(replica, PROGRESS_TIMER, replica.settings.tuning.progress_ms)


def arm_sync(replica: "Replica") -> None:
    """See to it that what was asked for is looked after."""
    arm(replica, SYNC_TIMER, 2 * replica.settings.tuning.sync_grace_ms)
