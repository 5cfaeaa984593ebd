"""Building a replica again from what it persisted.

Replaying the records in their order gives back every vote, every prepared certificate and the mode. What is
not restored is volatile by nature: votes of others, held bodies, timers. Own votes are not sent again at
once: the replica first says how far it is (`Synced`), and the retransmission timer does the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.outputs import Broadcast, EngineOutput, Want
from bftkit_pbft.check import window_length
from bftkit_pbft.checkpointing import advance_window
from bftkit_pbft.messages import (
    Accepted,
    NewView,
    PbftRecord,
    Prepared,
    PreparedProof,
    PrePrepare,
    Snapshot,
    ViewEntered,
    ViewLeft,
)
from bftkit_pbft.new_view import begin_view
from bftkit_pbft.state import State, initial_state, place_again


def restore(context: EngineContext, checkpoint: CheckpointCertificate, records: Sequence[PbftRecord]) -> State:
    """Return the state that the records describe, above a stable checkpoint."""
    state = initial_state(context, checkpoint)
    for record in records:
        _REPLAYS[type(record)](state, record)
    state.committed = checkpoint.position
    state.pending = type(state.pending)(state.quorum.members)
    highest = [proposal.position for proposal in slots_with_proposals(state)]
    state.top = max([state.committed, *highest])
    state.next_position = max([state.next_position, state.low + 1, state.committed + 1, *(top + 1 for top in highest)])
    return state


def slots_with_proposals(state: State) -> list[Any]:
    """List the slots with an accepted proposal, by position."""
    return [state.slots[place] for place in sorted(state.slots) if state.slots[place].refs is not None]


def start_again(state: State) -> list[EngineOutput]:
    """Say what can be said at once: the own VIEW-CHANGE, and which bodies are missing."""
    out: list[EngineOutput] = []
    if not state.active and state.own_view_change is not None:
        out.append(Broadcast(state.own_view_change))
    for slot in slots_with_proposals(state):
        if slot.missing:
            out.append(Want(tuple(slot.missing.values()), state.others))
    state.entered_at = state.progress_at = state.now
    return out


def _replay_accepted(state: State, record: Accepted) -> None:
    if record.view == state.view and state.active and record.position > state.low:
        place_again(state, record.position, record.refs, voted=True)
        slot = state.slots[record.position]
        if (
            state.primary == state.own
            and slot.pre_prepare is None
            and record.refs
            and not reproposed(state, slot.position)
        ):
            slot.pre_prepare = PrePrepare(record.view, record.position, record.refs)


def reproposed(state: State, position: int) -> bool:
    """Say whether the NEW-VIEW of the current view proposes for a position."""
    proposals = state.new_view.proposals if state.new_view is not None and state.new_view.view == state.view else ()
    return bool(proposals) and proposals[0].position <= position <= proposals[-1].position


def _replay_proof(state: State, proof: PreparedProof) -> None:
    if not state.low < proof.position <= state.low + window_length(state.context):
        return
    slot = state.slot(proof.position)
    if slot.prepared is None or slot.prepared.view <= proof.view:
        slot.prepared = proof
        slot.commit_voted = state.active and proof.view == state.view and slot.voted


def _replay_prepared(state: State, record: Prepared) -> None:
    _replay_proof(state, record.proof)


def _replay_view_left(state: State, record: ViewLeft) -> None:
    state.view, state.active = record.view_change.view, False
    state.own_view_change = record.view_change
    state.leave_proposals()


def _replay_view_entered(state: State, record: ViewEntered) -> None:
    _begin_again(state, record.new_view)
    if record.checkpoint.position > state.low:
        advance_window(state, record.checkpoint)
    _place_new_view(state, record.new_view)


def _begin_again(state: State, new_view: NewView) -> None:
    begin_view(state, new_view, {})
    state.leave_proposals()


def _place_new_view(state: State, new_view: NewView) -> None:
    for proposal in new_view.proposals:
        place_again(state, proposal.position, proposal.refs, voted=False)


def _replay_snapshot(state: State, record: Snapshot) -> None:
    if record.stable.position > state.low:
        advance_window(state, record.stable)
    state.view, state.active = record.view, record.active
    state.new_view, state.own_view_change = record.new_view, record.view_change
    if record.active and record.new_view is not None:
        _begin_again(state, record.new_view)
        _place_new_view(state, record.new_view)
    for accepted in record.accepted:
        _replay_accepted(state, accepted)
    for proof in record.prepared:
        _replay_proof(state, proof)


_REPLAYS: dict[type, Callable[[State, Any], None]] = {
    Accepted: _replay_accepted,
    Prepared: _replay_prepared,
    ViewLeft: _replay_view_left,
    ViewEntered: _replay_view_entered,
    Snapshot: _replay_snapshot,
}
