"""Who leads a round: everybody in turn, or by reputation (DiemBFT v4 §3.6; Cohen et al., "Carousel", FC'22).

With reputation, a round that follows a certified block is led by a member that voted for what was committed lately and
did not write one of the last f committed blocks. The history that counts is what the certified block itself, with its
QC, shows to be committed; blocks name the voters of their parents in what is hashed. So whoever has the branch comes to
the same leader, however far it has committed by itself. A round that follows a TC is led by whose turn it is: members
may know different newest QCs then. Safety never depends on any of this.
"""

from bftkit.core.ids import ReplicaIndex
from bftkit_hotstuff.block_tree import Node
from bftkit_hotstuff.committing import decided_branch, past_of, remembered
from bftkit_hotstuff.messages import Block, Past, block_of, round_of
from bftkit_hotstuff.rules import are_consecutive
from bftkit_hotstuff.state import State


def leader(state: State) -> ReplicaIndex | None:
    """Return who leads the current round; None where too little of the history is here to say so."""
    if state.options.leaders == "round_robin" or not state.entered_by_qc:
        return state.context.leaders.leader(state.round)
    node = state.tree.get(block_of(state.high_qc))
    if node is None:
        return _by_committed(state, state.round) if _is_tip(state, block_of(state.high_qc)) else None
    return _by_reputation(state, node, state.round)


def next_leader(state: State, node: Node) -> ReplicaIndex | None:
    """Return who collects the votes for a block: the leader of the next round, should it be certified."""
    if state.options.leaders == "round_robin":
        return state.context.leaders.leader(node.round + 1)
    return _by_reputation(state, node, node.round + 1)


def may_lead(state: State, block: Block) -> bool:
    """Say whether the author of a block leads its round, as far as that can be said."""
    if state.options.leaders == "round_robin" or not are_consecutive(block.round, round_of(block.justify)):
        expected: ReplicaIndex | None = state.context.leaders.leader(block.round)
    else:
        parent = state.tree.get(block_of(block.justify))
        if parent is not None:
            expected = _by_reputation(state, parent, block.round)
        else:
            expected = _by_committed(state, block.round) if _is_tip(state, block_of(block.justify)) else None
    return expected is None or expected == block.author


def _is_tip(state: State, block: bytes) -> bool:
    return state.tree.tip is not None and state.tree.tip.id == block


def _by_committed(state: State, round_number: int) -> ReplicaIndex | None:
    return _choose(state, state.history, round_number)


def _by_reputation(state: State, node: Node, round_number: int) -> ReplicaIndex | None:
    """Return the leader of the round after a block, were it certified."""
    branch = [past_of(one.header) for one in reversed(decided_branch(state, node))]
    if branch and branch[0].height != state.committed + 1:
        return None
    if branch and state.history and state.history[-1].height != state.committed:
        return None
    return _choose(state, [*state.history, *branch][-remembered(state) :], round_number)


def _choose(state: State, history: list[Past], round_number: int) -> ReplicaIndex | None:
    scheduled = state.context.leaders.leader(round_number)
    if len(history) < remembered(state):
        from_the_start = (not history and state.committed == 0) or (history and history[0].height == 1)
        return scheduled if from_the_start else None
    mask = 0
    for past in history:
        mask |= int.from_bytes(past.voters, "little")
    faults = state.quorum.faults
    authors = {past.author for past in history[len(history) - faults :]} if faults else set()
    fit = [who for who in range(state.quorum.members) if mask >> who & 1 and who not in authors]
    if scheduled in fit or not fit:
        return scheduled
    return fit[round_number % len(fit)]
