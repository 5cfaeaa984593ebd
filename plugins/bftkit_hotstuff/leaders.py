"""Who leads a round: everybody in turn, or by reputation (DiemBFT v4 §3.6; Cohen et al., "Carousel", FC'22).

With reputation, a round is led by a member that voted for what was committed lately and did not write one of the last f
committed blocks. That is so while blocks follow each other: where the QC that began the round decides a block. The
history that counts is what the certified block, with that QC, shows to be committed; blocks name the voters of their
parents in what is hashed. So whoever has the branch comes to the same leader, however far it has committed by itself.

After a TC, and until blocks are decided again, it is whose turn it is: members may know different newest QCs then, and
one that has caught up by other means may lack the history. So nobody's ignorance keeps anything from being decided.
Safety never depends on any of this.
"""

from bftkit.core.ids import ReplicaIndex
from bftkit_hotstuff.block_tree import Node
from bftkit_hotstuff.committing import decided_branch, past_of, remembered
from bftkit_hotstuff.messages import Block, Past, block_of, round_of
from bftkit_hotstuff.rules import are_consecutive
from bftkit_hotstuff.state import State


def leader(state: State) -> ReplicaIndex | None:
    """Return who leads the current round; None where too little of the history is here to say so."""
    return _leader_after(state, block_of(state.high_qc), round_of(state.high_qc), state.round)


def next_leader(state: State, node: Node) -> ReplicaIndex | None:
    """Return who collects the votes for a block: the leader of the next round, should it be certified."""
    return _leader_after(state, node.id, node.round, node.round + 1)


def may_lead(state: State, block: Block) -> bool:
    """Say whether the author of a block leads its round, as far as that can be said."""
    expected = _leader_after(state, block_of(block.justify), round_of(block.justify), block.round)
    return expected is None or expected == block.author


def _leader_after(state: State, block: bytes, certified: int, round_number: int) -> ReplicaIndex | None:
    """Return who leads a round, where a block is the newest that is certified, in its own round."""
    scheduled = state.context.leaders.leader(round_number)
    if state.options.leaders == "round_robin" or not are_consecutive(round_number, certified):
        return scheduled
    deciding = _is_deciding(state, block)
    if not deciding:
        return None if deciding is None else scheduled
    node = state.tree.get(block)
    branch = [past_of(one.header) for one in reversed(decided_branch(state, node))] if node is not None else []
    if branch and (branch[0].height != state.committed + 1 or _misses_the_last(state)):
        return None
    return _choose(state, [*state.history, *branch][-remembered(state) :], round_number)


def _is_deciding(state: State, block: bytes) -> bool | None:
    """Say whether a certified block is the last of so many in successive rounds that they decide; None if unknown."""
    for _ in range(state.rules.chain_length - 1):
        header = state.tree.header(block)
        if header is None:
            return None
        if not are_consecutive(header.round, header.parent_round) or header.parent_round == 0:
            return False
        block = header.parent
    return True


def _misses_the_last(state: State) -> bool:
    """Say whether the history does not reach up to what is committed."""
    return bool(state.history) and state.history[-1].height != state.committed


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
