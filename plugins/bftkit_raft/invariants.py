"""What Raft promises beyond what all engines do (Raft Fig. 3.2), for simulations to check as they go."""

from collections.abc import Container
from typing import Any, NamedTuple

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import Statement
from bftkit_raft.check import window_length
from bftkit_raft.state import Role, State
from bftkit_raft.timers import ELECTION, HEARTBEAT, READ, RELAY

COMPARED = 16
"""Entries at the end of a log that are compared with those of others."""


class Committed(NamedTuple):
    """What is known to be committed at a position."""

    term: int
    """That of the entry."""
    refs: tuple[BatchRef, ...]
    committed_in: int
    """The term in which somebody first knew it, which is not below the one in which it was committed."""


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
        self._committed: dict[int, Committed] = {}
        """What is committed, by position."""
        self._highest = 0
        """Highest position that any member knows to be committed."""
        self._compared = [(0, 0)] * members
        """For each member, up to where its log was compared with those of others, and the term of the entry there."""
        self._term = [0] * members
        self._commit = [0] * members
        self._recorded = [0] * members
        """For each member, its term as it is on its disk."""

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
        return self._elected(member, state) or self._counted(state) or self._logged(member, state)

    def landmarks(self, engine: Any) -> Any:
        """Return what differs whenever a term, a role, a vote, a mark or the end of a log has moved."""
        state: State = engine.state
        log = state.log
        return state.term, state.role, state.votes, state.commit, state.low, log.last, log.last_term

    def forgotten(self, engine: Any, running: Container[str]) -> str | None:
        """Say which work has no timer of its kind: elections, followers, batches for the leader, reads (Raft §3.4)."""
        state: State = engine.state
        if state.sealed is not None:
            return None
        if state.leads:
            return "followers" if state.others and HEARTBEAT not in running else None
        if ELECTION not in running:
            return "elections"
        if state.leader is not None and len(state.pending) and RELAY not in running:
            return "batches for the leader"
        if state.leader is not None and state.reads.asked is not None and READ not in running:
            return "reads"
        return None

    def _elected(self, member: ReplicaIndex, state: State) -> str | None:
        if state.role is Role.CANDIDATE:
            for voter in range(state.quorum.members):
                if state.votes >> voter & 1 and self._votes.setdefault((voter, state.term), member) != member:
                    return f"n{voter} has voted twice in term {state.term}"
        if not state.leads:
            self._led.pop(member, None)
            return None
        if state.term not in self._leaders:
            self._leaders[state.term] = member
            problem = self._incomplete(state)
            if problem is not None:
                return problem
        if self._leaders[state.term] != member:
            return f"two members lead term {state.term}"
        term, last = self._led.get(member, (state.term, 0))
        self._led[member] = (state.term, state.log.last)
        if term == state.term and state.log.last < last:
            return f"the leader of term {term} has dropped entries of its log"
        return None

    def _incomplete(self, state: State) -> str | None:
        """Say which entry a new leader lacks that was committed in an earlier term (leader completeness)."""
        log = state.log
        for position, known in self._committed.items():
            if known.committed_in >= state.term or position <= log.base:
                continue
            if log.term_at(position) != known.term or log.entry(position).refs != known.refs:
                return f"the leader of term {state.term} lacks what is committed at position {position}"
        return None

    def _counted(self, state: State) -> str | None:
        """Note what is newly committed; a leader commits by counting what is of its own term (Raft §3.6.2)."""
        log, commit = state.log, state.commit
        if commit <= self._highest:
            return None
        for position in range(max(self._highest, log.base) + 1, commit + 1):
            entry = log.entry(position)
            self._committed[position] = Committed(entry.term, entry.refs, state.term)
        self._highest = commit
        term = log.term_at(commit)
        if state.leads and term and term != state.term:
            return f"the leader of term {state.term} commits by counting what is of term {term}"
        return None

    def _logged(self, member: ReplicaIndex, state: State) -> str | None:
        log = state.log
        end, term = self._compared[member]
        # What is in front of an entry that was compared, was: two logs with the same entry are the same up to there.
        begin = end if term and log.term_at(end) == term else log.last - COMPARED
        self._compared[member] = (log.last, log.term_at(log.last))
        for position in range(max(log.base + 1, begin), log.last + 1):
            entry, before = log.entry(position), log.term_at(position - 1)
            first = self._entries.setdefault((position, entry.term), (before, entry.refs))
            if first[1] != entry.refs or (before and first[0] and first[0] != before):
                return f"two logs differ at position {position} in an entry of term {entry.term}"
            if entry.refs and position > state.low + window_length(state.context):
                return f"it holds batches at position {position}, beyond the window above {state.low}"
            if before > entry.term:
                return f"terms fall at position {position}"
        return None

    def recorded(self, member: ReplicaIndex, engine: Any) -> None:
        """Note that a member's term is on its disk: no restart takes it back (Raft §3.8)."""
        self._recorded[member] = engine.state.term

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable: a term that nobody heard of, a commit index."""
        self._term[member], self._commit[member] = self._recorded[member], 0
        self._led.pop(member, None)
