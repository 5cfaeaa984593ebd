"""The engine: one state, and a handler for each input, message and timer."""

from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext, EngineSpec, EngineStatus
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
from bftkit_raft import explain
from bftkit_raft.check import check, claims, commit_problem, lane_key, references, window_length
from bftkit_raft.checkpointing import on_sealed, on_stable, on_synced
from bftkit_raft.config import RaftOptions
from bftkit_raft.election import on_election_timeout, on_request_vote, on_vote
from bftkit_raft.following import on_append_entries, on_available, on_snapshot_needed
from bftkit_raft.leading import on_heartbeat_timeout, serve
from bftkit_raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    RaftMessage,
    RaftRecord,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotNeeded,
    TimeoutNow,
    Vote,
)
from bftkit_raft.reads import ask_leader, on_read, on_read_index, on_read_index_reply, on_read_timeout
from bftkit_raft.replication import on_append_accepted, on_append_rejected
from bftkit_raft.restart import restore, start_again
from bftkit_raft.roles import adopt_term
from bftkit_raft.state import State
from bftkit_raft.timers import ELECTION, HEARTBEAT, READ, RELAY, arm_timers, on_relay_timeout
from bftkit_raft.transfer import on_timeout_now, on_transfer

Handler = Callable[[State, Any], list[EngineOutput]]

MESSAGE_HANDLERS: dict[type, Handler] = {
    RequestVote: on_request_vote,
    Vote: on_vote,
    TimeoutNow: on_timeout_now,
    AppendEntries: on_append_entries,
    AppendAccepted: on_append_accepted,
    AppendRejected: on_append_rejected,
    SnapshotNeeded: on_snapshot_needed,
    ReadIndex: on_read_index,
    ReadIndexReply: on_read_index_reply,
}

TIMER_HANDLERS: dict[str, Handler] = {
    ELECTION: on_election_timeout,
    HEARTBEAT: on_heartbeat_timeout,
    RELAY: on_relay_timeout,
    READ: on_read_timeout,
}


def on_received(state: State, event: Received) -> list[EngineOutput]:
    """Hand a message to the handler of its type; a later term is taken over first (Raft §3.3).

    A request for a vote is no reason by itself: it may only ask beforehand, or come from one who should be ignored.
    """
    message = event.message
    if state.sealed is not None:
        return []
    if message.term > state.term and type(message) is not RequestVote:
        out: list[EngineOutput] = []
        adopt_term(state, message.term, out)
        return out + MESSAGE_HANDLERS[type(message)](state, event)
    return MESSAGE_HANDLERS[type(message)](state, event)


def on_timer_fired(state: State, event: TimerFired) -> list[EngineOutput]:
    """Hand a timer to its handler; one that is not running any more is ignored."""
    if event.timer not in state.armed or state.sealed is not None:
        return []
    del state.armed[event.timer]
    return TIMER_HANDLERS[event.timer](state, event)


INPUT_HANDLERS: dict[type, Handler] = {
    Received: on_received,
    Available: on_available,
    TimerFired: on_timer_fired,
    Stable: on_stable,
    Synced: on_synced,
    Sealed: on_sealed,
    Read: on_read,
    Transfer: on_transfer,
}


class RaftEngine:
    """One member's part in Raft; see `ConsensusEngine` for the contract."""

    def __init__(self, state: State) -> None:
        self.state = state
        """All that the member remembers."""

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
        if state.leads:
            serve(state, out)
        elif state.reads.tokens:
            ask_leader(state, out)
        arm_timers(state, out)
        return out

    @property
    def view(self) -> int:
        """Return the current term."""
        return self.state.term

    def status(self) -> EngineStatus:
        """Say the term, the leader, and what is waited for and from whom."""
        return explain.status(self.state)


def build(
    context: EngineContext, genesis: Genesis, checkpoint: CheckpointCertificate, records: Sequence[RaftRecord]
) -> RaftEngine:
    """Make an engine from the newest stable checkpoint and what was persisted since."""
    return RaftEngine(restore(context, checkpoint, records))


SPEC = EngineSpec(
    name="raft",
    version="1",
    fault_model=FaultModel.CRASH,
    messages=RaftMessage,
    records=RaftRecord,
    options_type=RaftOptions,
    build=build,
    check=check,
    claims=claims,
    references=references,
    lane_key=lane_key,
    commit_problem=commit_problem,
    signing={},
    window=window_length,
    answers_reads=True,
)
"""How to host Raft."""
