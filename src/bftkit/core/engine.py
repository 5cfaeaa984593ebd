"""The contract between an engine and the replica that hosts it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.epoch import Genesis, Limits
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import EngineInput
from bftkit.core.leaders import LeaderSchedule, RoundRobin, schedule_of, weights_problem
from bftkit.core.log import CommitEntry
from bftkit.core.membership import Membership
from bftkit.core.outputs import EngineOutput
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Claim

MAX_WINDOW_CHECKPOINTS = 8
"""Most checkpoint intervals that an engine's window may span."""

_IN_TURN = RoundRobin(0)
"""Stands for round robin among however many members there are."""

Message_co = TypeVar("Message_co", covariant=True)


class EngineStatus(msgspec.Struct, frozen=True):
    """What an engine says about itself."""

    view: int
    """Term, view or round."""
    leader: ReplicaIndex | None
    """Who leads, where it is known."""
    position: int
    """Last position that was committed or synced."""
    mode: str
    """What the engine is doing, in a word or two: "normal", "view change"."""
    waiting_for: str = ""
    """What must happen next, in words; empty when nothing is pending."""
    waiting_on: tuple[ReplicaIndex, ...] = ()
    """Members whose message is missing; none for a stable checkpoint, because the replica knows whose votes are."""


class ConsensusEngine(Protocol[Message_co]):
    """A state machine that orders batch digests within one epoch.

    Promises, checked by the conformance kit: deterministic, also across hash seeds; total, no input
    that passed `check` makes `step` raise; ordered, committed positions have no gap; bounded, state
    grows only within the window; quiet, with nothing to order it sends nothing but heartbeats where
    the protocol needs them; alive, a timer is armed whenever work is pending.
    """

    def start(self, now: int) -> list[EngineOutput]:
        """Begin; called once, before any step."""
        ...

    def step(self, event: EngineInput) -> list[EngineOutput]:
        """Take one input and return what is to be done, in order."""
        ...

    @property
    def view(self) -> int:
        """Return the term, view or round that `status` would say; asked after most steps, so it must cost nothing."""
        ...

    def status(self) -> EngineStatus:
        """Say the view, the leader, and what is waited for and from whom."""
        ...


class EngineContext(msgspec.Struct, frozen=True):
    """What an engine knows before it starts."""

    own: ReplicaIndex
    membership: Membership
    options: Any
    """Instance of the engine's `options_type`."""
    limits: Limits
    leaders: LeaderSchedule = _IN_TURN
    """Who leads which view; by default all members in turn, each as often as its weight says."""

    def __post_init__(self) -> None:
        if self.leaders is _IN_TURN:
            weights = [member.weight for member in self.membership.members]
            msgspec.structs.force_setattr(self, "leaders", schedule_of(weights))


class SigningRule(msgspec.Struct, frozen=True):
    """What may still be signed after a statement of one kind; enforced by the replica for every engine."""

    guarded: bool = True
    """Refused below the floor: a vote of a view that the signer has given up."""
    raises_floor: int | None = None
    """Signing it in view v forbids guarded statements below view v + this number."""


def widest_window(context: EngineContext) -> int:
    """Return the length of a window that no engine exceeds: votes for checkpoints further up are not kept."""
    return MAX_WINDOW_CHECKPOINTS * context.limits.checkpoint_interval


def one_leader(options: Any) -> int:
    """Say that one live leader is enough, whatever the options are."""
    return 1


class EngineSpec(msgspec.Struct, frozen=True):
    """How to host an engine: returned by the plugin hook `bftkit_engine()`.

    The functions are pure. `check`, `claims`, `references` and `lane_key` run in the pipeline, before
    the engine sees a message; a peer's message never reaches an assertion.
    """

    name: str
    version: str
    fault_model: FaultModel
    messages: Any
    """Union of the message types: tagged, frozen, array-like Structs."""
    records: Any
    """Union of the record types that the engine persists."""
    options_type: type[msgspec.Struct]
    """Struct with a default for each option; a `__post_init__` may refuse values with ValueError."""
    build: Callable[[EngineContext, Genesis, CheckpointCertificate, Sequence[Any]], "ConsensusEngine[Any]"]
    """Make an engine from the start of the epoch, the newest stable checkpoint, and what it persisted since."""
    check: Callable[[EngineContext, ReplicaIndex, Any], str | None]
    """Say what is wrong with a message by itself, given its sender, or None."""
    claims: Callable[[ReplicaIndex, Any], Iterable[Claim]]
    """List every signed statement inside a message, nested certificates included."""
    references: Callable[[Any], Iterable[BatchRef]]
    """List the batches that a message names."""
    lane_key: Callable[[Any], bytes]
    """Name the proposal that a message is about: the same proposal goes through the same lane."""
    commit_problem: Callable[[EngineContext, CommitEntry], str | None]
    """Say why an entry's proof does not show that it is decided, or None; signatures are verified besides."""
    signing: Mapping[str, SigningRule]
    """For each kind of statement that the engine signs, what it does to later ones."""
    window: Callable[[EngineContext], int] = widest_window
    """How many positions above the newest stable checkpoint the engine may vote for.

    A batch may be named again before its first decision is forgotten; bodies are kept for so many positions more,
    lest one be let go that a vote still stands for.
    """
    view_for_each_position: bool = False
    """Whether each position takes a view of its own, so that views rise with the log, not only when a leader fails."""
    successive_leaders: Callable[[Any], int] = one_leader
    """With given options, how many successive views with live leaders it takes to decide anything."""
    min_members: int = 1
    """Fewest members that the engine makes sense with."""
    answers_reads: bool = False
    """Whether `Read` is answered with `ReadReady`; where it is not, a read that must be recent goes through the log."""

    def leaders_problem(self, membership: Membership, options: Any) -> str | None:
        """Say why members that lead as often as their weights say could stop for good, or None."""
        weights = [member.weight for member in membership.members]
        return weights_problem(weights, membership.quorum.faults, self.successive_leaders(options))
