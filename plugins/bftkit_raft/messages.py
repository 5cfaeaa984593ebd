"""What Raft's members say to each other, and what they write down. Nothing here is signed: the channel authenticates.

An entry's place in the log, its index, is its *position*. Every message carries its sender's term (Raft §3.3).
"""

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Root of everything here: an array without names, nothing added."""


class Entry(Part, frozen=True):
    """What the log holds at one position."""

    term: int
    """Term of the leader that appended it."""
    refs: tuple[BatchRef, ...]
    """Batches in order; none in the entry that a leader begins its term with (Raft §6.4)."""


# --- Elections, Raft §3.4 ------------------------------------------------------------------------------------------


class RequestVote(Part, tag="request-vote", frozen=True):
    """A candidate asks for a vote; with `pre` it asks whether it would get one (Raft §9.6)."""

    term: int
    """The candidate's term; with `pre` the term that it would stand in."""
    last_position: int
    last_term: int
    pre: bool = False
    transfer: bool = False
    """The leader itself has asked for this election, so a live leader is no reason to refuse (Raft §4.2.3)."""


class Vote(Part, tag="vote", frozen=True):
    """The answer to a `RequestVote`."""

    term: int
    """The voter's own term, also in a refusal: the candidate takes it over."""
    asked: int
    """The term that was asked for."""
    granted: bool
    pre: bool = False


class TimeoutNow(Part, tag="timeout-now", frozen=True):
    """The leader hands over: stand for election at once (Raft §3.10)."""

    term: int


# --- Replication, Raft §3.5 ----------------------------------------------------------------------------------------


class AppendEntries(Part, tag="append-entries", frozen=True):
    """The leader's log behind a position; without entries a heartbeat."""

    term: int
    previous_position: int
    previous_term: int
    """Term of the entry there; 0 where the leader does not know it, for nobody but those who have decided as far."""
    entries: tuple[Entry, ...]
    commit: int
    """Everything up to this position is committed."""
    round: int
    """Counts the leader's broadcasts in its term: whoever answers has taken it for the leader since (Raft §6.4)."""


class AppendAccepted(Part, tag="append-accepted", frozen=True):
    """The sender's log is the leader's up to a position, durably."""

    term: int
    position: int
    round: int
    """Of the newest message of the leader that is answered with it."""


class AppendRejected(Part, tag="append-rejected", frozen=True):
    """The sender's log is not the leader's at `previous_position`; or the leader is none any more."""

    term: int
    position: int
    """The `previous_position` that is refused."""
    conflict_term: int
    """Term of the sender's entry there; 0 where it has none (Raft §3.5, end)."""
    conflict_position: int
    """First position of that term in the sender's log; where there is no entry, the one behind its last."""
    round: int


class SnapshotNeeded(Part, tag="snapshot-needed", frozen=True):
    """The leader's log no longer holds what the receiver lacks: it must get what was decided by other means (§5)."""

    term: int
    position: int
    """The leader's log begins behind this position; all up to it is decided."""
    round: int


# --- Reads, Raft §6.4 ----------------------------------------------------------------------------------------------


class ReadIndex(Part, tag="read-index", frozen=True):
    """A follower asks how far it must have executed to serve reads that it has been asked for."""

    term: int
    life: int
    """How often the sender has begun to ask anew after a crash: answers to earlier lives are not for this one."""
    number: int


class ReadIndexReply(Part, tag="read-index-reply", frozen=True):
    """The answer of a leader that has made sure that it is one."""

    term: int
    life: int
    number: int
    position: int


RaftMessage = (
    RequestVote
    | Vote
    | TimeoutNow
    | AppendEntries
    | AppendAccepted
    | AppendRejected
    | SnapshotNeeded
    | ReadIndex
    | ReadIndexReply
)
"""Everything that members say."""


# --- Records -------------------------------------------------------------------------------------------------------


class HardState(Part, tag="hard-state", frozen=True):
    """Term and vote, always together: between two records of their own a crash would allow a second vote."""

    term: int
    vote: ReplicaIndex | None


class Appended(Part, tag="appended", frozen=True):
    """Entries from a position on; whatever the log held there and behind it is gone."""

    position: int
    """Of the first entry. Where the log ends below, everything between was learnt as decided by other means."""
    previous_term: int
    """Term of the entry before them; 0 where it is not known."""
    entries: tuple[Entry, ...]


class Reader(Part, tag="reader", frozen=True):
    """The number of the life in which this member asks for read indices."""

    life: int


class Snapshot(Part, tag="snapshot", frozen=True):
    """All that is still needed of the records before this one, which it replaces."""

    term: int
    vote: ReplicaIndex | None
    position: int
    """Where the log begins: everything up to here is decided."""
    position_term: int
    """Term of the entry there; 0 where it is not known."""
    highest_term: int
    """Highest term of any entry that the log ever held."""
    life: int
    entries: tuple[Entry, ...]
    """Everything behind `position`."""


RaftRecord = HardState | Appended | Reader | Snapshot
"""Everything that is persisted."""
