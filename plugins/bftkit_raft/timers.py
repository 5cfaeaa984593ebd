"""All timers, and the offers that one of them makes.

None is set for a single message: a timer whose reason has moved finds that out when it fires.
"""

from bftkit.core.inputs import TimerFired
from bftkit.core.outputs import CancelTimer, EngineOutput, Offer, SetTimer
from bftkit_raft.election import election_is_put_off
from bftkit_raft.state import State

ELECTION = "election"
"""A leader must be heard by then, or somebody stands for election."""
HEARTBEAT = "heartbeat"
"""The leader speaks to everybody."""
RELAY = "relay"
"""Batches that the leader has not appended by then are offered to it."""
READ = "read"
"""A leader must have answered by then, or is asked again."""

OFFERED_AT_ONCE = 64
"""Batches in one offer."""

OFFERS_APART = 4
"""A batch is offered again after so many times the delay before the first offer."""

READ_AGAIN_HEARTBEATS = 4
"""Heartbeats after which an unanswered question is asked again."""


def arm_timers(state: State, out: list[EngineOutput]) -> None:
    """See to it that the timers run that there is a reason for, and no others; called after each step."""
    alive, options = state.sealed is None, state.options
    if alive and state.leads and state.quorum.members > 1:
        start(state, out, HEARTBEAT, options.heartbeat_ms)
    else:
        cancel(state, out, HEARTBEAT)
    if alive and not state.leads:
        start(state, out, ELECTION, election_is_put_off(state), options.election_timeout_ms)
    else:
        cancel(state, out, ELECTION)
    if alive and not state.leads and state.leader is not None:
        # What these two wait for comes and goes with every message: one that runs for nothing finds nothing to do.
        if len(state.pending):
            start(state, out, RELAY, options.relay_after_ms)
        if state.reads.asked is not None:
            start(state, out, READ, READ_AGAIN_HEARTBEATS * options.heartbeat_ms)


def start(state: State, out: list[EngineOutput], timer: str, delay_ms: int, jitter_ms: int = 0) -> None:
    """Start a timer, unless it runs."""
    if timer not in state.armed:
        state.armed[timer] = None
        out.append(SetTimer(timer, max(1, delay_ms), jitter_ms))


def cancel(state: State, out: list[EngineOutput], timer: str) -> None:
    """Stop a timer, if it runs."""
    if timer in state.armed:
        del state.armed[timer]
        out.append(CancelTimer(timer))


def on_relay_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Offer the leader what it has not appended in time; again after a while, for offers get lost."""
    if state.leads or state.leader is None:
        return []
    offered = []
    for ref in state.pending:
        if state.offer_at[ref.digest] <= state.now:
            offered.append(ref)
            if len(offered) == OFFERED_AT_ONCE:
                break
    for ref in offered:
        state.offer_at[ref.digest] = state.now + OFFERS_APART * state.options.relay_after_ms
    return [Offer(tuple(offered), state.leader)] if offered else []
