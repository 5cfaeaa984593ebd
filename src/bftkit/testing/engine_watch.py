"""When the promises of an engine are looked at in a simulated run, and what of them it must keep across restarts."""

from typing import TYPE_CHECKING, Any

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import Statement
from bftkit.testing.invariants import EngineInvariants, JudgesProofs, NamesLandmarks, RemembersRecords

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

LOOK_AGAIN = 16
"""An engine whose landmarks have not moved is looked at every so many steps of its member."""

PROOFS_AT_ONCE = 64
"""Decided positions whose proofs are looked at after one step; no step decides more."""


class EngineWatch:
    """An engine's own invariants over all honest members of one run; each method returns what is wrong, or None."""

    def __init__(self, invariants: EngineInvariants) -> None:
        self._invariants = invariants
        self._remembering = invariants if isinstance(invariants, RemembersRecords) else None
        self._landmarks = invariants.landmarks if isinstance(invariants, NamesLandmarks) else None
        self._proved = invariants.proved if isinstance(invariants, JudgesProofs) else None
        self._seen: dict[ReplicaIndex, list[Any]] = {}
        """For each member in this life, its landmarks when its engine was looked at last, and its steps since then."""
        self._judged: dict[ReplicaIndex, int] = {}
        """For each member in this life, the position up to which its proofs were looked at."""

    def signs(self, member: ReplicaIndex, statement: Statement) -> str | None:
        """Look at a statement that an honest member is about to sign."""
        return self._invariants.signs(member, statement)

    def decided(self, position: int, certificate: QuorumCertificate) -> str | None:
        """Look at the votes for a decided position."""
        return self._invariants.decided(position, certificate)

    def begins(self, node: "SimulatedNode") -> str | None:
        """Look at the engine of a member that starts, or goes on from a state that it took over."""
        self._judged[node.index] = node.replica.commits.position
        return self._look(node)

    def stepped(self, node: "SimulatedNode") -> str | None:
        """Look at the engine of a member that has just moved, and at the proofs of what it has decided by that."""
        member, replica = node.index, node.replica
        judged = self._judged.get(member, 0)
        if replica.commits.position != judged:
            problem = self._judge(node, judged)
            if problem is not None:
                return problem
        engine = replica.engine
        now = (
            self._landmarks(engine)
            if self._landmarks is not None
            else (engine.view, replica.commits.position, replica.checkpoints.stable.position)
        )
        seen = self._seen.get(member)
        if seen is not None and seen[1] < LOOK_AGAIN and now == seen[0]:
            seen[1] += 1
            return None
        self._seen[member] = [now, 1]
        return self._look(node)

    def _look(self, node: "SimulatedNode") -> str | None:
        return self._invariants.stepped(node.index, node.replica.engine)

    def _judge(self, node: "SimulatedNode", judged: int) -> str | None:
        commits = node.replica.commits
        self._judged[node.index] = commits.position
        if self._proved is None:
            return None
        for entry in commits.after(max(judged, commits.base), PROOFS_AT_ONCE) or ():
            problem = self._proved(node.index, node.replica.engine, entry)
            if problem is not None:
                return problem
        return None

    def recorded(self, node: "SimulatedNode") -> None:
        """Note that everything which a member's engine has recorded by now is on its disk."""
        if self._remembering is not None:
            self._remembering.recorded(node.index, node.replica.engine)

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable."""
        self._seen.pop(member, None)
        self._invariants.restarted(member)
