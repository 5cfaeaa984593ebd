"""What a member says about itself, in words."""

from bftkit.core.engine import EngineStatus
from bftkit.core.ids import ReplicaIndex
from bftkit_raft.state import Role, State


def status(state: State) -> EngineStatus:
    """Say the term, the leader, and what is waited for and from whom."""
    mode = "sealed" if state.sealed is not None else state.role.value
    waiting_for, waiting_on = what_is_missing(state)
    return EngineStatus(state.term, state.leader, state.commit, mode, waiting_for, waiting_on)


def what_is_missing(state: State) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what must happen next, and which members could make it happen."""
    if state.sealed is not None:
        return "", ()
    if state.leads:
        return missing_for_leader(state)
    if state.role is Role.FOLLOWER and state.leader is not None:
        return missing_for_follower(state, state.leader)
    if not (len(state.pending) or state.reads.count or state.log.last > state.commit):
        return "", ()
    if state.role is Role.FOLLOWER:
        return "a leader", state.others
    silent = tuple(member for member in range(state.quorum.members) if not state.votes >> member & 1)
    return f"votes for the term {state.term + (state.role is Role.PRE_CANDIDATE)}", silent


def missing_for_leader(state: State) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what keeps a leader from committing, or from answering a read."""
    if state.log.last > state.commit:
        position = state.commit + 1
        behind = (member for member, one in enumerate(state.progress) if one.match < position)
        return f"acknowledgements of position {position}", tuple(behind)
    if state.reads.confirming is not None:
        confirming = state.reads.confirming.round
        silent = (peer for peer in state.others if state.progress[peer].round < confirming)
        return f"answers to round {confirming}, to serve reads", tuple(silent)
    if len(state.pending):
        if state.handover is not None:
            return "the end of a transfer of the lead", (state.handover.target,)
        return f"a stable checkpoint above {state.low}: the window is full", ()
    return "", ()


def missing_for_follower(state: State, leader: ReplicaIndex) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what keeps a follower from going on."""
    if state.deferred:
        missing = {ref.digest for entry in state.deferred for ref in entry.refs if ref.digest not in state.held}
        return f"bodies of {len(missing)} batches behind position {state.matched}", (leader,)
    if state.log.last > state.commit:
        return f"word that position {state.commit + 1} is committed", (leader,)
    if len(state.pending):
        return f"entries for {len(state.pending)} waiting batches", (leader,)
    if state.reads.count:
        return f"the read index for {state.reads.count} reads", (leader,)
    return "", ()
