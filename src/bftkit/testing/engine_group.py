"""A group of bare engines: pure, seeded and fast, without replicas, disks or bytes.

It stands in for everything between engines: it signs, verifies, makes records durable at once, executes at once,
makes checkpoints, hands out bodies and decided positions, and checks at each step what must always hold. Whatever
it knows of an engine it knows from its `EngineSpec`.

An *instance* is one running engine. Its *identity* is the member whose key it has. Usually there is one of each;
two instances with one identity are twins, and then that member is faulty.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext, EngineSpec
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import ZERO_DIGEST, ReplicaIndex, canonical
from bftkit.core.inputs import Available, EngineInput, Received, Stable, Synced, TimerFired
from bftkit.core.leaders import LeaderSchedule, RoundRobin
from bftkit.core.log import CommitEntry
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import (
    Accuse,
    Behind,
    Broadcast,
    CancelTimer,
    Commit,
    EngineOutput,
    Offer,
    Persist,
    ReadReady,
    Reject,
    Send,
    SetTimer,
    Want,
)
from bftkit.core.statement import Claim, SignedMessage
from bftkit.replica.safety import SigningGuard
from bftkit.testing.checkers import Violation
from bftkit.testing.group_ledger import GroupLedger
from bftkit.testing.message_words import message_words
from bftkit.testing.signing import SignatureRegistry

START = CheckpointCertificate(EMPTY_CHECKPOINT, None)
"""The stable checkpoint that every engine starts from."""

_ANY_LIFE = -1
"""What comes over the network reaches an instance in whatever life it is; what is its own does not."""

Deliverable = Callable[[int, int, Any], bool]
"""Asked with the sending instance, the receiving instance, and what is to pass.

That is a message of the engine; a `Want` or an `Offer` where bodies or offers of bodies pass; a `CommitEntry` or a
`CheckpointCertificate` where decided positions or stable checkpoints do.
"""

Rewrite = Callable[[int, Any], Any]
"""What a liar says to an instance in place of a message, signed by `EngineGroup.sign`; None for nothing."""


class GroupSettings(msgspec.Struct, frozen=True):
    """What a group is made with."""

    options: Any = None
    """Instance of the engine's `options_type`; None for its defaults."""
    interval: int = 4
    """Positions between checkpoints."""
    leaders: LeaderSchedule | None = None
    """Who leads which view; None for round robin."""
    exchange_ms: int | None = 400
    """How often an instance compares its log with that of another one; None for never."""
    thorough: bool = False
    """Whether each message and record is encoded and decoded on its way, and asked for its references and its lane."""
    traced: bool = False
    """Whether `trace` is written."""


class Instance:
    """One engine, and what a replica and its disk would hold for it."""

    __slots__ = (
        "alive",
        "bodies",
        "context",
        "crash_after",
        "engine",
        "guard",
        "height",
        "honest",
        "identity",
        "life",
        "log",
        "log_root",
        "number",
        "records",
        "rewrite",
        "stable",
        "timers",
    )

    def __init__(self, number: int, identity: ReplicaIndex, context: EngineContext, *, honest: bool) -> None:
        self.number = number
        self.identity = identity
        self.context = context
        self.honest = honest
        """Whether its decisions count: it has no twin and tells no lies. It may crash."""
        self.engine: Any = None
        self.alive = True
        self.life = 0
        """How often it has crashed."""
        self.crash_after = _ANY_LIFE
        """Crash after so many more outputs; below zero: do not."""
        self.timers: dict[str, int] = {}
        self.rewrite: Rewrite | None = None

    def forget(self, spec: EngineSpec) -> None:
        """Begin with an empty disk."""
        self.records: list[Any] = []
        self.stable = START
        self.bodies: dict[bytes, BatchRef] = {}
        self.log: list[CommitEntry] = []
        self.height = 0
        self.log_root = ZERO_DIGEST
        self.guard = SigningGuard(spec.signing)

    @property
    def name(self) -> str:
        """Return what traces and violations call it."""
        return f"n{self.number}"


class EngineGroup:
    """Engines of one kind, a clock, and a heap of things to come. The first broken rule raises `Violation`.

    Set the hooks, then call `start` once, before anything else. A subclass may make other contexts.
    """

    def __init__(
        self,
        spec: EngineSpec,
        members: int = 4,
        seed: int = 0,
        *,
        identity: Sequence[ReplicaIndex] | None = None,
        settings: GroupSettings | None = None,
    ) -> None:
        self.spec = spec
        self.settings = settings or GroupSettings()
        self.members = members
        self.random = random.Random(seed)
        self.options = spec.options_type() if self.settings.options is None else self.settings.options
        self.membership = membership_of(spec, members)
        self.genesis = self._genesis()
        self.quorum = self.membership.quorum
        self.registry = SignatureRegistry()
        self.now = 0
        self.steps = 0
        """Inputs that engines have taken."""
        self.sent = 0
        """Messages that were given to the network, one for each receiver."""
        self.loss = 0.0
        """Part of the messages between instances that get lost."""
        self.repeat = 0.0
        """Part of the messages between instances that arrive twice."""
        self.delay_ms = (1, 1)
        """Shortest and longest time that anything is under way."""
        self.deliverable: Deliverable | None = None
        """What may pass from one instance to another, asked when it is sent; None for everything."""
        self.on_step: Callable[[Instance, EngineInput, list[EngineOutput]], None] | None = None
        """Called after each step, when its outputs have been performed."""
        self.on_commit: Callable[[Instance, CommitEntry], None] | None = None
        """Called for each decided position that an engine hands out."""
        self.trace: list[str] = []
        self.names: dict[bytes, str] = {}
        """What traces call a batch."""
        self.accused: list[tuple[int, Accuse]] = []
        self.rejected: list[tuple[int, Reject]] = []
        self.behind: list[tuple[int, Behind]] = []
        self.reads: list[tuple[int, ReadReady]] = []
        """What engines said of others, of themselves and to readers, each with the instance that did."""
        self._events: list[tuple[int, int, Callable[[Instance, int, Any], None], Instance, int, Any]] = []
        self._count = 0
        identities = tuple(range(members)) if identity is None else tuple(identity)
        self.instances: list[Instance] = []
        for number, who in enumerate(identities):
            instance = Instance(number, who, self.make_context(number, who), honest=identities.count(who) == 1)
            instance.forget(spec)
            self.instances.append(instance)
        self._of_identity = [[one for one in self.instances if one.identity == who] for who in range(members)]
        self.ledger = GroupLedger(self)
        self._encoders = (msgspec.msgpack.Decoder(spec.messages), msgspec.msgpack.Decoder(spec.records))
        self._performers: dict[type, Callable[[Instance, Any], None]] = {
            Send: self._on_send,
            Broadcast: self._on_broadcast,
            Persist: self._on_persist,
            SetTimer: self._on_set_timer,
            CancelTimer: self._on_cancel_timer,
            Commit: self._on_commit,
            Want: self._on_want,
            Offer: self._on_offer,
            Behind: self._on_behind,
            Accuse: self._on_accuse,
            Reject: self._on_reject,
            ReadReady: self._on_read_ready,
        }

    def _genesis(self) -> Genesis:
        spec = self.spec
        limits = Limits(checkpoint_interval=self.settings.interval)
        options = canonical(self.options)
        members = self.membership.members
        return Genesis(
            EpochConfig("group", 0, 0, spec.name, spec.version, spec.fault_model, options, members, limits),
            EMPTY_CHECKPOINT,
        )

    def make_context(self, number: int, identity: ReplicaIndex) -> EngineContext:
        """Make what an instance knows before it starts."""
        leaders = self.settings.leaders or RoundRobin(self.members)
        return EngineContext(identity, self.membership, self.options, self.genesis.config.limits, leaders)

    def start(self) -> EngineGroup:
        """Start every engine; return the group."""
        for instance in self.instances:
            if instance.alive:
                self._build(instance)
                if self.settings.exchange_ms is not None:
                    self._after(self.random.randint(1, self.settings.exchange_ms), self._exchange, instance)
        return self

    def _build(self, instance: Instance) -> None:
        spec = self.spec
        instance.engine = spec.build(instance.context, self.genesis, instance.stable, tuple(instance.records))
        self._perform(instance, instance.engine.start(self.now))

    # --- Time ---

    def _after(
        self, delay: int, handler: Callable[[Instance, int, Any], None], instance: Instance, argument: Any = None
    ) -> None:
        """Plan something that concerns the present life of an instance."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, handler, instance, instance.life, argument))

    def call_at(self, time: int, action: Callable[[], None]) -> None:
        """Plan something that concerns nobody in particular."""
        self._count += 1
        anybody = self.instances[0]
        heapq.heappush(
            self._events, (time, self._count, lambda *_: action(), anybody, _ANY_LIFE, None)
        )

    def _next(self) -> None:
        self.now, _, handler, instance, life, argument = heapq.heappop(self._events)
        if instance.life == life or life == _ANY_LIFE:
            handler(instance, life, argument)
