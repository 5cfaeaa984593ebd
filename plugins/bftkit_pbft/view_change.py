"""Giving up a primary (PBFT §4.4, liveness §4.5.2)."""

from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Accuse, Broadcast, EngineOutput, Persist, Send
from bftkit.core.votes import Evidence
from bftkit_pbft.messages import Suspect, ViewChange, ViewChangeCopy, ViewLeft
from bftkit_pbft.new_view import judge_all, keep_named, make_new_view
from bftkit_pbft.normal_case import ask_new_view, just_entered, send_new_view, tell_new_view
from bftkit_pbft.retransmission import offer_to_all
from bftkit_pbft.state import State
from bftkit_pbft.watching import (
    RELAY,
    VIEW_CHANGE,
    WATCH,
    cancel_timer,
    deadline,
    window_is_full,
)

VIEWS_KEPT = 3
"""VIEW-CHANGEs that are kept of each member, those for the highest views: memory is bounded, views are not."""


# --- Leaving a view -------------------------------------------------------------------------------------------------


def on_watch_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Say that somebody has waited for the primary too long; the timer runs again, and so it is repeated.

    PBFT §4.4 has a backup leave the view at once. A replica that was merely cut off for a while would then
    sit outside until the others follow. Here it stays and votes until f + 1 members are of its opinion.
    """
    out: list[EngineOutput] = []
    until = deadline(state)
    if not state.active or until is None or until > state.now:
        return out
    if window_is_full(state):
        state.progress_at = state.now
        state.head_since = [state.now] * len(state.head_since)
        return out
    out.append(Broadcast(Suspect(state.view)))
    offer_to_all(state, out)
    return out


def on_suspect(state: State, event: Received) -> list[EngineOutput]:
    """Note that a member suspects the primary, for as long as it would take it to say so again."""
    out: list[EngineOutput] = []
    message: Suspect = event.message
    if state.sealed is not None:
        return out
    if message.view < state.view:
        tell_new_view(state, event.sender, message.view, out)
    elif message.view > state.view:
        ask_new_view(state, event.sender, message.view, out)
    state.suspected[event.sender] = (message.view, state.now)
    follow_suspicion(state, out)
    return out


def follow_suspicion(state: State, out: list[EngineOutput]) -> None:
    """Leave a view that f + 1 members suspect or have left: one of them is correct."""
    if not state.active:
        return
    fresh = state.now - state.options.view_timeout_ms
    against = sum(
        1
        for (suspected, heard), left in zip(state.suspected, highest_views(state), strict=True)
        if left > state.view or (suspected == state.view and heard >= fresh)
    )
    if against >= state.quorum.weak:
        leave_view(state, state.view + 1, out)


def on_view_change_timeout(state: State, event: TimerFired) -> list[EngineOutput]:
    """Move one view further: the NEW-VIEW did not come in time (PBFT §4.5.2)."""
    out: list[EngineOutput] = []
    if not state.active:
        leave_view(state, state.view + 1, out)
    return out


def leave_view(state: State, view: int, out: list[EngineOutput]) -> None:
    """Give up all views below one, for good, and say what is prepared here (PBFT §4.4)."""
    if state.sealed is not None:
        return
    if not state.committed_in_view:
        state.view_timer.failed()
    state.view, state.active, state.committed_in_view = view, False, False
    prepared = (state.slots[position].prepared for position in sorted(state.slots))
    message = ViewChange(view, state.stable, tuple(proof for proof in prepared if proof is not None))
    state.own_view_change = message
    for timer in (WATCH, RELAY, VIEW_CHANGE):
        cancel_timer(state, out, timer)
    out.append(Persist(ViewLeft(message)))
    out.append(Broadcast(message))
    state.view_change_said_at, state.view_change_rounds = state.now, 0
    offer_to_all(state, out)


# --- VIEW-CHANGEs of others ------------------------------------------------------------------------------------------


def on_view_change(state: State, event: Received) -> list[EngineOutput]:
    """Take a VIEW-CHANGE; one for a view that has begun is answered with its NEW-VIEW."""
    out: list[EngineOutput] = []
    message: ViewChange = event.message
    if state.sealed is not None:
        return out
    if message.view < state.view or (message.view == state.view and state.active):
        if state.new_view is not None and state.new_view.view >= message.view and not just_entered(state):
            send_new_view(state, event.sender, out)
        return out
    keep(state, event.sender, message, out)
    go_on(state, out)
    return out


def on_view_change_copy(state: State, event: Received) -> list[EngineOutput]:
    """Take a VIEW-CHANGE that another member has handed on."""
    out: list[EngineOutput] = []
    copy: ViewChangeCopy = event.message
    view = copy.view_change.view
    if state.sealed is None and (view > state.view or (view == state.view and not state.active)):
        keep(state, copy.signer, copy.view_change, out)
        keep_named(state, copy.signer, copy.view_change)
        judge_all(state, out)  # it was fetched to enter a view, not to be followed out of one
    return out


def keep(state: State, signer: ReplicaIndex, message: ViewChange, out: list[EngineOutput]) -> None:
    """Keep a VIEW-CHANGE, one for each member and view, of the highest few views only."""
    kept = state.view_changes[signer]
    known = kept.get(message.view)
    if known is not None:
        first, second = known.statement(), message.statement()
        if first != second:
            out.append(Accuse(Evidence(signer, first, known.signature, second, message.signature)))
        return
    kept[message.view] = message
    answer(state, signer, message.view, out)
    if len(kept) > VIEWS_KEPT:
        del kept[min(kept)]


def answer(state: State, peer: ReplicaIndex, view: int, out: list[EngineOutput]) -> None:
    """Tell a member that moves as far as this one that it is not alone, unless it was told just now."""
    if state.active or view < state.view or peer == state.own or state.own_view_change is None:
        return
    state.view_change_rounds = 0
    if state.now - state.view_change_said_at >= state.options.retransmit_delay_ms:
        out.append(Send(peer, state.own_view_change))


def go_on(state: State, out: list[EngineOutput]) -> None:
    """Do what the VIEW-CHANGEs that are here allow."""
    judge_all(state, out)
    join(state, out)
    follow_suspicion(state, out)
    make_new_view(state, out)


def highest_views(state: State) -> list[int]:
    """List for each member the highest view that it asked for, 0 where it asked for none."""
    return [max(kept, default=0) for kept in state.view_changes]


def join(state: State, out: list[EngineOutput]) -> None:
    """Follow f + 1 members to a higher view, without waiting for the own timer (PBFT §4.5.2).

    The view is the highest that f + 1 members have reached or passed: with exactly f + 1 of them the
    smallest one of theirs, as in the paper. At least one of them is correct, however far it is.
    """
    wanted = sorted((view for view in highest_views(state) if view > state.view), reverse=True)
    if len(wanted) >= state.quorum.weak:
        leave_view(state, wanted[state.quorum.weak - 1], out)
