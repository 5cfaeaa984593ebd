"""Handing out what is committed, in order (Raft §3.5, §3.6.2)."""

from bftkit.core.outputs import Commit, EngineOutput
from bftkit_raft.check import proof_of_term
from bftkit_raft.state import State


def commit_through(state: State, position: int, out: list[EngineOutput]) -> None:
    """Hand out all entries up to a position of the log that is committed."""
    log = state.log
    while state.commit < position:
        state.commit += 1
        entry = log.entry(state.commit)
        out.append(Commit(state.commit, entry.refs, proof_of_term(entry.term)))
        if state.leads:
            state.uncommitted_bytes -= sum(ref.size for ref in entry.refs)
