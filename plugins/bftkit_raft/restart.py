"""Building a member again from what it persisted.

Term, vote and log come back as they were acknowledged. What is committed is the replica's to know (`Synced`), or
is learnt from the next leader. A restarted member follows, whatever it was.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.outputs import EngineOutput
from bftkit_raft.election import ask_beforehand
from bftkit_raft.messages import Appended, Entry, HardState, RaftRecord, Reader, Snapshot
from bftkit_raft.state import State, initial_state


def restore(context: EngineContext, checkpoint: CheckpointCertificate, records: Sequence[RaftRecord]) -> State:
    """Return the state that the records describe, above a stable checkpoint."""
    state = initial_state(context, 0)
    for record in records:
        _REPLAYS[type(record)](state, record)
    log, position = state.log, checkpoint.position
    if position > log.base:
        # Whether the own entry there is the decided one stands in no record: its term counts as not known.
        log.begin_behind(position, 0)
    state.low = position
    state.commit = state.matched = log.base
    for place, entry in enumerate(log.entries, log.base + 1):
        for ref in entry.refs:
            state.held[ref.digest] = ref
            state.ordered[ref.digest] = place
    return state


def start_again(state: State) -> list[EngineOutput]:
    """Begin to wait for a leader, but not for long: whether there is one is asked without harm (Raft §9.6)."""
    options = state.options
    state.quiet_since = state.now + 2 * options.heartbeat_ms - options.election_timeout_ms
    if state.quorum.members == 1:
        return ask_beforehand(state)
    if options.lease_reads and state.term > 0:
        # An earlier life may have answered a heartbeat, and so promised to vote for nobody else for a while.
        state.no_vote_until = state.now + options.silence_ms
    return []


def _replay_hard_state(state: State, record: HardState) -> None:
    state.term, state.vote = record.term, record.vote


def _replay_appended(state: State, record: Appended) -> None:
    log, before = state.log, record.position - 1
    if before > log.last or (before > log.base and log.term_at(before) != record.previous_term):
        # The member had learnt meanwhile, by other means, what was decided up to there.
        log.entries.clear()
        log.begin_behind(before, record.previous_term)
    elif before >= log.base:
        log.cut(record.position)
    _take(state, record.entries)


def _take(state: State, entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        state.log.append(entry)


def _replay_reader(state: State, record: Reader) -> None:
    state.reads.life = record.life


def _replay_snapshot(state: State, record: Snapshot) -> None:
    state.term, state.vote = record.term, record.vote
    state.log.entries.clear()
    state.log.begin_behind(record.position, record.position_term)
    _take(state, record.entries)
    state.log.highest_term = record.highest_term
    state.reads.life = record.life


_REPLAYS: dict[type, Callable[[State, Any], None]] = {
    HardState: _replay_hard_state,
    Appended: _replay_appended,
    Reader: _replay_reader,
    Snapshot: _replay_snapshot,
}
