"""How much one member may hold: limits that follow from the group's settings, and a look at whether they are kept.

What is bounded exactly is held to its bound. Where a bound depends on what else happened meanwhile (views that were
left, snapshots that were lost, a disk that stalls), the limit is a few times what a quiet member comes to, and still a
function of window, interval and tuning: a table that is never emptied outgrows it within one schedule.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bftkit.core.ids import ReplicaIndex
from bftkit.replica.outputs import STATES_KEPT
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.node import SNAPSHOT_DIRECTORY
from bftkit.storage.snapshots import SUFFIX

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

VOTES_OF_A_POSITION = 3
"""What a member signs about one position in one view, at most."""

VOTES_OF_A_VIEW = 3
"""What it signs about a view as a whole."""

VIEWS_AT_ONCE = 4
"""Views whose votes are remembered, all of them for a whole window."""

OUTPUTS_OF_A_POSITION = 40
"""Outputs for each member and position that wait for a disk which stalls, with what is said again meanwhile."""

LOST_SNAPSHOTS = 1
"""Snapshots in a row that are made and not kept, or that would be due while a member catches up."""

RECORDS_OF_A_POSITION = 16
"""Records of the log for each decided position and batch: its body, its decision, what was signed about it."""

OFFERED_BODIES = 64
CHECKPOINTS_COUNTED = 8
STATES_AT_ONCE = 3
SNAPSHOT_FILES = 3
READERS_AT_ONCE = 1_024
"""Numbers that the product has under other names, written down once more: a limit that is read where it is kept would
move with it."""


class Bounds:
    """The limits of one group, and what each member found on its disk when it started: no quota holds for that."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self._tuning = settings.tuning
        self._limits = settings.limits
        self._members = len(settings.membership)
        self._span = settings.window + settings.limits.checkpoint_interval
        """Positions about which a member may say anything."""
        self._between = settings.tuning.snapshot_positions + self._span + settings.window
        """Decided positions that are kept from one snapshot to the next, with those kept for the window's sake."""
        self._charged_at_start: dict[ReplicaIndex, list[int]] = {}
        self._decided_at_start: dict[ReplicaIndex, int] = {}
        self._records_at_start: dict[ReplicaIndex, int] = {}
        self._snapshots_at_start: dict[ReplicaIndex, int] = {}
        self.widest = 1
        """Batches of the largest position that was decided."""

    def begins(self, node: "SimulatedNode") -> None:
        """Note what a member has found on its disk, or goes on from."""
        self._charged_at_start[node.index] = list(node.replica.mempool.charged)
        self._decided_at_start[node.index] = node.replica.payloads.decided_count
        self._records_at_start[node.index] = _span(node)
        self._snapshots_at_start[node.index] = _snapshot_files(node)

    def problem(self, node: "SimulatedNode") -> str | None:
        """Say of what a member holds too much, or None."""
        every = (
            self._engine_side,
            self._batches,
            self._quotas,
            self._requests,
            self._disk,
            self._sessions,
            self._states,
        )
        for sizes in every:
            for what, size, limit in sizes(node):
                if size > limit:
                    return f"{size} {what} where there may be {limit}"
        return None

    def _engine_side(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        replica = node.replica
        votes = VIEWS_AT_ONCE * VOTES_OF_A_POSITION * self._span + VOTES_OF_A_VIEW * (replica.engine.view + 1)
        yield "outputs held back", node.gate.depth, OUTPUTS_OF_A_POSITION * self._members * self._span
        yield "signed slots", len(replica.guard), votes
        stable, commits = replica.checkpoints.stable.position, replica.commits
        yield "own checkpoint votes", replica.checkpoints.own_count, 1 + (commits.position - stable) // commits.interval
        yield "checkpoints whose votes are counted", replica.checkpoints.counted, CHECKPOINTS_COUNTED
        yield "roots", commits.root_count, 2 + (commits.position - commits.base) // commits.interval

    def _batches(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        replica = node.replica
        commits, payloads = replica.commits, replica.payloads
        yield "executed positions", commits.executed - commits.base, (1 + LOST_SNAPSHOTS) * self._between
        named = sum(len(entry.refs) for entry in commits) + self.widest * self._span
        decided = payloads.decided_count
        # Whoever hears again of what was decided keeps it for as long as a proposal may name it again.
        kept = min(payloads.kept_longer_count, self._between * self.widest)
        yield "decided batches", decided, named + kept + self._decided_at_start.get(node.index, 0)
        yield "bodies", len(payloads), decided + len(replica.mempool)
        yield "missing bodies", len(payloads.missing), named + OFFERED_BODIES * self._members
        yield "bodies that the engine waits for", len(replica.asked.refs), VIEWS_AT_ONCE * named
        yield "batches that are kept longer", payloads.kept_longer_count, decided
        for member in range(self._members):
            yield f"bodies that n{member} offers", payloads.offered_count(member), OFFERED_BODIES

    def _quotas(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        mempool, tuning = node.replica.mempool, self._tuning
        at_start = self._charged_at_start.get(node.index) or [0] * self._members
        for member, charged in enumerate(mempool.charged):
            # Its own it makes as long as few of this life are on their way.
            own = tuning.max_batches_in_flight if member == node.index else 0
            yield f"batches that n{member} answers for", charged, tuning.origin_batches + at_start[member] + own
        yield "own batches on their way", mempool.in_flight, tuning.max_batches_in_flight
        yield "bytes of requests that wait", mempool.waiting_bytes, tuning.collect_bytes

    def _requests(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        mempool, download = node.replica.mempool, node.replica.state_transfer.download
        yield "requests on their way", mempool.known_requests, mempool.waiting_requests + mempool.batched_requests
        yield "readers", node.edge.readers, READERS_AT_ONCE
        if download is not None:
            yield "bytes of a state on its way here", download.received, download.size

    def _disk(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        needless = sum(first <= node.trimmed_below for first in node.log.segments[1:])
        yield "segments behind one that is needless", needless, 0
        positions = (2 + LOST_SNAPSHOTS) * self._between
        records = RECORDS_OF_A_POSITION * self.widest * positions + VOTES_OF_A_VIEW * (node.replica.engine.view + 1)
        yield "records of the log", _span(node), records + self._records_at_start.get(node.index, 0)
        files = max(SNAPSHOT_FILES, self._snapshots_at_start.get(node.index, 0))
        yield "snapshots on the disk", _snapshot_files(node), files

    def _sessions(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        sessions, limits = node.executor.sessions, self._limits
        yield "sessions", len(sessions), limits.max_sessions
        for session in sessions:
            yield "sequences in a session's window", session.executed.bit_length(), limits.session_window
            yield "kept results of a session", len(session.kept), limits.session_window
            yield "bytes of a session's results", session.kept_bytes, limits.session_reply_bytes

    def _states(self, node: "SimulatedNode") -> Iterator[tuple[str, int, int]]:
        kept, durable = node.application.kept, node.replica.snapshot
        yield "states in memory", len(kept), STATES_KEPT
        if durable is not None:
            needless = sum(1 for position in kept if position <= durable[0].position)
            yield "states in memory that a durable one makes needless", needless, 0


def _span(node: "SimulatedNode") -> int:
    """Count the records in all segments of a member's log but the oldest, of which a part may be needless."""
    return node.log.next_index - (node.log.segments[1:2] or (node.log.next_index,))[0]


def _snapshot_files(node: "SimulatedNode") -> int:
    """Count the snapshots on a member's disk."""
    return sum(path.startswith(SNAPSHOT_DIRECTORY) and path.endswith(SUFFIX) for path in node.disk.paths)
