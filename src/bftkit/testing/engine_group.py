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
from bftkit.core.engine import EngineContext, EngineSpec
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.inputs import Available, EngineInput, Received, Synced, TimerFired
from bftkit.core.leaders import RoundRobin
from bftkit.core.log import CommitEntry
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
from bftkit.core.statement import SignedMessage
from bftkit.testing.checkers import Violation
from bftkit.testing.group_hosting import GroupHosting
from bftkit.testing.group_instance import NEVER, START, Instance, Rewrite
from bftkit.testing.group_settings import GroupSettings, genesis_of, membership_of
from bftkit.testing.group_signing import GroupSigning
from bftkit.testing.invariants import JudgesProofs, RemembersRecords, load_invariants
from bftkit.testing.message_words import batch_words, message_words

__all__ = ["START", "Deliverable", "EngineGroup", "GroupSettings", "Instance", "Rewrite"]

Deliverable = Callable[[int, int, Any], bool]
"""Asked with the sending instance, the receiving instance, and what is to pass.

That is a message of the engine; a `Want` or an `Offer` where bodies or offers of bodies pass; a `CommitEntry` or a
`CheckpointCertificate` where decided positions or stable checkpoints do.
"""

Handler = Callable[[Instance, Any], None]

_ANY_LIFE = -1
"""What comes over the network reaches an instance in whatever life it is; what is its own does not."""


def _again(decoder: msgspec.msgpack.Decoder[Any], value: Any) -> Any:
    """Return what the encoding of a value decodes to; None where it is not one of the decoder's types."""
    try:
        return decoder.decode(canonical(value))
    except msgspec.ValidationError:
        return None


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
        self.quorum = self.membership.quorum
        self.genesis = genesis_of(spec, self.membership, self.options, self.settings.interval)
        self.now = self.settings.begin_ms
        self.steps = 0
        """Inputs that engines have taken."""
        self.sent = 0
        """Messages that were given to the network, one for each receiver."""
        self.refused = 0
        """Messages of liars that did not pass the engine's `check`, or carried a signature that nobody made."""
        self.loss = 0.0
        """Part of what passes between instances that gets lost."""
        self.repeat = 0.0
        """Part of the messages between instances that arrive twice."""
        self.delay_ms = (1, 1)
        """Shortest and longest time that anything is under way."""
        self.deliverable: Deliverable | None = None
        """What may pass from one instance to another, asked when it is sent; None for everything."""
        self.on_step: Callable[[Instance, EngineInput, list[EngineOutput]], None] | None = None
        """Called after each step, when its outputs have been performed, or as many as it took to crash."""
        self.on_commit: Callable[[Instance, CommitEntry], None] | None = None
        """Called for each decided position that an engine hands out, just before it stands in the log."""
        self.traced = self.settings.traced
        self.trace: list[str] = []
        self.names: dict[bytes, str] = {}
        """What traces call a batch."""
        self.accused: list[tuple[Instance, Accuse]] = []
        self.rejected: list[tuple[Instance, Reject]] = []
        self.behind: list[tuple[Instance, Behind]] = []
        self.reads: list[tuple[Instance, ReadReady]] = []
        self.watch = load_invariants(spec.name, members) if self.settings.invariants else None
        """What the engine's own package promises besides."""
        self._remembering = self.watch if isinstance(self.watch, RemembersRecords) else None
        self._judging = self.watch if isinstance(self.watch, JudgesProofs) else None
        self.signing = GroupSigning(spec, self.membership, self.watch)
        self.hosting = GroupHosting(self)
        identities = tuple(range(members)) if identity is None else tuple(identity)
        self.instances = [
            Instance(spec, number, who, self.make_context(number, who), honest=identities.count(who) == 1)
            for number, who in enumerate(identities)
        ]
        self.of_identity = [[one for one in self.instances if one.identity == who] for who in range(members)]
        """For each member its instances."""
        self._events: list[tuple[int, int, Handler, Instance, int, Any]] = []
        self._planned = 0
        self._messages = msgspec.msgpack.Decoder(spec.messages)
        self._records = msgspec.msgpack.Decoder(spec.records)
        self._performers: dict[type, Handler] = self._make_performers()

    def make_context(self, number: int, identity: ReplicaIndex) -> EngineContext:
        """Make what an instance knows before it starts."""
        leaders = self.settings.leaders or RoundRobin(self.members)
        return EngineContext(identity, self.membership, self.options, self.genesis.config.limits, leaders)

    def start(self) -> EngineGroup:
        """Start every engine that is not down; return the group."""
        period = self.settings.exchange_ms
        for instance in self.instances:
            if instance.alive:
                self._build(instance)
            if instance.alive and period is not None:
                first = 1 + instance.number * period // len(self.instances)
                self.after(first, self.hosting.exchange, instance)
        return self

    # --- Time ---

    def after(self, delay: int, handler: Handler, instance: Instance, argument: Any = None) -> None:
        """Plan something that concerns an instance in its present life only."""
        self._planned += 1
        heapq.heappush(self._events, (self.now + delay, self._planned, handler, instance, instance.life, argument))

    def after_any_life(self, delay: int, handler: Handler, instance: Instance, argument: Any = None) -> None:
        """Plan something that reaches an instance also when it has crashed and come back meanwhile."""
        self._planned += 1
        heapq.heappush(self._events, (self.now + delay, self._planned, handler, instance, _ANY_LIFE, argument))

    def _next(self) -> None:
        self.now, _, handler, instance, life, argument = heapq.heappop(self._events)
        if life in (_ANY_LIFE, instance.life):
            handler(instance, argument)

    def has_plans(self, instance: Instance) -> bool:
        """Say whether an instance will go on by itself: a timer runs, or something of its own is under way."""
        return any(
            one is instance and life == one.life and handler != self.hosting.exchange
            for _, _, handler, one, life, _ in self._events
        )

    def run(self, duration: int) -> None:
        """Let so many milliseconds pass."""
        end = self.now + duration
        events = self._events
        while events and events[0][0] <= end:
            self._next()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: int) -> int:
        """Run until a condition holds; return how long it took. A violation if that is longer than the limit."""
        begun = self.now
        while not condition():
            if not self._events or self._events[0][0] > begun + limit:
                raise Violation("\n".join([f"not within {limit} ms:", *self.states(), *self.trace[-30:]]))
            self._next()
        return self.now - begun

    def delay(self) -> int:
        """Draw how long something is under way."""
        shortest, longest = self.delay_ms
        return shortest if shortest == longest else self.random.randint(shortest, longest)

    def is_lost(self) -> bool:
        """Draw whether something gets lost."""
        return self.loss > 0.0 and self.random.random() < self.loss

    def passes(self, sender: Instance, receiver: Instance, what: Any) -> bool:
        """Say whether something may pass from one instance to another."""
        return self.deliverable is None or self.deliverable(sender.number, receiver.number, what)

    # --- Work ---

    def batch(self, name: str, origin: ReplicaIndex = 0) -> BatchRef:
        """Name a batch; another origin's is another one, as a digest covers who made it."""
        ref = BatchRef(sha256(b"%d/" % origin + name.encode()).digest(), origin, 1, 10)
        self.names[ref.digest] = name
        return ref

    def submit(self, name: str, origin: ReplicaIndex = 0, to: Sequence[int] | None = None) -> BatchRef:
        """Make a batch durable at some instances, all by default."""
        ref = self.batch(name, origin)
        for number in range(len(self.instances)) if to is None else to:
            self.hosting.arrive(self.instances[number], (ref,))
        return ref

    def step(self, instance: Instance, event: EngineInput) -> None:
        """Give an engine an input, and perform what it wants."""
        if not instance.alive:
            return
        self.steps += 1
        outputs = instance.engine.step(event)
        if outputs:
            self._perform(instance, outputs)
            # What changes without an output shows with the next one.
            if self.watch is not None and instance.honest and instance.alive:
                self._demand(instance, self.watch.stepped(instance.identity, instance.engine))
                if self._remembering is not None:
                    self._remembering.recorded(instance.identity, instance.engine)
        if self.on_step is not None:
            self.on_step(instance, event, outputs)

    def _demand(self, instance: Instance, problem: str | None) -> None:
        if problem is not None:
            raise Violation(f"{instance.name}: {problem}")

    # --- Crashes ---

    def crash(self, number: int) -> None:
        """Stop an instance: what it did not persist is gone."""
        instance = self.instances[number]
        if self.traced:
            self.say(f"{instance.name} crashes")
        instance.alive = False
        instance.life += 1
        instance.crash_after = NEVER
        instance.timers.clear()
        instance.asked.clear()
        if self.watch is not None:
            self.watch.restarted(instance.identity)

    def restart(self, number: int, *, memory: bool = True) -> None:
        """Build an instance again from its records, as its replica would; without memory from an empty disk."""
        instance = self.instances[number]
        if instance.alive:
            return
        if self.traced:
            self.say(f"{instance.name} restarts")
        if not memory:
            instance.forget()
        instance.alive = True
        life = instance.life
        self._build(instance)
        if len(instance.log) > instance.stable.position:
            refs = tuple(ref for entry in instance.log[instance.stable.position :] for ref in entry.refs)
            if instance.life == life:
                self.step(instance, Synced(self.now, len(instance.log), refs, instance.log[-1].proof))
        waiting = tuple(ref for digest, ref in instance.bodies.items() if digest not in instance.decided)
        if waiting and instance.life == life:
            self.step(instance, Available(self.now, waiting))
        if instance.life == life:
            self.hosting.exchange(instance)

    def _build(self, instance: Instance) -> None:
        engine = self.spec.build(instance.context, self.genesis, instance.stable, tuple(instance.records))
        instance.engine = engine
        self._perform(instance, engine.start(self.now))

    # --- Outputs ---

    def _make_performers(self) -> dict[type, Handler]:
        return {
            Send: self._on_send,
            Broadcast: self._on_broadcast,
            Persist: self._on_persist,
            SetTimer: self._on_set_timer,
            CancelTimer: self._on_cancel_timer,
            Commit: self._on_commit,
            Want: self.hosting.want,
            Offer: self.hosting.offer,
            Behind: self._on_behind,
            Accuse: self._on_accuse,
            Reject: self._on_reject,
            ReadReady: self._on_read_ready,
        }

    def _perform(self, instance: Instance, outputs: list[EngineOutput]) -> None:
        life = instance.life
        for output in outputs:
            if instance.life != life:
                return
            if instance.crash_after != NEVER:
                instance.crash_after -= 1
                if instance.crash_after == NEVER:
                    self.crash(instance.number)
                    return
            self._performers[type(output)](instance, output)

    def _on_persist(self, instance: Instance, output: Persist) -> None:
        record = output.record
        if self.settings.thorough:
            record = _again(self._records, record)
            if record != output.record:
                raise Violation(f"{instance.name} persists a record that does not decode to itself: {output.record}")
        instance.records = [record] if output.replaces_earlier else [*instance.records, record]

    def _on_set_timer(self, instance: Instance, output: SetTimer) -> None:
        delay = output.delay_ms + (self.random.randint(0, output.jitter_ms) if output.jitter_ms else 0)
        number = instance.timers[output.timer] = self._planned
        self.after(delay, self._fire, instance, (output.timer, number))

    def _fire(self, instance: Instance, timer: tuple[str, int]) -> None:
        name, number = timer
        if instance.timers.get(name) == number:
            del instance.timers[name]
            if self.traced:
                self.say(f"{instance.name} timer {name}")
            self.step(instance, TimerFired(self.now, name))

    def _on_cancel_timer(self, instance: Instance, output: CancelTimer) -> None:
        instance.timers.pop(output.timer, None)

    def _on_commit(self, instance: Instance, output: Commit) -> None:
        entry = self.hosting.check_commit(instance, output)
        if entry is not None:
            certificate = entry.proof.certificate
            if self.watch is not None and instance.honest and certificate is not None:
                self._demand(instance, self.watch.decided(entry.position, certificate))
            if self._judging is not None and instance.honest:
                self._demand(instance, self._judging.proved(instance.identity, instance.engine, entry))
            if self.traced:
                self.say(f"{instance.name} COMMITS {entry.position} {self.batches(entry.refs)}")
            if self.on_commit is not None:
                self.on_commit(instance, entry)
            self.hosting.learn(instance, entry)

    def _on_behind(self, instance: Instance, output: Behind) -> None:
        self.behind.append((instance, output))
        self.after(2 * self.delay(), self.hosting.behind, instance, output.sources)

    def _on_accuse(self, instance: Instance, output: Accuse) -> None:
        evidence = output.evidence
        if self.traced:
            self.say(f"{instance.name} accuses n{evidence.signer} of two {evidence.first.kind}s")
        self.accused.append((instance, output))
        if not instance.honest:
            return
        if not evidence.proves_equivocation or not all(self.signing.is_signed(claim) for claim in evidence.claims()):
            raise Violation(f"{instance.name} accuses n{evidence.signer} without proof: {evidence}")
        if all(one.honest for one in self.of_identity[evidence.signer]):
            raise Violation(f"{instance.name} accuses n{evidence.signer}, who is honest: {evidence}")

    def _on_reject(self, instance: Instance, output: Reject) -> None:
        if self.traced:
            self.say(f"{instance.name} rejects n{output.sender}: {output.reason}")
        self.rejected.append((instance, output))
        if instance.honest and all(one.honest for one in self.of_identity[output.sender]):
            raise Violation(f"{instance.name} rejects what n{output.sender} sent, who is honest: {output.reason}")

    def _on_read_ready(self, instance: Instance, output: ReadReady) -> None:
        if self.traced:
            self.say(f"{instance.name} READS at {output.position}")
        self.reads.append((instance, output))

    # --- Messages ---

    def _on_send(self, instance: Instance, output: Send) -> None:
        self._send(instance, output.message, output.to)

    def _on_broadcast(self, instance: Instance, output: Broadcast) -> None:
        self._send(instance, output.message, None)

    def _send(self, sender: Instance, message: Any, to: ReplicaIndex | None) -> None:
        if isinstance(message, SignedMessage) and not getattr(message, "signature", b""):
            if not self.signing.admit(sender, message):
                return
            message = self.signing.sign(sender.identity, message)
        if self.traced:
            self.say(f"{sender.name} {self.words(message)} -> {'all' if to is None else f'n{to}'}")
        if self.settings.thorough:
            message = self._through_codec(sender, message)
        problem = self.signing.claims_problem(sender.identity, message)
        if problem is not None:
            raise Violation(f"{sender.name} sends what nobody can verify: {problem}: {message}")
        receivers = self.instances if to is None else self.of_identity[to]
        if to == sender.identity:
            receivers = [sender]
        plain = self.deliverable is None and sender.rewrite is None and not self.loss and not self.repeat
        for receiver in receivers:
            self.sent += 1
            if receiver is sender:
                self.after(self.delay(), self._receive, receiver, (sender, message))
            elif plain:
                self.after_any_life(self.delay(), self._receive, receiver, (sender, message))
            else:
                self._transmit(sender, receiver, message)

    def _transmit(self, sender: Instance, receiver: Instance, message: Any) -> None:
        """Send a message through everything that may happen to it."""
        if sender.rewrite is not None:
            message = sender.rewrite(receiver.number, message)
            if message is None:
                return
            if self.signing.claims_problem(sender.identity, message) is not None:
                self.refused += 1
                return
        if not self.passes(sender, receiver, message):
            return
        if self.is_lost():
            return
        self.after_any_life(self.delay(), self._receive, receiver, (sender, message))
        if self.repeat and self.random.random() < self.repeat:
            self.after_any_life(self.delay(), self._receive, receiver, (sender, message))

    def _receive(self, instance: Instance, sent: tuple[Instance, Any]) -> None:
        if not instance.alive:
            return
        sender, message = sent
        problem = self.spec.check(instance.context, sender.identity, message)
        if problem is None:
            self.step(instance, Received(self.now, sender.identity, message))
        elif sender.honest:
            raise Violation(f"{sender.name} sent what {instance.name} refuses: {problem}: {message}")
        else:
            self.refused += 1

    def _through_codec(self, sender: Instance, message: Any) -> Any:
        decoded = _again(self._messages, message)
        if decoded != message:
            raise Violation(f"{sender.name} sends a message that does not decode to itself: {message}")
        tuple(self.spec.references(decoded))
        self.spec.lane_key(decoded)
        return decoded

    def decodes(self, message: Any) -> bool:
        """Say whether something is a message of the engine: whether its encoding decodes to it."""
        return bool(_again(self._messages, message) == message)

    def sign(self, identity: ReplicaIndex, message: Any) -> Any:
        """Return a message with a member's signature."""
        return self.signing.sign(identity, message)

    # --- Words ---

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:5} {text}")

    def words(self, value: Any) -> str:
        """Say a message in a few words."""
        return message_words(value, self.names)

    def batches(self, refs: Sequence[BatchRef]) -> str:
        """Say the names of batches."""
        return batch_words(refs, self.names)

    def states(self) -> list[str]:
        """Say of each instance what it says of itself."""
        return [f"{one.name} {one.engine.status() if one.alive else 'is down'}" for one in self.instances]

    def corrupt(self, number: int, rewrite: Rewrite) -> None:
        """Make an instance lie: what it sends to others goes through a function first."""
        self.instances[number].rewrite = rewrite
        self.instances[number].honest = False
