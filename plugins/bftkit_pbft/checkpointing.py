"""Forgetting what is stable, and catching up (PBFT §4.3). The replica makes the checkpoints themselves."""

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.inputs import Sealed, Stable, Synced
from bftkit.core.outputs import EngineOutput, Persist
from bftkit_pbft.messages import Accepted, Snapshot
from bftkit_pbft.normal_case import decide, deliver, propose, vote
from bftkit_pbft.state import State
from bftkit_pbft.watching import note_committed


def on_stable(state: State, event: Stable) -> list[EngineOutput]:
    """Advance the water marks to a checkpoint with a quorum's proof; processed in every mode."""
    out: list[EngineOutput] = []
    if event.checkpoint.position < state.low:
        return out
    state.committed = max(state.committed, event.checkpoint.position)
    advance_window(state, event.checkpoint)
    out.append(Persist(snapshot(state), replaces_earlier=True))
    vote_in_window(state, out)
    return out


def advance_window(state: State, checkpoint: CheckpointCertificate) -> None:
    """Make a checkpoint the low water mark: "discard all entries up to its position" (PBFT §4.3)."""
    old = state.low
    state.stable = checkpoint
    if checkpoint.position > old:
        take_back(state, state.drop_through(checkpoint.position))
        state.next_position = max(state.next_position, checkpoint.position + 1)


def take_back(state: State, refs: list[BatchRef]) -> None:
    """Let batches whose proposal is gone wait for another one."""
    for ref in refs:
        if ref.digest not in state.ordered:
            state.pending.add(ref)


def vote_in_window(state: State, out: list[EngineOutput]) -> None:
    """Cast the votes that waited for the window to move, and go on."""
    if state.active:
        for position in range(max(state.low, state.committed) + 1, state.top + 1):
            slot = state.slots.get(position)
            if slot is not None:
                vote(state, slot, out)
    deliver(state, out)
    propose(state, out)


def snapshot(state: State) -> Snapshot:
    """Return one record for all that earlier ones say about positions above the low water mark."""
    slots = [state.slots[position] for position in sorted(state.slots)]
    return Snapshot(
        state.view,
        state.active,
        state.stable,
        state.own_view_change,
        state.new_view,
        tuple(slot.prepared for slot in slots if slot.prepared is not None),
        tuple(Accepted(state.view, slot.position, slot.refs) for slot in slots if slot.voted and slot.refs is not None)
        if state.active
        else (),
    )


def on_synced(state: State, event: Synced) -> list[EngineOutput]:
    """Skip what was learnt by other means; prepared certificates stay, and so does the mode.

    Only a stable checkpoint lets a replica forget: until then a VIEW-CHANGE must tell what it prepared.
    """
    out: list[EngineOutput] = []
    for ref in event.refs:
        state.pending.discard(ref.digest)
        note_committed(state, ref)
        if ref.digest not in state.ordered:
            state.held.pop(ref.digest, None)
    if event.position <= state.committed:
        return out
    before, state.committed = state.committed, event.position
    decided = {ref.digest for ref in event.refs}
    for position in range(before + 1, event.position + 1):
        slot = state.slots.get(position)
        for ref in (slot.refs or ()) if slot is not None else ():
            if ref.digest not in decided and state.ordered.get(ref.digest) == position:
                del state.ordered[ref.digest]
                if state.held.get(ref.digest) == ref:
                    state.pending.add(ref)
    state.progress_at = state.now
    state.view_timer.progressed()
    state.next_position = max(state.next_position, event.position + 1)
    for position in range(event.position + 1, state.top + 1):
        slot = state.slots.get(position)
        if slot is not None:
            decide(state, slot, out)
    deliver(state, out)
    propose(state, out)
    return out


def on_sealed(state: State, event: Sealed) -> list[EngineOutput]:
    """End the epoch: nothing is proposed, voted or timed any more; the replica proves the seal to those who lag."""
    state.sealed = event.position
    return []
