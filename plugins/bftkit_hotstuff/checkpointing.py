"""Forgetting what is stable, and catching up. The replica makes the checkpoints themselves."""

from bftkit.core.inputs import Sealed, Stable, Synced
from bftkit.core.log import CommitProof
from bftkit.core.outputs import EngineOutput, Persist
from bftkit_hotstuff.check import headers_of
from bftkit_hotstuff.committing import recall
from bftkit_hotstuff.messages import Header, Snapshot
from bftkit_hotstuff.state import State
from bftkit_hotstuff.synchronizer import take_qc
from bftkit_hotstuff.watching import note_ordered


def on_stable(state: State, event: Stable) -> list[EngineOutput]:
    """Let go of everything up to a checkpoint with a quorum's proof; the window moves up."""
    if event.checkpoint.position < state.tree.low:
        return []
    state.stable = event.checkpoint
    if event.checkpoint.position > state.committed:
        state.history.clear()
    state.tree.forget_through(event.checkpoint.position)
    return [Persist(snapshot(state), replaces_earlier=True)]


def snapshot(state: State) -> Snapshot:
    """Return one record for all that earlier ones say about heights above the stable checkpoint."""
    tree = state.tree
    nodes = sorted(tree.nodes.values(), key=lambda node: (node.height, node.round))
    history = tuple(past for past in state.history if past.height <= tree.low)
    return Snapshot(
        state.voted_round,
        state.voted_block,
        state.voted_tc,
        state.gave_up,
        state.high_qc,
        state.tc,
        state.lock,
        tree.anchor,
        tuple(node.block for node in nodes),
        history,
    )


def on_synced(state: State, event: Synced) -> list[EngineOutput]:
    """Skip what was learnt by other means. No right to vote comes back by it, and no lock goes."""
    out: list[EngineOutput] = []
    for ref in event.refs:
        note_ordered(state, ref)
    if event.proof is not None and event.proof.certificate is not None:
        take_qc(state, event.proof.certificate, out)
    tip = proved_block(event.position, event.proof)
    if event.position == state.committed and state.tree.tip is None and tip is not None:
        state.tree.learn_tip(tip)
        recall(state, tip)
        return out
    if event.position <= state.committed:
        return out
    recall(state, tip)
    state.tree.jump(event.position, tip)
    state.tree.prune()
    state.failures = 0
    return out


def proved_block(position: int, proof: CommitProof | None) -> Header | None:
    """Return the block that a proof leads to; a transferred state comes without one."""
    chain = headers_of(proof.links) if proof is not None else None
    return chain[-1] if chain and chain[-1].height == position else None


def on_sealed(state: State, event: Sealed) -> list[EngineOutput]:
    """End the epoch: nothing is proposed, voted or timed any more; the replica proves the seal to those who lag."""
    state.sealed = event.position
    return []
