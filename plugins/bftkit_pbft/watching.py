"""Seeing to it that what is here gets ordered: timers, relaying, and when to blame the primary.

PBFT §4.4 starts a backup's timer when it knows of a request that is not executed. Here a batch is first
offered to the primary, so that nobody can have a correct one blamed for a batch that was kept from him;
its clock runs from there. Batches of one origin are ordered first in, first out, so only the oldest of each
origin has a deadline: while those before it commit, a batch is being served, however long the queue is.
"""

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import TimerFired
from bftkit.core.outputs import CancelTimer, EngineOutput, Offer, SetTimer
from bftkit_pbft.state import State, Watched

WATCH = "watch"
"""Somebody must be served by then, or the primary is given up."""
RELAY = "relay"
"""Batches that the primary did not propose by then are offered to him."""
RETRANSMIT = "retransmit"
"""What is not settled by then is said again."""
VIEW_CHANGE = "view-change"
"""The next NEW-VIEW must be here by then, or one more view is given up."""

OFFERED_AT_ONCE = 64
"""Batches in one offer."""


# --- What is watched ------------------------------------------------------------------------------------------------


def watch(state: State, ref: BatchRef) -> None:
    """Begin to watch a held batch that is not committed."""
    queue = state.watched[ref.origin]
    if ref.digest in queue:
        return
    if not queue:
        state.head_since[ref.origin] = state.now
    watched = queue[ref.digest] = Watched(ref, state.now)
    state.watch_count += 1
    if ref.digest in state.ordered:
        watched.since = state.now
    else:
        state.unoffered[ref.digest] = watched


def note_proposed(state: State, ref: BatchRef) -> None:
    """Start the clock of a batch that the primary has proposed."""
    watched = state.unoffered.pop(ref.digest, None)
    if watched is not None:
        watched.since = state.now


def note_committed(state: State, ref: BatchRef) -> None:
    """Stop watching a batch; the next of its origin is at the head from now on."""
    queue = state.watched[ref.origin]
    if ref.digest not in queue:
        return
    if next(iter(queue)) == ref.digest:
        state.head_since[ref.origin] = state.now
    del queue[ref.digest]
    state.watch_count -= 1
    state.unoffered.pop(ref.digest, None)


def watch_afresh(state: State) -> None:
    """Give the primary of a new view his own time for each batch."""
    state.head_since = [state.now] * len(state.head_since)
    waiting = [watched for queue in state.watched for watched in queue.values()]
    waiting.sort(key=lambda watched: watched.arrived)
    state.unoffered = {}
    for watched in waiting:
        watched.since = state.now if watched.ref.digest in state.ordered else None
        if watched.since is None:
            state.unoffered[watched.ref.digest] = watched


def oldest_watched(state: State) -> tuple[BatchRef, ...]:
    """List the oldest uncommitted batch of each origin."""
    return tuple(next(iter(queue.values())).ref for queue in state.watched if queue)


# --- Deadlines ------------------------------------------------------------------------------------------------------


def has_undecided(state: State) -> bool:
    """Say whether a proposal of this view is not decided yet."""
    for position in range(max(state.committed, state.low) + 1, state.top + 1):
        slot = state.slots.get(position)
        if slot is None or slot.decision is None:
            return True
    return False


def deadline(state: State) -> int | None:
    """Return when the primary has had his time, or None while nobody waits for him."""
    timeout = state.view_timer.timeout_ms
    times: list[int] = []
    if has_undecided(state):
        times.append(state.progress_at + timeout)
    if state.primary != state.own:
        for queue, head_since in zip(state.watched, state.head_since, strict=True):
            since = next(iter(queue.values())).since if queue else None
            if since is not None:
                times.append(max(since, head_since) + timeout)
    return min(times, default=None)


def window_is_full(state: State) -> bool:
    """Say whether all that may be ordered is: then the next stable checkpoint is late, not the primary."""
    return state.committed >= state.vote_limit


# --- Timers ---------------------------------------------------------------------------------------------------------


def set_timer(state: State, out: list[EngineOutput], timer: str, delay_ms: int) -> None:
    """Start a timer and remember that it runs."""
    state.armed[timer] = state.now
    out.append(SetTimer(timer, max(1, delay_ms)))


def cancel_timer(state: State, out: list[EngineOutput], timer: str) -> None:
    """Stop a timer, if it runs."""
    if state.armed.pop(timer, None) is not None:
        out.append(CancelTimer(timer))


def arm_timers(state: State, out: list[EngineOutput]) -> None:
    """See to it that a timer runs while work is pending, and none while nothing is; called after each step.

    The watch timer is not moved when a deadline moves away: it finds out when it fires.
    """
    alive = state.sealed is None
    backlog = state.top > state.committed or state.committed < state.low
    if alive and (backlog or not state.active or state.candidates):
        if RETRANSMIT not in state.armed:
            set_timer(state, out, RETRANSMIT, retransmit_delay(state))
    else:
        cancel_timer(state, out, RETRANSMIT)
    if alive and state.active and (state.watch_count or state.top > state.committed):
        if WATCH not in state.armed:
            set_timer(state, out, WATCH, watch_delay(state))
    else:
        cancel_timer(state, out, WATCH)
    if alive and state.active and state.unoffered and state.primary != state.own:
        if RELAY not in state.armed:
            oldest = next(iter(state.unoffered.values()))
            begun = max(oldest.arrived, state.entered_at)
            set_timer(state, out, RELAY, begun + state.options.relay_after_ms - state.now)
    else:
        cancel_timer(state, out, RELAY)
    if alive:
        start_view_change_timer(state, out)
    else:
        cancel_timer(state, out, VIEW_CHANGE)


def start_view_change_timer(state: State, out: list[EngineOutput]) -> None:
    """Start to wait for a NEW-VIEW once a quorum has left the views below (PBFT §4.5.2).

    Members that are further count too: their VIEW-CHANGE for this view may have been lost. So do those that were
    heard in this view or a later one, though they do not repeat their VIEW-CHANGE: what their NEW-VIEW rests on
    may be gone with a crash, and then nobody can ever judge it.
    """
    if state.active or VIEW_CHANGE in state.armed:
        return
    if state.quorum.members - len(behind_view(state)) >= state.quorum.quorum:
        set_timer(state, out, VIEW_CHANGE, state.view_timer.timeout_ms)


def behind_view(state: State) -> tuple[ReplicaIndex, ...]:
    """List the members of which it is not known that they have left the views below."""
    reached = (max(max(kept, default=0), spoken) for kept, spoken in zip(state.view_changes, state.spoken, strict=True))
    return tuple(index for index, view in enumerate(reached) if view < state.view)


def watch_delay(state: State) -> int:
    """Return how long the primary still has; where his time is over, when to say so again."""
    until = deadline(state)
    if until is None:
        return state.view_timer.timeout_ms
    return until - state.now if until > state.now else state.options.retransmit_delay_ms


def retransmit_delay(state: State) -> int:
    """Return how long to wait before repeating; in a view change it grows while nobody else moves."""
    if state.active:
        return state.options.retransmit_delay_ms
    shortest = max(state.options.retransmit_delay_ms, state.view_timer.timeout_ms // 4)
    longest = 2 * state.options.view_timeout_ms
    return max(shortest, min(longest, shortest << min(state.view_change_rounds, 8)))


def on_relay_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Offer the primary what he has not proposed in time."""
    if not state.active or state.primary == state.own:
        return []
    due = state.now - state.options.relay_after_ms
    offered: list[BatchRef] = []
    for watched in state.unoffered.values():
        if max(watched.arrived, state.entered_at) > due or len(offered) == OFFERED_AT_ONCE:
            break
        watched.since = state.now
        offered.append(watched.ref)
    for ref in offered:
        del state.unoffered[ref.digest]
    return [Offer(tuple(offered), state.primary)] if offered else []
