"""Forgetting what is stable, and learning what was decided by other means (Raft §5). The replica does the rest."""

from bftkit.core.inputs import Sealed, Stable, Synced
from bftkit.core.outputs import EngineOutput, Persist
from bftkit_raft.check import term_of_proof, window_length
from bftkit_raft.following import acknowledge, drop_deferred_through
from bftkit_raft.messages import Snapshot
from bftkit_raft.roles import adopt_term, become_follower
from bftkit_raft.state import Role, State


def on_stable(state: State, event: Stable) -> list[EngineOutput]:
    """Compact the log at a stable checkpoint: one record replaces all earlier ones (Raft §5.1).

    In memory a window's length of entries stays below it. Who lags a little gets them from the leader: on its way
    through a state transfer it would fall behind again and again while checkpoints follow each other quickly.
    """
    position = event.checkpoint.position
    if position < state.low:
        return []
    if position > state.commit:
        skip_to(state, position, 0)
    state.let_go_through(position)
    state.low = position
    kept_from = position - window_length(state.context)
    if kept_from > state.log.base:
        state.log.begin_behind(kept_from, state.log.term_at(kept_from))
    return [Persist(snapshot(state), replaces_earlier=True)]


def snapshot(state: State) -> Snapshot:
    """Return one record for all that earlier ones say: term and vote too, or a restart would allow a second vote."""
    log = state.log
    begin = max(log.base, state.low)
    return Snapshot(
        state.term,
        state.vote,
        begin,
        log.term_at(begin),
        log.highest_term,
        state.reads.life,
        log.behind(begin, len(log.entries)),
    )


def on_synced(state: State, event: Synced) -> list[EngineOutput]:
    """Take note of what was decided up to a position."""
    out: list[EngineOutput] = []
    if event.position > state.commit:
        term = term_of_proof(event.proof) if event.proof is not None else 0
        if term > state.term:
            adopt_term(state, term, out)  # no log holds an entry of a term that its owner has not reached
        skip_to(state, event.position, term)
        if state.sealed is None and state.role is Role.FOLLOWER:
            acknowledge(state, out)
    for ref in event.refs:
        state.forget(ref.digest)
    return out


def skip_to(state: State, position: int, term: int) -> None:
    """Take everything up to a position for decided; `term` is that of the entry there, 0 where it is not known.

    Where the log holds that entry, it holds all before it. Otherwise the log begins anew behind the position. What
    it holds behind is dropped if the entry there is another one, for then nothing behind can have been committed;
    it stays while that is not known, for it may have been acknowledged.
    """
    log = state.log
    if position <= log.last and term and log.term_at(position) == term:
        if state.leads:
            behind = log.behind(state.commit, position - state.commit)
            state.uncommitted_bytes -= sum(ref.size for entry in behind for ref in entry.refs)
    else:
        if state.role is not Role.FOLLOWER:
            # Another leader has decided it: this log is not one that others should follow.
            become_follower(state, None)
        if position < log.last and term:
            state.truncate(position + 1)
        state.let_go_through(position)
        log.begin_behind(position, term)
    state.commit = position
    if position > state.matched:
        drop_deferred_through(state, position)


def on_sealed(state: State, event: Sealed) -> list[EngineOutput]:
    """End the epoch: no entry, vote, acknowledgement or read any more; the replica proves the seal to those who lag."""
    become_follower(state, None)
    state.sealed = event.position
    state.reads.tokens.clear()
    return []
