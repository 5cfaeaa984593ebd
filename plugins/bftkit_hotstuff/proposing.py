"""The leader's part (Jolteon Fig. 2 "Propose"; HotStuff Algorithm 5, "onBeat")."""

from bftkit.core.outputs import Broadcast, EngineOutput
from bftkit_hotstuff.leaders import leader
from bftkit_hotstuff.messages import Block, Certificates, Proposal, block_of
from bftkit_hotstuff.state import State
from bftkit_hotstuff.voting import cast_vote
from bftkit_hotstuff.watching import is_unfinished, newest_branch, next_height


def propose(state: State, out: list[EngineOutput]) -> None:
    """Propose a block on the newest certified one, if there is anything to order or to bring to its end.

    What has batches in it is decided by blocks on top of it: where nothing waits, these are empty. After that there is
    silence; the last QC, which nobody has but its maker, goes to everybody as it is.
    """
    if not may_propose(state):
        return
    height = next_height(state)
    branch = newest_branch(state)
    taken = {ref.digest for node in branch for ref in node.block.refs}
    room = state.options.batches_per_block if height <= state.vote_limit else 0
    refs = tuple(state.pending.choose(room, taken))
    if not refs and not is_unfinished(state):
        announce(state, out)
        return
    justify, tc = state.rules.extend(state.round, state.high_qc, state.tc)
    block = Block(state.round, height, state.own, refs, justify)
    node = state.tree.add(block)
    node.proposal = Proposal(block, tc)
    state.proposal = node
    state.unannounced = False
    cast_vote(state, node, out)
    state.tree.shrink(block_of(state.high_qc), node.id)


def may_propose(state: State) -> bool:
    """Say whether this replica leads the round, has said nothing in it yet, and has what it would build on."""
    return (
        state.sealed is None
        and state.voted_round < state.round
        and state.proposal is None
        and leader(state) == state.own
        and is_joined(state)
        and next_height(state) <= state.branch_limit
    )


def is_joined(state: State) -> bool:
    """Say whether the newest certified block is here, and every block between it and what is committed.

    Otherwise the leader might order again what stands in a block that it lacks.
    """
    branch = list(state.tree.branch(block_of(state.high_qc)))
    if branch:
        return state.tree.is_joined(branch[-1])
    return state.tree.tip is not None and state.tree.tip.id == block_of(state.high_qc)


def announce(state: State, out: list[EngineOutput]) -> None:
    """Send everybody the QC that was made here, where no block carries it."""
    if state.unannounced:
        state.unannounced = False
        out.append(Broadcast(Certificates(state.high_qc, None)))
