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
from bftkit_hotstuff import explain
from bftkit_hotstuff.check import check, claims, commit_problem, lane_key, references, window_length
from bftkit_hotstuff.checkpointing import on_sealed, on_stable, on_synced
from bftkit_hotstuff.committing import decide
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.fetching import on_blocks, on_fetch_blocks
from bftkit_hotstuff.leaders import leader
from bftkit_hotstuff.messages import (
    PROPOSAL_KIND,
    TIMEOUT_KIND,
    VOTE_KIND,
    Blocks,
    Certificates,
    FetchBlocks,
    HotStuffMessage,
    HotStuffRecord,
    Proposal,
    Timeout,
    Vote,
)
from bftkit_hotstuff.proposing import propose
from bftkit_hotstuff.restart import restore
from bftkit_hotstuff.rules import RULES
from bftkit_hotstuff.state import State
from bftkit_hotstuff.synchronizer import (
    on_certificates,
    on_relay_timeout,
    on_retransmit_timeout,
    on_round_timeout,
    on_timeout,
)
from bftkit_hotstuff.voting import consider, on_available, on_proposal, on_vote
from bftkit_hotstuff.watching import RELAY, RETRANSMIT, ROUND, arm_timers

Handler = Callable[[State, Any], list[EngineOutput]]

MESSAGE_HANDLERS: dict[type, Handler] = {
    Proposal: on_proposal,
    Vote: on_vote,
    Timeout: on_timeout,
    Certificates: on_certificates,
    FetchBlocks: on_fetch_blocks,
    Blocks: on_blocks,
}

TIMER_HANDLERS: dict[str, Handler] = {
    ROUND: on_round_timeout,
    RELAY: on_relay_timeout,
    RETRANSMIT: on_retransmit_timeout,
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
    """Leave a read to the log, which orders it, and the lead to the next round: HotStuff has neither by itself."""
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


class HotStuffEngine:
    """One replica's part in HotStuff; see `ConsensusEngine` for the contract."""

    def __init__(self, state: State) -> None:
        self.state = state
        """All that the replica remembers."""

    def start(self, now: int) -> list[EngineOutput]:
        """Begin; called once, before any step."""
        self.state.now = self.state.entered_at = now
        out: list[EngineOutput] = []
        settle(self.state, out)
        return out

    def step(self, event: EngineInput) -> list[EngineOutput]:
        """Take one input and return what is to be done, in order."""
        state = self.state
        state.now = event.now
        out = INPUT_HANDLERS[type(event)](state, event)
        settle(state, out)
        return out

    @property
    def view(self) -> int:
        """Return the current round."""
        return self.state.round

    def status(self) -> EngineStatus:
        """Say the round, the leader, and what is waited for and from whom."""
        return explain.status(self.state)


def settle(state: State, out: list[EngineOutput]) -> None:
    """Do what has become possible, whatever made it so: commit, vote, propose; then see to the timers."""
    if state.sealed is None:
        decide(state, out)
        consider(state, out)
        propose(state, out)
    arm_timers(state, out, leader(state))


def build(
    context: EngineContext, genesis: Genesis, checkpoint: CheckpointCertificate, records: Sequence[HotStuffRecord]
) -> HotStuffEngine:
    """Make an engine from the newest stable checkpoint and what was persisted since."""
    return HotStuffEngine(restore(context, checkpoint, records))


def successive_leaders(options: HotStuffOptions) -> int:
    """Return how many successive rounds with live leaders decide a block: those of a chain.

    Whoever is to count the votes for the last of them need not be alive if they go to everybody before the round ends.
    """
    waits_for_the_collector = options.retransmit_delay_ms >= options.longest_timeout_ms
    return RULES[options.rules].chain_length + waits_for_the_collector


SPEC = EngineSpec(
    name="hotstuff",
    version="1",
    fault_model=FaultModel.BYZANTINE,
    messages=HotStuffMessage,
    records=HotStuffRecord,
    options_type=HotStuffOptions,
    build=build,
    check=check,
    claims=claims,
    references=references,
    lane_key=lane_key,
    commit_problem=commit_problem,
    signing={
        PROPOSAL_KIND: SigningRule(guarded=True),
        VOTE_KIND: SigningRule(guarded=True, raises_floor=0),
        TIMEOUT_KIND: SigningRule(guarded=True, raises_floor=1),
    },
    window=window_length,
    view_for_each_position=True,
    successive_leaders=successive_leaders,
    min_members=4,
)
"""How to host HotStuff."""
