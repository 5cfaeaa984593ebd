"""What Raft promises beyond what all engines do (Raft Fig. 3.2), for simulations to check as they go."""

from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import Statement
from bftkit_raft.check import window_length
from bftkit_raft.state import Role, State

COMPARED = 16
"""Entries at the end of a log that are compared with those of others."""


class RaftInvariants:
    """Watches all members of one run."""

    def __init__(self, members: int) -> None:
        self._leaders: dict[int, ReplicaIndex] = {}
        """Who led a term: nobody else does (election safety)."""
        self._votes: dict[tuple[ReplicaIndex, int], ReplicaIndex] = {}
        """For whom a member's vote of a term was counted: for nobody else (Raft §3.4)."""
        self._entries: dict[tuple[int, int], tuple[int, tuple[BatchRef, ...]]] = {}
        """What stands at a position in an entry of a term, and the term before it (log matching)."""
        self._led: dict[ReplicaIndex, tuple[int, int]] = {}
        """For each leader its term, and the end of its log (leader append-only)."""
        self._term = [0] * members
        self._commit = [0] * members

    def signs(self, member: ReplicaIndex, statement: Statement) -> str | None:
        """Look at a statement that a member is about to sign: Raft has none."""
        return f"it signs a {statement.kind}" if statement.kind != "checkpoint" else None

    def decided(self, position: int, certificate: QuorumCertificate) -> str | None:
        """Look at the proof of a decision: Raft's has no votes."""
        return f"position {position} is decided by a certificate"

    def stepped(self, member: ReplicaIndex, engine: Any) -> str | None:
        """Look at one member's variables: marks that only rise, and what no two members may say differently."""
        state: State = engine.state
        if state.term < self._term[member] or state.commit < self._commit[member]:
            return f"its term or its commit index falls: term {state.term}, commit {state.commit}"
        self._term[member], self._commit[member] = state.term, state.commit
        log = state.log
        if not log.base <= state.commit <= log.last or not (state.leads or state.commit <= state.matched <= log.last):
            return f"its marks are out of order: {log.base}, {state.commit}, {state.matched}, {log.last}"
        if len(state.deferred) > state.window_end - state.low + len(log.entries) + COMPARED:
            return "it defers more entries than the window holds"
        return self._elected(member, state) or self._logged(state)

    def _elected(self, member: ReplicaIndex, state: State) -> str | None:
        if state.role is Role.CANDIDATE:
            for voter in range(state.quorum.members):
                if state.votes >> voter & 1 and self._votes.setdefault((voter, state.term), member) != member:
                    return f"n{voter} has voted twice in term {state.term}"
        if not state.leads:
            self._led.pop(member, None)
            return None
        if self._leaders.setdefault(state.term, member) != member:
            return f"two members lead term {state.term}"
        term, last = self._led.get(member, (state.term, 0))
        self._led[member] = (state.term, state.log.last)
        if term == state.term and state.log.last < last:
            return f"the leader of term {term} has dropped entries of its log"
        return None

    def _logged(self, state: State) -> str | None:
        log = state.log
        for position in range(max(log.base + 1, log.last - COMPARED), log.last + 1):
            entry, before = log.entry(position), log.term_at(position - 1)
            first = self._entries.setdefault((position, entry.term), (before, entry.refs))
            if first[1] != entry.refs or (before and first[0] and first[0] != before):
                return f"two logs differ at position {position} in an entry of term {entry.term}"
            if entry.refs and position > state.low + window_length(state.context):
                return f"it holds batches at position {position}, beyond the window above {state.low}"
            if before > entry.term:
                return f"terms fall at position {position}"
        return None

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable: a term that nobody heard of, a commit index."""
        self._term[member] = self._commit[member] = 0
        self._led.pop(member, None)
