"""Becoming a follower: of another term, or of another member (Raft §3.3)."""

from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import EngineOutput, Persist
from bftkit_raft.messages import HardState
from bftkit_raft.state import Role, State


def adopt_term(state: State, term: int, out: list[EngineOutput]) -> None:
    """Take over a later term, whoever speaks of it: no vote in it yet, and nobody known to lead it (Raft §3.3)."""
    state.term, state.vote = term, None
    out.append(Persist(HardState(term, None)))
    become_follower(state, None)


def become_follower(state: State, leader: ReplicaIndex | None) -> None:
    """Follow a leader of the current term, or wait for one; whatever belonged to another role or leader is over."""
    keep_promise(state)
    if state.leads:
        state.quiet_since = state.now
        for ref in state.pending:
            state.offer_at[ref.digest] = state.now + state.options.relay_after_ms
    state.role, state.leader = Role.FOLLOWER, leader
    state.votes = 0
    state.matched = state.commit
    state.leader_commit = state.leader_round = 0
    state.deferred = []
    state.progress = []
    state.round_sent_at.clear()
    state.lease_from = None
    # A transfer dies with the lead, however that ends (hashicorp/raft#696).
    state.handover = None
    state.reads.give_back()


def keep_promise(state: State) -> None:
    """With leases, vote for nobody else until the lease of the leader that was heard is over (Raft §6.4.1).

    That leader counts on it, and does not know of the later term for which it is left.
    """
    if state.options.lease_reads and state.leader is not None and not state.leads:
        state.no_vote_until = max(state.no_vote_until, state.heard_at + state.options.election_timeout_ms)


def hears_leader(state: State) -> bool:
    """Say whether there is a leader that this member has no reason to replace (Raft §4.2.3)."""
    if state.leads:
        return True
    return state.leader is not None and state.now - state.heard_at < state.options.election_timeout_ms
