"""The engine: one state, and a handler for each input, message and timer."""

from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext, EngineSpec, EngineStatus, SigningRule
from bftkit.core.epoch import Genesis
from bftkit.core.inputs import (
    Available,
    EngineInput,
    Read,
    Received,
    Sealed,
    Stable,
    Synced,
    TimerFired,
    Transfer,
)
from bftkit.core.outputs import EngineOutput
from bftkit.core.quorum import FaultModel
from bftkit_pbft import explain
from bftkit_pbft.check import check, claims, commit_problem, lane_key, references, window_length
from bftkit_pbft.checkpointing import on_sealed, on_stable, on_synced
from bftkit_pbft.config import PbftOptions
from bftkit_pbft.messages import (
    COMMIT_KIND,
    NEW_VIEW_KIND,
    PRE_PREPARE_KIND,
    PREPARE_KIND,
    VIEW_CHANGE_KIND,
    CommitVote,
    FetchNewView,
    FetchProposal,
    FetchViewChange,
    NewView,
    NewViewCopy,
    PbftMessage,
    PbftRecord,
    Prepare,
    PrePrepare,
    PrePrepareCopy,
    Suspect,
    ViewChange,
    ViewChangeCopy,
)
from bftkit_pbft.new_view import on_new_view, on_new_view_copy
from bftkit_pbft.normal_case import on_available, on_commit, on_pre_prepare, on_pre_prepare_copy, on_prepare
from bftkit_pbft.restart import restore, start_again
from bftkit_pbft.retransmission import (
    on_fetch_new_view,
    on_fetch_proposal,
    on_fetch_view_change,
    on_retransmit_timeout,
)
from bftkit_pbft.state import State
from bftkit_pbft.view_change import (
    on_suspect,
    on_view_change,
    on_view_change_copy,
    on_view_change_timeout,
    on_watch_timeout,
)
from bftkit_pbft.watching import RELAY, RETRANSMIT, VIEW_CHANGE, WATCH, arm_timers, on_relay_timeout

Handler = Callable[[State, Any], list[EngineOutput]]

MESSAGE_HANDLERS: dict[type, Handler] = {
    PrePrepare: on_pre_prepare,
    Prepare: on_prepare,
    CommitVote: on_commit,
    Suspect: on_suspect,
    ViewChange: on_view_change,
    NewView: on_new_view,
    FetchViewChange: on_fetch_view_change,
    ViewChangeCopy: on_view_change_copy,
    FetchNewView: on_fetch_new_view,
    NewViewCopy: on_new_view_copy,
    FetchProposal: on_fetch_proposal,
    PrePrepareCopy: on_pre_prepare_copy,
}

TIMER_HANDLERS: dict[str, Handler] = {
    WATCH: on_watch_timeout,
    RELAY: on_relay_timeout,
    RETRANSMIT: on_retransmit_timeout,
    VIEW_CHANGE: on_view_change_timeout,
}


def on_received(state: State, event: Received) -> list[EngineOutput]:
    """Hand a message to the handler of its type."""
    return MESSAGE_HANDLERS[type(event.message)](state, event)


def on_timer_fired(state: State, event: TimerFired) -> list[EngineOutput]:
    """Hand a timer to its handler; one that is not running any more is ignored."""
    if state.armed.pop(event.timer, None) is None or state.sealed is not None:
        return []
    return TIMER_HANDLERS[event.timer](state, event)


def on_nothing(state: State, event: Read | Transfer) -> list[EngineOutput]:
    """Leave a read to the log, which orders it, and the lead to view changes: PBFT has neither by itself."""
    return []


INPUT_HANDLERS: dict[type, Handler] = {
    Received: on_received,
    Available: on_available,
    TimerFired: on_timer_fired,
    Stable: on_stable,
    Synced: on_synced,
    Sealed: on_sealed,
    Read: on_nothing,
    Transfer: on_nothing,
}


class PbftEngine:
    """One replica's part in PBFT; see `ConsensusEngine` for the contract."""

    def __init__(self, state: State) -> None:
        self.state = state
        """All that the replica remembers."""

    def start(self, now: int) -> list[EngineOutput]:
        """Begin; called once, before any step."""
        self.state.now = now
        out = start_again(self.state)
        arm_timers(self.state, out)
        return out

    def step(self, event: EngineInput) -> list[EngineOutput]:
        """Take one input and return what is to be done, in order."""
        state = self.state
        state.now = event.now
        out = INPUT_HANDLERS[type(event)](state, event)
        arm_timers(state, out)
        return out

    @property
    def view(self) -> int:
        """Return the current view."""
        return self.state.view

    def status(self) -> EngineStatus:
        """Say the view, the leader, and what is waited for and from whom."""
        return explain.status(self.state)


def build(
    context: EngineContext, genesis: Genesis, checkpoint: CheckpointCertificate, records: Sequence[PbftRecord]
) -> PbftEngine:
    """Make an engine from the newest stable checkpoint and what was persisted since."""
    return PbftEngine(restore(context, checkpoint, records))


SPEC = EngineSpec(
    name="pbft",
    version="1",
    fault_model=FaultModel.BYZANTINE,
    messages=PbftMessage,
    records=PbftRecord,
    options_type=PbftOptions,
    build=build,
    check=check,
    claims=claims,
    references=references,
    lane_key=lane_key,
    commit_problem=commit_problem,
    signing={
        PRE_PREPARE_KIND: SigningRule(guarded=True, raises_floor=0),
        PREPARE_KIND: SigningRule(guarded=True, raises_floor=0),
        COMMIT_KIND: SigningRule(guarded=True, raises_floor=0),
        VIEW_CHANGE_KIND: SigningRule(guarded=False, raises_floor=0),
        NEW_VIEW_KIND: SigningRule(guarded=False),
    },
    window=window_length,
    min_members=4,
)
"""How to host PBFT."""
