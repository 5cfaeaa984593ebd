"""The one place that lists what a PBFT replica remembers.

Invariants, each kept by every handler:

* `view` never falls, also across restarts; while `active` is False nothing is proposed, prepared or
  committed, and only a valid NEW-VIEW sets it again (PBFT §4.4).
* `slots` holds positions in (low, low + L + K] only; votes are cast in (low, low + L] only (PBFT §4.3).
* At most one proposal is accepted for a position in one view, and a vote names no other.
* A slot's `prepared` is never forgotten before its position is at or below a stable checkpoint.
* `committed` rises by one with each `Commit`, or jumps with `Synced`; a `Commit` names held bodies only.
* An uncommitted batch that is held is in `pending` or named by an accepted proposal (`ordered`).
"""

from collections import deque
from dataclasses import dataclass, field

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import Commit
from bftkit.core.pending import PendingBatches
from bftkit.core.quorum import Quorum
from bftkit.core.view_timer import ViewTimer
from bftkit.core.votes import VoteTally
from bftkit_pbft.check import window_length
from bftkit_pbft.config import PbftOptions
from bftkit_pbft.messages import (
    CommitVote,
    NewView,
    Prepare,
    PreparedProof,
    PrePrepare,
    ViewChange,
    proposal_digest,
)


@dataclass(slots=True)
class Slot:
    """What is known about one position. Everything but `prepared` and `decision` belongs to the current view."""

    position: int
    prepares: VoteTally
    commits: VoteTally
    refs: tuple[BatchRef, ...] | None = None
    """The accepted proposal."""
    digest: bytes = b""
    """Its digest."""
    pre_prepare: PrePrepare | None = None
    """What proposed it, unless a NEW-VIEW did."""
    missing: dict[bytes, BatchRef] = field(default_factory=dict)
    """Batches of the proposal whose bodies are not here: until they are, no vote is cast."""
    voted: bool = False
    """Whether the own PREPARE is durable."""
    commit_voted: bool = False
    """Whether the own COMMIT of this view is on its way."""
    prepared: PreparedProof | None = None
    """The prepared certificate of the highest view: this position's element of P."""
    decision: Commit | None = None
    """What was decided, in whatever view."""
    accused: int = 0
    """Bit mask of members whose double votes were reported."""


@dataclass(slots=True)
class Watched:
    """A batch that is here and not committed: somebody must see to it that it gets ordered."""

    ref: BatchRef
    arrived: int
    since: int | None = None
    """When the primary of this view is known to have had it: offered to him, or proposed by him."""


@dataclass(slots=True)
class State:
    """All variables of one replica in one epoch."""

    context: EngineContext
    options: PbftOptions
    quorum: Quorum
    stable: CheckpointCertificate
    """The newest stable checkpoint that is known: the low water mark h, and C of a VIEW-CHANGE."""
    committed: int
    """Last position that was handed out as committed, or synced."""
    view_timer: ViewTimer
    pending: PendingBatches
    """Batches that wait to be proposed; all are held."""
    early: list[deque[tuple[ReplicaIndex, Prepare | CommitVote | PrePrepare]]]
    """For each sender, its latest messages of views that are not entered yet; bounded."""
    view_changes: list[dict[int, ViewChange]]
    """For each member, its VIEW-CHANGEs of the highest few views above those entered."""
    watched: list[dict[bytes, Watched]]
    """For each origin, its uncommitted batches in order of arrival."""
    head_since: list[int]
    """For each origin, since when its oldest watched batch is the oldest."""
    ahead: list[int]
    """For each member, the highest position beyond the window that it voted for."""
    suspected: list[tuple[int, int]]
    """For each member, the view that it suspected last, and when it was heard to."""
    spoken: list[int]
    """For each member, the highest view of a proposal or vote of its that came before the view was entered here."""
    answered_at: list[int]
    """For each member, when it was last told of, or asked for, a NEW-VIEW."""

    now: int = 0
    """Time of the input being handled, in milliseconds."""
    view: int = 0
    active: bool = True
    """False from the own VIEW-CHANGE until a NEW-VIEW."""
    slots: dict[int, Slot] = field(default_factory=dict)
    top: int = 0
    """Highest position with a proposal in this view, or with votes of a correct member for one."""
    next_position: int = 1
    """Where the primary proposes next."""
    held: dict[bytes, BatchRef] = field(default_factory=dict)
    """Batches whose bodies are durable here, as far as the engine still cares."""
    waiting: dict[bytes, list[int]] = field(default_factory=dict)
    """For each missing body, the positions that wait for it."""
    ordered: dict[bytes, int] = field(default_factory=dict)
    """For each batch of an accepted or decided proposal above h, its position."""
    unoffered: dict[bytes, Watched] = field(default_factory=dict)
    """Watched batches that the primary of this view was neither offered nor has proposed."""
    watch_count: int = 0
    """How many batches are watched."""
    entered_at: int = 0
    """When this view was entered."""
    progress_at: int = 0
    """Last commit, or when something to commit first came up."""
    committed_in_view: bool = False
    view_change_rounds: int = 0
    """How often the own VIEW-CHANGE was repeated since anything new was heard of the others."""
    view_change_said_at: int = 0
    """When it was broadcast last."""
    own_view_change: ViewChange | None = None
    """The own VIEW-CHANGE for `view`, unsigned, while not active."""
    new_view: NewView | None = None
    """What began the last view that was entered; None in view 0."""
    new_view_votes: dict[ReplicaIndex, ViewChange] = field(default_factory=dict)
    """V of `new_view`, as far as it is still here."""
    candidates: dict[ReplicaIndex, NewView] = field(default_factory=dict)
    """For each primary, its latest NEW-VIEW that cannot be judged yet."""
    named: dict[ReplicaIndex, dict[ReplicaIndex, ViewChange]] = field(default_factory=dict)
    """For each candidate, by its primary, the VIEW-CHANGEs that it names where another of the signer came first."""
    behind_reported: int = 0
    """Highest position for which a state transfer was asked."""
    retransmissions: int = 0
    armed: dict[str, int] = field(default_factory=dict)
    """Running timers, and when they were set."""
    sealed: int | None = None
    """Where the epoch ends, once that is known."""

    # --- Names of the paper ---

    @property
    def own(self) -> ReplicaIndex:
        """Return the own index."""
        return self.context.own

    @property
    def low(self) -> int:
        """Return h, the low water mark."""
        return self.stable.checkpoint.position

    @property
    def vote_limit(self) -> int:
        """Return H = h + L, the last position that may be voted on."""
        return self.low + window_length(self.context)

    @property
    def window_end(self) -> int:
        """Return the last position about which anything is kept: one checkpoint interval above H."""
        return self.vote_limit + self.context.limits.checkpoint_interval

    @property
    def primary(self) -> ReplicaIndex:
        """Return who leads the current view."""
        return self.context.leaders.leader(self.view)

    @property
    def leads(self) -> bool:
        """Say whether this replica may propose."""
        return self.active and self.sealed is None and self.primary == self.own

    @property
    def others(self) -> tuple[ReplicaIndex, ...]:
        """List the other members, those after the primary first come first, beginning with the primary."""
        members = self.quorum.members
        order = ((self.primary + step) % members for step in range(members))
        return tuple(index for index in order if index != self.own)

    # --- Changes that keep the invariants ---

    def slot(self, position: int) -> Slot:
        """Return the slot of a position in the window, made when it is first needed."""
        slot = self.slots.get(position)
        if slot is None:
            members = self.quorum.members
            slot = self.slots[position] = Slot(position, VoteTally(members), VoteTally(members))
        return slot

    def place(self, slot: Slot, refs: tuple[BatchRef, ...], digest: bytes) -> None:
        """Accept a proposal in a slot that has none in this view.

        What is proposed where something is committed already may be anything: it orders nothing here.
        """
        slot.refs, slot.digest = refs, digest
        if self.top <= self.committed:
            self.progress_at = self.now
        self.top = max(self.top, slot.position)
        for ref in refs:
            if self.held.get(ref.digest) != ref:
                slot.missing[ref.digest] = ref
                self.waiting.setdefault(ref.digest, []).append(slot.position)
            if slot.position > self.committed:
                self.ordered.setdefault(ref.digest, slot.position)
                self.pending.discard(ref.digest)

    def leave_proposals(self) -> list[BatchRef]:
        """Forget what belongs to the current view; return the held batches that lost their proposal."""
        freed: list[BatchRef] = []
        members = self.quorum.members
        self.waiting.clear()
        for position in sorted(self.slots):
            slot = self.slots[position]
            if slot.refs is not None and slot.decision is None:
                released = self._release(slot)
                if position > self.committed:
                    freed.extend(released)
                else:
                    self._let_go(released)
            slot.refs, slot.digest, slot.pre_prepare = None, b"", None
            slot.missing = {}
            slot.voted = slot.commit_voted = False
            slot.prepares, slot.commits = VoteTally(members), VoteTally(members)
            slot.accused = 0
            if slot.decision is not None and position > self.committed:
                self._await_bodies(slot, slot.decision.refs)
        self.top = self.committed
        return freed

    def _await_bodies(self, slot: Slot, refs: tuple[BatchRef, ...]) -> None:
        for ref in refs:
            if self.held.get(ref.digest) != ref:
                slot.missing[ref.digest] = ref
                self.waiting.setdefault(ref.digest, []).append(slot.position)

    def _release(self, slot: Slot) -> list[BatchRef]:
        """Take a slot's batches out of `ordered`; return those that are held."""
        freed: list[BatchRef] = []
        for ref in (slot.refs if slot.decision is None else slot.decision.refs) or ():
            if self.ordered.get(ref.digest) == slot.position:
                del self.ordered[ref.digest]
                if self.held.get(ref.digest) == ref:
                    freed.append(ref)
        return freed

    def _let_go(self, refs: list[BatchRef]) -> None:
        for ref in refs:
            self.held.pop(ref.digest, None)

    def drop_through(self, position: int) -> list[BatchRef]:
        """Forget all slots up to a position; return held batches of proposals that were not committed."""
        freed: list[BatchRef] = []
        for done in sorted(self.slots):
            if done > position:
                break
            slot = self.slots.pop(done)
            released = self._release(slot)
            if done > self.committed:
                freed.extend(released)
            else:
                self._let_go(released)
        return freed

    def body_arrived(self, ref: BatchRef) -> list[Slot]:
        """Note a durable body; return the slots that miss nothing any more because of it."""
        self.held[ref.digest] = ref
        complete: list[Slot] = []
        for position in self.waiting.pop(ref.digest, ()):
            slot = self.slots.get(position)
            if slot is not None and slot.missing.get(ref.digest) == ref:
                del slot.missing[ref.digest]
                if not slot.missing:
                    complete.append(slot)
        return complete


def initial_state(context: EngineContext, checkpoint: CheckpointCertificate) -> State:
    """Return the state of a replica that has persisted nothing since a checkpoint."""
    options: PbftOptions = context.options
    members = len(context.membership)
    bound = 2 * window_length(context) + options.in_flight
    return State(
        context=context,
        options=options,
        quorum=context.membership.quorum,
        stable=checkpoint,
        committed=checkpoint.position,
        view_timer=ViewTimer(options.view_timeout_ms, options.timeout_cap_factor),
        pending=PendingBatches(members),
        early=[deque(maxlen=bound) for _ in range(members)],
        view_changes=[{} for _ in range(members)],
        watched=[{} for _ in range(members)],
        head_since=[0] * members,
        ahead=[0] * members,
        suspected=[(-1, 0)] * members,
        spoken=[0] * members,
        answered_at=[-MAX_SILENCE_MS] * members,
        top=checkpoint.position,
        next_position=checkpoint.position + 1,
    )


MAX_SILENCE_MS = 1 << 40
"""Longer ago than any delay: "never yet"."""


def place_again(state: State, position: int, refs: tuple[BatchRef, ...], *, voted: bool) -> None:
    """Accept a proposal that a record tells of; where it was voted for, its bodies are durable."""
    if position <= state.low:
        return
    slot = state.slot(position)
    if voted:
        for ref in refs:
            state.body_arrived(ref)
    if slot.refs is None:
        state.place(slot, refs, proposal_digest(refs))
    slot.voted = slot.voted or voted
