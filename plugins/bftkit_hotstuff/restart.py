"""Building a replica again from what it persisted.

Replaying the records in their order gives back every vote, every round that was given up, the newest QC and the blocks
above the stable checkpoint. What is not restored is volatile by nature: votes of others, held bodies, timers.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit_hotstuff.messages import (
    Block,
    GaveUp,
    HotStuffRecord,
    Proposal,
    Snapshot,
    TimeoutCertificate,
    Voted,
    round_of,
)
from bftkit_hotstuff.state import State, initial_state


def restore(context: EngineContext, checkpoint: CheckpointCertificate, records: Sequence[HotStuffRecord]) -> State:
    """Return the state that the records describe, above a stable checkpoint."""
    state = initial_state(context, checkpoint)
    for record in records:
        _REPLAYS[type(record)](state, record)
    if state.tc is not None and state.tc.round <= round_of(state.high_qc):
        state.tc = None
    state.round = max(round_of(state.high_qc), state.tc.round if state.tc is not None else 0) + 1
    _propose_again(state)
    return state


def _propose_again(state: State) -> None:
    """Find this round's block again, if it was voted for; its bodies are durable then."""
    node = state.tree.get(state.voted_block)
    if node is None or node.round != state.round:
        return
    state.proposal = node
    if node.block.author == state.own:
        node.proposal = Proposal(node.block, state.voted_tc)


def _learn(state: State, qc: QuorumCertificate | None, tc: TimeoutCertificate | None) -> None:
    if qc is not None and round_of(qc) > round_of(state.high_qc):
        state.high_qc = qc
    if tc is not None:
        _learn(state, tc.high_qc, None)
        if state.tc is None or tc.round > state.tc.round:
            state.tc = tc


def _add(state: State, block: Block) -> None:
    if block.height > state.tree.low:
        state.tree.add(block)


def _replay_voted(state: State, record: Voted) -> None:
    _add(state, record.block)
    state.voted_round, state.voted_block, state.voted_tc = record.block.round, record.block.header().id, record.tc
    state.lock = record.lock
    _learn(state, record.block.justify, record.tc)
    _learn(state, record.high_qc, None)


def _replay_gave_up(state: State, record: GaveUp) -> None:
    state.voted_round = max(state.voted_round, record.round)
    state.gave_up = record
    state.lock = record.lock
    _learn(state, record.high_qc, record.tc)


def _replay_snapshot(state: State, record: Snapshot) -> None:
    state.voted_round, state.voted_block, state.voted_tc = record.voted_round, record.voted_block, record.voted_tc
    state.gave_up, state.lock = record.gave_up, record.lock
    _learn(state, record.high_qc, record.tc)
    for block in record.blocks:
        _add(state, block)
    anchor = record.anchor
    if anchor is not None and anchor.height == state.tree.low:
        state.tree.anchor = state.tree.tip = anchor
        if record.history and record.history[-1].height == anchor.height:
            state.history = list(record.history)


_REPLAYS: dict[type, Callable[[State, Any], None]] = {
    Voted: _replay_voted,
    GaveUp: _replay_gave_up,
    Snapshot: _replay_snapshot,
}
