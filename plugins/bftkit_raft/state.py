"""The one place that lists what a Raft member remembers.

Invariants, each kept by every handler:

* `term` never falls, and in one term `vote` names one member at most; both are durable before anybody hears of them.
* log.base <= `commit` <= log.last. Everything up to `commit` is decided, and what the log holds of it is that.
* A leader changes nothing in its log but by appending to it (Raft §3.5, leader append-only).
* What the log holds was durable with its bodies, or is behind the same barrier, when an acknowledgement names it.
* `matched`, of a follower, is the last position up to which its log is known to be that of the leader of this term.
* `deferred` belongs to the leader of this term, follows `matched`, and its first entry lacks a body here.
* A held batch that is not decided is in `pending`, or named by an entry of the log (`ordered`).
* `held` and `ordered` say nothing of entries up to `low`; such entries are kept for a while, for followers that lag.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from bftkit.core.batch import BatchRef
from bftkit.core.engine import EngineContext
from bftkit.core.ids import ReplicaIndex
from bftkit.core.pending import PendingBatches
from bftkit.core.quorum import Quorum
from bftkit_raft.check import window_length
from bftkit_raft.config import RaftOptions
from bftkit_raft.log import RaftLog
from bftkit_raft.messages import Entry
from bftkit_raft.progress import Progress


class Role(Enum):
    """What a member is in its term (Raft §3.3)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(slots=True)
class Asked:
    """Reads that wait for one answer of the leader."""

    number: int
    to: ReplicaIndex
    tokens: list[int]


@dataclass(slots=True)
class Confirmation:
    """Reads that a leader may serve once a quorum has answered a round (Raft §6.4)."""

    round: int
    position: int
    """The commit index when the round began."""
    tokens: list[int]
    """Reads of its own."""
    questions: list[tuple[ReplicaIndex, int, int]]
    """Reads of followers: who asks, in which life, with which number."""


@dataclass(slots=True)
class Reads:
    """Reads that are not answered yet."""

    tokens: list[int] = field(default_factory=list)
    """Nobody has been asked about them."""
    questions: list[tuple[ReplicaIndex, int, int]] = field(default_factory=list)
    """Of followers, at a leader; no round has begun for them."""
    confirming: Confirmation | None = None
    """Those for which the leader's round has begun."""
    asked: Asked | None = None
    """Those of a follower about which its leader was asked."""
    number: int = 0
    life: int = 0
    """How often this member has begun to ask after a start, in all lives."""
    life_is_recorded: bool = False

    def give_back(self) -> None:
        """Let everything wait for another leader; followers ask again by themselves."""
        if self.confirming is not None:
            self.tokens = self.confirming.tokens + self.tokens
            self.confirming = None
        if self.asked is not None:
            self.tokens = self.asked.tokens + self.tokens
            self.asked = None
        self.questions.clear()

    @property
    def count(self) -> int:
        """Count the own reads that wait."""
        confirming = len(self.confirming.tokens) if self.confirming is not None else 0
        return len(self.tokens) + confirming + (len(self.asked.tokens) if self.asked is not None else 0)


@dataclass(slots=True)
class Handover:
    """A transfer of the lead; it belongs to one term and ends with it (Raft §3.10)."""

    target: ReplicaIndex
    since: int


@dataclass(slots=True)
class State:
    """All variables of one member in one epoch."""

    context: EngineContext
    options: RaftOptions
    quorum: Quorum
    log: RaftLog
    low: int
    """Position of the newest stable checkpoint."""
    commit: int
    """Last position that was handed out as committed, or synced."""
    pending: PendingBatches
    """Batches that wait to be appended; all are held."""
    others: tuple[ReplicaIndex, ...]
    """The other members, those after this one first."""

    now: int = 0
    """Time of the input being handled, in milliseconds."""
    term: int = 0
    vote: ReplicaIndex | None = None
    role: Role = Role.FOLLOWER
    leader: ReplicaIndex | None = None
    heard_at: int = 0
    """When the leader of this term was heard last."""
    quiet_since: int = 0
    """Since when there was no reason to put off an election."""
    no_vote_until: int = 0
    """With leases, until when a restarted member grants no vote and asks for none."""
    votes: int = 0
    """Bit mask of the members that grant the own (pre-)vote."""
    held: dict[bytes, BatchRef] = field(default_factory=dict)
    """Batches whose bodies are durable here, as far as the engine still cares."""
    ordered: dict[bytes, int] = field(default_factory=dict)
    """For each batch of an entry of the log, its last position there."""
    offer_at: dict[bytes, int] = field(default_factory=dict)
    """For each pending batch, when the leader is to be offered it."""

    matched: int = 0
    leader_commit: int = 0
    """Newest commit index of the leader of this term."""
    leader_round: int = 0
    """Newest round of the leader of this term."""
    deferred: list[Entry] = field(default_factory=list)
    """Entries of the leader from `matched + 1` on that wait for bodies."""

    progress: list[Progress] = field(default_factory=list)
    """A leader's view of each member, itself included."""
    round: int = 0
    """The leader's newest broadcast in this term."""
    round_sent_at: deque[tuple[int, int]] = field(default_factory=deque)
    """When rounds were sent that may still found a lease."""
    lease_from: int | None = None
    """When the newest round was sent that a quorum has answered; None where leases do not hold."""
    lease_is_over: bool = False
    """Whether somebody else was told to stand for election in this term."""
    term_begin: int = 0
    """Position of the entry with which the leader began its term: once it is committed, all before it is."""
    uncommitted_bytes: int = 0
    handover: Handover | None = None
    reads: Reads = field(default_factory=Reads)
    armed: dict[str, None] = field(default_factory=dict)
    """Running timers."""
    sealed: int | None = None
    """Where the epoch ends, once that is known."""

    @property
    def own(self) -> ReplicaIndex:
        """Return the own index."""
        return self.context.own

    @property
    def leads(self) -> bool:
        """Say whether this member is the leader of its term."""
        return self.role is Role.LEADER

    @property
    def window_end(self) -> int:
        """Return the last position at which batches may be ordered."""
        return self.low + window_length(self.context)

    # --- Changes that keep the invariants ---

    def append(self, entry: Entry) -> None:
        """Put an entry at the end of the log; its bodies are held."""
        log = self.log
        log.append(entry)
        position = log.last
        for ref in entry.refs:
            self.ordered[ref.digest] = position
            if self.pending.discard(ref.digest) is not None:
                self.offer_at.pop(ref.digest, None)

    def truncate(self, position: int) -> None:
        """Drop the entries from a position on; their batches wait again."""
        dropped = self.log.cut(position)
        for place, entry in enumerate(dropped, position):
            for ref in entry.refs:
                if self.ordered.get(ref.digest) == place:
                    del self.ordered[ref.digest]
                    self.wait(ref)

    def wait(self, ref: BatchRef) -> None:
        """Let a held batch wait to be appended."""
        if self.held.get(ref.digest) == ref and self.pending.add(ref):
            self.offer_at[ref.digest] = self.now + self.options.relay_after_ms

    def forget(self, digest: bytes) -> None:
        """Let go of a batch that was decided by other means, unless an entry names it."""
        if self.pending.discard(digest) is not None:
            self.offer_at.pop(digest, None)
        if digest not in self.ordered:
            self.held.pop(digest, None)

    def let_go_through(self, position: int) -> None:
        """Forget the batches of entries up to a position; those of entries that were not committed wait again.

        What is committed and named once more must be fetched once more, so that its body outlives the second naming.
        """
        log = self.log
        for place in range(max(log.base, self.low) + 1, min(position, log.last) + 1):
            for ref in log.entry(place).refs:
                if self.ordered.get(ref.digest) == place:
                    del self.ordered[ref.digest]
                    if place > self.commit:
                        self.wait(ref)
                    else:
                        self.held.pop(ref.digest, None)


def initial_state(context: EngineContext, position: int) -> State:
    """Return the state of a member that has persisted nothing since a checkpoint at a position."""
    options: RaftOptions = context.options
    members = len(context.membership)
    return State(
        context=context,
        options=options,
        quorum=context.membership.quorum,
        log=RaftLog(position),
        low=position,
        commit=position,
        pending=PendingBatches(members),
        others=tuple((context.own + step) % members for step in range(1, members)),
        matched=position,
    )
