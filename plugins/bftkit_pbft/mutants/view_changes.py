"""Changes of views, broken on purpose in the ways in which others have got them wrong (PBFT §4.4, §4.5.2)."""

from typing import Any

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.outputs import Broadcast
from bftkit.testing.mutants import Mutant, Schedules, doing_nothing
from bftkit_pbft import view_change, watching
from bftkit_pbft.messages import (
    Prepare,
    ViewChange,
)
from bftkit_pbft.mutants.schedules import CALM, VIEWS

_BRIEF = msgspec.structs.replace(CALM, duration_ms=400, clients=1, envelopes=2)
"""Short, since where views never end every moment of it is dear."""


def _leave_without_p(original: Any) -> Any:
    def leave_view(state: Any, view: int, out: list[Any]) -> None:
        original(state, view, out)
        for place, output in enumerate(out):
            message = getattr(output, "message", None)
            if isinstance(output, Broadcast) and isinstance(message, ViewChange):
                bare = msgspec.structs.replace(message, prepared=())
                state.own_view_change = bare
                out[place] = Broadcast(bare)

    return leave_view


def _joins_one(original: Any) -> Any:
    def join(state: Any, out: list[Any]) -> None:
        wanted = [view for view in view_change.highest_views(state) if view > state.view]
        if wanted:
            view_change.leave_view(state, max(wanted), out)

    return join


def _back_by_catching_up(original: Any) -> Any:
    def on_synced(state: Any, event: Any) -> Any:
        out = original(state, event)
        state.active = True
        return out

    return on_synced


def _ask_for_the_next_view(to: int, message: Any) -> list[tuple[int, Any]]:
    """Ask for the next view with each vote."""
    if not isinstance(message, Prepare):
        return [(to, message)]
    return [(to, message), (to, ViewChange(message.view + 1, CheckpointCertificate(EMPTY_CHECKPOINT, None), ()))]


def _joins_the_farthest(original: Any) -> Any:
    def join(state: Any, out: list[Any]) -> None:
        wanted = [view for view in view_change.highest_views(state) if view > state.view]
        if len(wanted) >= state.quorum.weak:
            view_change.leave_view(state, max(wanted), out)

    return join


def _keeps_all(original: Any) -> Any:
    def keep(state: Any, signer: int, message: Any, out: list[Any]) -> None:
        before = dict(state.view_changes[signer])
        original(state, signer, message, out)
        state.view_changes[signer] = {**before, **state.view_changes[signer]}

    return keep


def _deaf_to_checkpoints(original: Any) -> Any:
    return lambda state, event: original(state, event) if state.active else []


def _undecided_only(original: Any) -> Any:
    def deadline(state: Any) -> int | None:
        return state.progress_at + state.view_timer.timeout_ms if watching.has_undecided(state) else None

    return deadline


def _ask_for_a_far_view(to: int, message: Any) -> list[tuple[int, Any]]:
    """Ask for a view far away in place of the next one."""
    if not isinstance(message, ViewChange):
        return [(to, message)]
    return [(to, msgspec.structs.replace(message, view=message.view + 100))]


def _ask_for_many_views(to: int, message: Any) -> list[tuple[int, Any]]:
    """Ask for many later views as well, all of them led by others."""
    if not isinstance(message, ViewChange):
        return [(to, message)]
    return [(to, msgspec.structs.replace(message, view=message.view + 4 * step)) for step in range(9)]


MUTANTS = (
    Mutant(
        "pbft: VIEW-CHANGE without P",
        "A VIEW-CHANGE says nothing of what prepared (PBFT §4.4).",
        "bftkit_pbft.view_change:leave_view",
        _leave_without_p,
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: suspicion moves nobody",
        "A replica goes on in a view that f + 1 members suspect (PBFT §4.4, §4.5.2).",
        "bftkit_pbft.view_change:follow_suspicion",
        doing_nothing,
        (Schedules(profile=CALM, liar="silent"), Schedules(profile=VIEWS)),
    ),
    Mutant(
        "pbft: one member is followed",
        "A replica joins a single member in a higher view, who may be lying (PBFT §4.5.2).",
        "bftkit_pbft.view_change:join",
        _joins_one,
        (Schedules(profile=_BRIEF, liar="asking for the next view", speak=_ask_for_the_next_view),),
    ),
    Mutant(
        "pbft: catching up ends a view change",
        "A replica that has left a view votes again because it has caught up (PBFT §4.4).",
        "bftkit_pbft.checkpointing:on_synced",
        _back_by_catching_up,
        (Schedules(profile=VIEWS), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: the farthest member is followed",
        "Of f + 1 members in higher views, the one that is farthest sets the view (PBFT §4.5.2: the smallest).",
        "bftkit_pbft.view_change:join",
        _joins_the_farthest,
        (Schedules(profile=VIEWS, liar="asking for a far view", speak=_ask_for_a_far_view),),
    ),
    Mutant(
        "pbft: VIEW-CHANGEs are kept without bound",
        "Whatever a member asks for is kept, one VIEW-CHANGE for each view.",
        "bftkit_pbft.view_change:keep",
        _keeps_all,
        (Schedules(profile=VIEWS, liar="asking for many views", speak=_ask_for_many_views),),
    ),
    Mutant(
        "pbft: a view change does not hear of checkpoints",
        "A checkpoint that becomes stable during a view change is ignored (concord-bft#2707).",
        "bftkit_pbft.checkpointing:on_stable",
        _deaf_to_checkpoints,
        (Schedules(profile=msgspec.structs.replace(VIEWS, checkpoint_interval=2)), Schedules()),
    ),
    Mutant(
        "pbft: nobody waits for a proposal",
        "The primary's time runs for what he has proposed only, so that he may propose nothing (PBFT §4.4).",
        "bftkit_pbft.watching:deadline",
        _undecided_only,
        (Schedules(profile=CALM, liar="proposing nothing"),),
    ),
    Mutant(
        "pbft: the next primary is waited for",
        "A NEW-VIEW that does not come is waited for without end (PBFT §4.5.2).",
        "bftkit_pbft.view_change:on_view_change_timeout",
        lambda original: lambda state, event: [],
        (Schedules(profile=VIEWS, liar="never changing views"), Schedules(profile=VIEWS)),
    ),
)
"""All of them."""
