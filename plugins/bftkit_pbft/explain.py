"""What a replica says about itself, in words."""

from bftkit.core.engine import EngineStatus
from bftkit.core.ids import ReplicaIndex
from bftkit_pbft.state import Slot, State
from bftkit_pbft.watching import behind_view, has_undecided, window_is_full


def status(state: State) -> EngineStatus:
    """Say the view, the primary, and what is waited for and from whom."""
    mode = "sealed" if state.sealed is not None else "normal" if state.active else "view change"
    waiting_for, waiting_on = what_is_missing(state)
    return EngineStatus(state.view, state.primary, state.committed, mode, waiting_for, waiting_on)


def what_is_missing(state: State) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what must happen next, and which members could make it happen."""
    if state.sealed is not None:
        return "", ()
    if not state.active:
        return missing_in_view_change(state)
    if state.committed < state.low:
        return f"the state of checkpoint {state.low}, by state transfer", state.others
    if has_undecided(state):
        position = state.committed + 1
        while (slot := state.slots.get(position)) is not None and slot.decision is not None and not slot.missing:
            position += 1
        return missing_at(state, position, slot)
    slot = state.slots.get(state.committed + 1)
    if slot is not None and slot.missing:
        return f"bodies of {len(slot.missing)} batches of position {slot.position}", state.others
    if state.watch_count:
        if window_is_full(state):
            return f"a stable checkpoint above {state.low}: the window is full", ()
        return f"a proposal for {state.watch_count} waiting batches", (state.primary,)
    return "", ()


def missing_in_view_change(state: State) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what keeps a view from beginning."""
    absent = behind_view(state)
    if state.quorum.members - len(absent) < state.quorum.quorum:
        return f"a quorum of view changes to view {state.view}", absent
    return f"the new view {state.view}", (state.primary,)


def missing_at(state: State, position: int, slot: Slot | None) -> tuple[str, tuple[ReplicaIndex, ...]]:
    """Return what keeps a position from being decided."""
    if slot is None or slot.refs is None:
        return f"the proposal of position {position}", (state.primary,)
    if slot.missing:
        return f"bodies of {len(slot.missing)} batches of position {position}", state.others
    if position > state.vote_limit:
        return f"a stable checkpoint above {state.low}: the window is full", ()
    if not slot.commit_voted:
        return f"prepares for position {position}", slot.prepares.missing(slot.digest)
    return f"commits for position {position}", slot.commits.missing(slot.digest)
