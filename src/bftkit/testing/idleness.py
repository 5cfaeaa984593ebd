"""Whether a member goes on by itself with each kind of work that waits there: nobody may ever come and wake it.

Each kind has a plan of its own kind: a timer that asks again for what is missing, the application that executes, the
disk that something waits for. That other timers run is no excuse.
"""

from typing import TYPE_CHECKING

from bftkit.replica.dissemination import FETCH_TIMER
from bftkit.replica.sync_timers import PROGRESS_TIMER, SYNC_TIMER
from bftkit.testing.invariants import EngineInvariants, KnowsItsTimers

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode


class Idleness:
    """Looks for forgotten work; `invariants` know the timers of the engine, where they do."""

    def __init__(self, invariants: EngineInvariants | None) -> None:
        self._forgotten = invariants.forgotten if isinstance(invariants, KnowsItsTimers) else None

    def problem(self, node: "SimulatedNode") -> str | None:
        """Say with what a member waits though nothing would bring it on, or None."""
        if node.replica.halted:
            return None
        waits = self._replica_side(node)
        return f"{waits} that wait, and nothing that would bring them on" if waits else self._engine_side(node)

    def _replica_side(self, node: "SimulatedNode") -> str:
        replica, timers = node.replica, node.timers.running
        commits, mempool, transfer = replica.commits, replica.mempool, replica.state_transfer
        installing = transfer.installing is not None
        if FETCH_TIMER not in timers and replica.payloads.is_fetching:
            return "missing bodies"
        if commits.executed < commits.position or installing:
            executes = node.application.busy or node.awaits_disk
            if not executes and (installing or not replica.payloads.is_fetching):
                return "decided positions" if not installing else "states to be taken over"
        # As long as few own batches are on their way, whatever waits is made into one at once.
        if mempool.waiting_requests and mempool.in_flight < node.settings.tuning.batches_in_flight:
            return "requests"
        if SYNC_TIMER not in timers:
            if transfer.download is not None:
                return "parts of a state"
            for claim in replica.catch_up.claims:
                if claim is not None and claim.position > commits.position and not installing:
                    return "decisions of others"
        if PROGRESS_TIMER not in timers and replica.checkpoints.unstable_votes():
            return "checkpoint votes"
        return ""

    def _engine_side(self, node: "SimulatedNode") -> str | None:
        running = node.timers.of_engine
        if self._forgotten is not None:
            problem = self._forgotten(node.replica.engine, running)
            if problem is not None:
                return f"{problem} that wait, and no timer of their kind"
        if len(node.replica.mempool) and not (running or node.awaits_disk or node.application.busy):
            return "batches that wait, and nothing that would bring them on"
        return None
