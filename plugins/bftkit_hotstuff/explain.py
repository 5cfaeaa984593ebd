"""What a replica says about itself, in words."""

from bftkit.core.engine import EngineStatus
from bftkit.core.ids import ReplicaIndex
from bftkit_hotstuff.block_tree import Node
from bftkit_hotstuff.leaders import leader, next_leader
from bftkit_hotstuff.messages import block_of, round_of
from bftkit_hotstuff.state import State
from bftkit_hotstuff.watching import has_work, newest_branch, window_is_full


def status(state: State) -> EngineStatus:
    """Say the round, the leader, and what is waited for and from whom."""
    mode = "sealed" if state.sealed is not None else "timed out" if state.has_given_up else "normal"
    waiting_for, waiting_on = what_is_missing(state)
    return EngineStatus(state.round, leader(state), state.committed, mode, waiting_for, waiting_on)


def what_is_missing(state: State) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what must happen next, and which members could make it happen."""
    if state.sealed is not None or not has_work(state):
        return "", ()
    if state.has_given_up:
        return f"a quorum of timeouts of round {state.round}", missing_timeouts(state)
    if window_is_full(state):
        return f"a stable checkpoint above {state.tree.low}: the window is full", ()
    if state.tree.header(block_of(state.high_qc)) is None:
        return f"the certified block of round {round_of(state.high_qc)}", state.others
    node = state.proposal
    if node is None:
        first = leader(state)
        what = "an empty block" if newest_branch(state) and not state.watched else "a block"
        return f"{what} of round {state.round}", (first,) if first is not None else state.others
    return missing_for(state, node)


def missing_timeouts(state: State) -> tuple[ReplicaIndex, ...]:
    """List the members that have not given up this round, as far as is known."""
    return tuple(signer for signer, one in enumerate(state.timeouts) if one is None or one.round != state.round)


def missing_for(state: State, node: Node) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what keeps this round's block from being certified."""
    if node.missing:
        return f"bodies of {len(node.missing)} batches of the block of round {node.round}", state.others
    if state.tree.header(node.header.parent) is None:
        return f"the parent of the block of round {node.round}", state.others
    collector = next_leader(state, node)
    if collector == state.own:
        tally = state.votes.get(node.round)
        absent = tally.missing(node.id) if tally is not None else tuple(range(state.quorum.members))
        return f"votes for the block of round {node.round}", absent
    whom = state.others if collector is None else (collector,)
    return f"a certificate for the block of round {node.round}", whom
