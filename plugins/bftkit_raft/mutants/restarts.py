"""What a member knows after a crash, or after a transferred state, broken on purpose (Raft §3.8, §5)."""

from typing import Any

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.inputs import Received, Synced
from bftkit.testing.mutants import Check, Mutant, Promise, Schedules, starting_unarmed
from bftkit_raft import checkpointing, election, restart
from bftkit_raft.messages import Entry, RequestVote
from bftkit_raft.mutants.elections import member
from bftkit_raft.mutants.schedules import CRASHES, TERMS


def _without(**fields: Any) -> Any:
    return lambda original: lambda state: msgspec.structs.replace(original(state), **fields)


def _term_zero(original: Any) -> Any:
    return property(lambda log: log.entries[-1].term if log.entries else log.base_term)


def _acknowledged_entries_bind_behind_a_transferred_state() -> str | None:
    """Behind a transferred state a member still refuses candidates that lack what it has acknowledged."""
    state = member()
    state.term, state.now = 5, 5_000
    for term in (1, 4, 5):
        state.append(Entry(term, ()))
    checkpointing.on_synced(state, Synced(5_000, 9, (), None))
    election.on_request_vote(state, Received(5_000, 1, RequestVote(6, 30, 4)))
    return None if state.vote is None else "it votes for a log that ends in an earlier term"


def _the_record_of_a_checkpoint_binds() -> str | None:
    """Whoever is built from the record of a checkpoint knows whom it has voted for."""
    state = member()
    state.term, state.vote = 4, 1
    start = CheckpointCertificate(EMPTY_CHECKPOINT, None)
    built = restart.restore(state.context, start, [checkpointing.snapshot(state)])
    return None if (built.term, built.vote) == (4, 1) else f"it knows of a vote for {built.vote} in term {built.term}"


MUTANTS = (
    Mutant(
        "raft: no timer after a restart",
        "A restarted member waits for a leader without ever giving up.",
        "bftkit_raft.engine:RaftEngine.start",
        starting_unarmed("election", "heartbeat", "relay", "read"),
        (Promise("raft", "everybody-restarts", 3), Schedules("raft", 3, TERMS)),
    ),
    Mutant(
        "raft: the record of a checkpoint lacks the vote",
        "The record that replaces all earlier ones lets a restarted member vote once more.",
        "bftkit_raft.checkpointing:snapshot",
        _without(vote=None),
        (Check(_the_record_of_a_checkpoint_binds),),
    ),
    Mutant(
        "raft: the record of a checkpoint lacks the term",
        "The record that replaces all earlier ones takes a restarted member back to the first term.",
        "bftkit_raft.checkpointing:snapshot",
        _without(term=0, vote=None),
        (Promise("raft", "everybody-restarts", 3), Schedules("raft", 3, CRASHES)),
    ),
    Mutant(
        "raft: the record of a checkpoint lacks entries",
        "The record that replaces all earlier ones forgets what was acknowledged above the checkpoint.",
        "bftkit_raft.checkpointing:snapshot",
        _without(entries=()),
        (Schedules("raft", 3, CRASHES), Promise("raft", "everybody-restarts", 3, count=200)),
    ),
    Mutant(
        "raft: term 0 behind a transferred state",
        "A member whose state came from another forgets that it has acknowledged entries of later terms.",
        "bftkit_raft.log:RaftLog.last_term",
        _term_zero,
        (Schedules("raft", 3, CRASHES, count=40), Check(_acknowledged_entries_bind_behind_a_transferred_state)),
    ),
)
"""All of them."""
