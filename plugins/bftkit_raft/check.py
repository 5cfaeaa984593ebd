"""What can be said about a message before the engine sees it: pure functions, run in the pipeline."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef, refs_problem
from bftkit.core.engine import EngineContext
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.numbers import LARGEST_NUMBER, number_problem
from bftkit.core.statement import Claim
from bftkit_raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    RaftMessage,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotNeeded,
    TimeoutNow,
    Vote,
)

_terms = msgspec.msgpack.Decoder(int)


def window_length(context: EngineContext) -> int:
    """Return how many positions above the stable checkpoint may order batches."""
    factor: int = context.options.window_factor
    return factor * context.limits.checkpoint_interval


# --- Form -----------------------------------------------------------------------------------------------------------


def check(context: EngineContext, sender: ReplicaIndex, message: RaftMessage) -> str | None:
    """Say what is wrong with a message by itself, or None."""
    # Only who has never heard of a leader is in term 0, and only of a vote does he say so.
    if message.term < 1 and (type(message) is not Vote or (message.granted and not message.pre)):
        return "terms begin at 1"
    if not 0 <= message.term < LARGEST_NUMBER:
        return "a number is out of range"
    return _CHECKS[type(message)](context, message)


def _refs_problem(context: EngineContext, refs: Sequence[BatchRef]) -> str | None:
    most: int = context.options.batches_per_entry
    return refs_problem("an entry", refs, most, len(context.membership), context.limits.max_batch_bytes)


def _check_request_vote(context: EngineContext, message: RequestVote) -> str | None:
    if message.pre and message.transfer:
        return "nobody asks beforehand when the leader has told him to stand"
    if message.last_term >= message.term:
        return "a candidate's last entry is of its own term or a later one"
    return number_problem(message.last_position, message.last_term)


def _check_vote(context: EngineContext, message: Vote) -> str | None:
    if message.granted and message.term > message.asked:
        return "a vote is granted for a term that the voter has left"
    return number_problem(message.asked)


def _check_append_entries(context: EngineContext, message: AppendEntries) -> str | None:
    if len(message.entries) > context.options.entries_per_message:
        return "too many entries in one message"
    term = message.previous_term
    for entry in message.entries:
        if not term <= entry.term <= message.term:
            return "terms fall in a log, or rise above the leader's"
        term = entry.term
        problem = _refs_problem(context, entry.refs)
        if problem is not None:
            return problem
    if message.entries and message.entries[0].term < 1:
        return "terms begin at 1"
    last = message.previous_position + len(message.entries)
    return number_problem(message.previous_position, message.previous_term, last, message.commit, message.round)


def _check_append_accepted(context: EngineContext, message: AppendAccepted) -> str | None:
    return number_problem(message.position, message.round)


def _check_append_rejected(context: EngineContext, message: AppendRejected) -> str | None:
    return number_problem(message.position, message.conflict_term, message.conflict_position, message.round)


def _check_snapshot_needed(context: EngineContext, message: SnapshotNeeded) -> str | None:
    return number_problem(message.position, message.round)


def _check_read_index(context: EngineContext, message: ReadIndex) -> str | None:
    return number_problem(message.life, message.number)


def _check_read_index_reply(context: EngineContext, message: ReadIndexReply) -> str | None:
    return number_problem(message.life, message.number, message.position)


def _check_timeout_now(context: EngineContext, message: TimeoutNow) -> str | None:
    return None


_CHECKS: dict[type, Callable[[EngineContext, Any], str | None]] = {
    RequestVote: _check_request_vote,
    Vote: _check_vote,
    TimeoutNow: _check_timeout_now,
    AppendEntries: _check_append_entries,
    AppendAccepted: _check_append_accepted,
    AppendRejected: _check_append_rejected,
    SnapshotNeeded: _check_snapshot_needed,
    ReadIndex: _check_read_index,
    ReadIndexReply: _check_read_index_reply,
}


# --- What is inside ---------------------------------------------------------------------------------------------------


def claims(sender: ReplicaIndex, message: RaftMessage) -> Iterable[Claim]:
    """List every signed statement inside a message: there are none, the channel says who speaks."""
    return ()


def references(message: RaftMessage) -> Iterable[BatchRef]:
    """List the batches that a message names."""
    if type(message) is AppendEntries:
        return [ref for entry in message.entries for ref in entry.refs]
    return ()


def lane_key(message: RaftMessage) -> bytes:
    """Name what a message is about: all are about the one log, and best taken in the order in which they were sent."""
    return b"log"


# --- Proofs of decisions ----------------------------------------------------------------------------------------------


def proof_of_term(term: int) -> CommitProof:
    """Return what goes with a decided entry: no votes, but the term that it was appended in."""
    return CommitProof(None, canonical(term))


def term_of_proof(proof: CommitProof) -> int:
    """Return the term of a decided entry, from its proof; 0 where the proof says none."""
    try:
        term = _terms.decode(proof.links)
    except msgspec.DecodeError:
        return 0
    return term if 0 < term < LARGEST_NUMBER and canonical(term) == proof.links else 0


def commit_problem(context: EngineContext, entry: CommitEntry) -> str | None:
    """Say why an entry is not decided, or None: a crash-tolerant member's word is enough, and says the entry's term."""
    if entry.proof.certificate is not None:
        return "a decision of Raft has no votes"
    if entry.position < 1:
        return "positions begin at 1"
    if term_of_proof(entry.proof) == 0:
        return "a decision of Raft names the term of its entry"
    return number_problem(entry.position) or _refs_problem(context, entry.refs)
