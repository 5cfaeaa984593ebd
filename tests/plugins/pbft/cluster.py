"""A small cluster for PBFT's tests: pure, seeded, with loss, repetition, reordering, crashes and restarts.

It stands in for the replica and the shell: it signs, verifies, makes records durable, executes at once,
makes checkpoints, fetches bodies and lets laggards catch up. While it does, it checks what must always hold.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import ZERO_DIGEST, canonical
from bftkit.core.inputs import Available, Received, Stable, Synced, TimerFired
from bftkit.core.log import CommitEntry
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import (
    Accuse,
    Behind,
    Broadcast,
    CancelTimer,
    Commit,
    Offer,
    Persist,
    Reject,
    Send,
    SetTimer,
    Want,
)
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import SignedMessage, Statement
from bftkit_pbft.config import PbftOptions
from bftkit_pbft.engine import SPEC, PbftEngine, build

SYNC_MS = 400
"""How often a member compares its log with another one's."""

_decoder = msgspec.msgpack.Decoder(SPEC.messages)
_records = msgspec.msgpack.Decoder(SPEC.records)


def signature_of(signer: int, statement: Statement) -> bytes:
    """A tag that stands for a signature: nobody but the cluster makes one."""
    tag = sha256(b"%d" % signer + canonical(statement)).digest()
    return tag + tag


def signed(signer: int, message: Any) -> Any:
    return msgspec.structs.replace(message, signature=signature_of(signer, message.statement()))


def batch(name: str, origin: int = 0, *, control: bool = False) -> BatchRef:
    return BatchRef(sha256(name.encode()).digest(), origin, 1, 10, control)


def membership_of(members: int) -> Membership:
    names = [f"n{index:02}" for index in range(members)]
    return Membership(tuple(Member(name, sha256(name.encode()).digest()) for name in names), FaultModel.BYZANTINE)


def context_of(own: int, members: int, *, interval: int = 4, **options: Any) -> EngineContext:
    return EngineContext(own, membership_of(members), PbftOptions(**options), Limits(checkpoint_interval=interval))


def genesis_of(context: EngineContext) -> Genesis:
    config = EpochConfig(
        "test", 0, 0, "pbft", "1", FaultModel.BYZANTINE, b"", context.membership.members, context.limits
    )
    return Genesis(config, EMPTY_CHECKPOINT)


START = CheckpointCertificate(EMPTY_CHECKPOINT, None)


def checkpoint_at(position: int, signers: list[int], members: int, root: bytes = ZERO_DIGEST) -> CheckpointCertificate:
    checkpoint = Checkpoint(position, position, root, ZERO_DIGEST, ZERO_DIGEST)
    statement = checkpoint.statement()
    votes = {signer: signature_of(signer, statement) for signer in signers}
    return CheckpointCertificate(checkpoint, QuorumCertificate.of(statement, votes, members))


@dataclass
class Faults:
    """What the network does wrong, as probabilities, and who cannot hear whom."""

    loss: float = 0.0
    repeat: float = 0.0
    delay_ms: tuple[int, int] = (1, 1)
    cut: Callable[[int, int], bool] = lambda sender, receiver: False


@dataclass
class Node:
    """One member as the cluster sees it."""

    index: int
    context: EngineContext
    engine: PbftEngine
    records: list[bytes] = field(default_factory=list)
    stable: CheckpointCertificate = START
    bodies: dict[bytes, BatchRef] = field(default_factory=dict)
    log: list[CommitEntry] = field(default_factory=list)
    timers: dict[str, int] = field(default_factory=dict)
    signed: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    floor: int = 0
    alive: bool = True
    life: int = 0


class Cluster:
    """Members, a clock, and a heap of things to come."""

    def __init__(
        self,
        members: int,
        seed: int = 0,
        *,
        interval: int = 4,
        silent: tuple[int, ...] = (),
        traced: bool = False,
        **options: Any,
    ):
        self.members = members
        self.random = random.Random(seed)
        self.faults = Faults()
        self.now = 0
        self.traced = traced
        self.trace: list[str] = []
        self.rewrite: dict[int, Callable[[int, Any], Any]] = {}
        """Byzantine members: what they send to whom in place of a message; None sends nothing."""
        self.silent = silent
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.names: dict[bytes, str] = {}
        self.executed: dict[int, dict[int, bytes]] = {}
        self.decided: dict[int, tuple[BatchRef, ...]] = {}
        self.accused: list[Accuse] = []
        self.rejected: list[Reject] = []
        self.behind: list[tuple[int, Behind]] = []
        self.crash_after: dict[int, int] = {}
        """Members that crash after so many more outputs."""
        self.sent = 0
        self.nodes = []
        for index in range(members):
            context = context_of(index, members, interval=interval, **options)
            self.nodes.append(Node(index, context, build(context, genesis_of(context), START, ())))
        self.quorum = self.nodes[0].context.membership.quorum
        for node in self.nodes:
            if node.index in silent:
                node.alive = False
                continue
            self.perform(node, node.engine.start(0))
            self.at(self.random.randint(1, SYNC_MS), partial(self.sync, node))

    # --- Time ---

    def at(self, delay: int, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, self.count, action))

    def run(self, duration: int) -> None:
        end = self.now + duration
        while self.events and self.events[0][0] <= end:
            self.now, _, action = heapq.heappop(self.events)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: int) -> int:
        """Run until the condition holds; fail where it does not within the limit; return how long it took."""
        begun = self.now
        while not condition():
            if not self.events or self.events[0][0] > begun + limit:
                raise AssertionError("\n".join(["not in time:", *self.states(), *self.trace[-30:]]))
            self.now, _, action = heapq.heappop(self.events)
            action()
        return self.now - begun

    def states(self) -> list[str]:
        return [f"n{node.index} {'' if node.alive else 'down '}{node.engine.status()}" for node in self.nodes]

    def say(self, text: str) -> None:
        """Note a line of the trace, where one was asked for."""
        if self.traced:
            self.trace.append(f"{self.now:5} {text}")

    # --- Members ---

    def step(self, node: Node, event: Any) -> None:
        if node.alive:
            self.perform(node, node.engine.step(event))

    def submit(self, name: str, origin: int, to: tuple[int, ...] | None = None) -> BatchRef:
        """Make a batch durable at some members, all by default."""
        ref = batch(name, origin)
        self.names[ref.digest] = name
        for index in range(self.members) if to is None else to:
            self.arrive(self.nodes[index], (ref,))
        return ref

    def arrive(self, node: Node, refs: tuple[BatchRef, ...]) -> None:
        if node.alive:
            for ref in refs:
                node.bodies[ref.digest] = ref
            self.step(node, Available(self.now, refs))

    def crash(self, index: int) -> None:
        node = self.nodes[index]
        self.say(f"n{index} crashes")
        node.alive = False
        node.life += 1
        node.timers.clear()

    def restart(self, index: int) -> None:
        """Build a member again from its records; its log is durable, and uncommitted bodies are announced."""
        node = self.nodes[index]
        if node.alive:
            return
        self.say(f"n{index} restarts")
        self.crash_after.pop(index, None)
        node.alive = True
        node.life += 1
        records = [_records.decode(record) for record in node.records]
        node.engine = build(node.context, genesis_of(node.context), node.stable, records)
        life = node.life
        self.perform(node, node.engine.start(self.now))
        done = tuple(ref for entry in node.log[node.stable.position :] for ref in entry.refs)
        self.step(node, Synced(self.now, len(node.log), done, node.log[-1].proof if node.log else None))
        committed = {ref.digest for entry in node.log for ref in entry.refs}
        open_refs = tuple(ref for digest, ref in node.bodies.items() if digest not in committed)
        if open_refs:
            self.step(node, Available(self.now, open_refs))
        if node.alive and node.life == life:
            self.sync(node)

    # --- Outputs ---

    def perform(self, node: Node, outputs: list[Any]) -> None:
        life = node.life
        for output in outputs:
            if not node.alive or node.life != life:
                return
            if node.index in self.crash_after:
                self.crash_after[node.index] -= 1
                if self.crash_after[node.index] < 0:
                    del self.crash_after[node.index]
                    self.crash(node.index)
                    return
            self.perform_one(node, output)

    def perform_one(self, node: Node, output: Any) -> None:
        match output:
            case Send(to, message):
                self.send(node, (to,), message)
            case Broadcast(message):
                self.send(node, tuple(range(self.members)), message)
            case Persist(record, replaces):
                data = canonical(record)
                assert _records.decode(data) == record
                node.records = [data] if replaces else [*node.records, data]
            case SetTimer(timer, delay, _):
                self.set_timer(node, timer, delay)
            case CancelTimer(timer):
                node.timers.pop(timer, None)
            case Commit(position, refs, proof):
                self.commit(node, CommitEntry(position, refs, proof))
            case Want(refs, sources):
                self.fetch(node, refs, sources, asked=True)
            case Offer(refs, to):
                self.at(self.delay(), lambda: self.offered(node.index, to, refs))
            case Behind():
                self.behind.append((node.index, output))
                self.at(self.delay(), lambda: self.catch_up(node))
            case Accuse(evidence):
                assert evidence.proves_equivocation
                for claim in evidence.claims():
                    assert claim.signature == signature_of(claim.signer, claim.statement)
                self.say(f"n{node.index} accuses n{evidence.signer} of two {evidence.first.kind}s")
                self.accused.append(output)
            case Reject(sender, reason):
                self.say(f"n{node.index} rejects n{sender}: {reason}")
                self.rejected.append(output)
            case _:
                raise AssertionError(f"unexpected output {output}")

    def set_timer(self, node: Node, timer: str, delay: int) -> None:
        due = self.now + delay
        node.timers[timer] = due
        life = node.life

        def fire() -> None:
            if node.alive and node.life == life and node.timers.get(timer) == due:
                del node.timers[timer]
                self.say(f"n{node.index} timer {timer}")
                self.step(node, TimerFired(self.now, timer))

        self.at(delay, fire)

    def may_sign(self, node: Node, statement: Statement) -> bool:
        """What the replica's safety module does; and nothing contradictory may even be asked for."""
        assert node.signed.setdefault(statement.slot, statement.content) == statement.content, (
            f"n{node.index} contradicts itself: {statement}"
        )
        rule = SPEC.signing[statement.kind]
        if rule.guarded:
            assert statement.view >= node.floor, f"n{node.index} signs below its floor: {statement}"
        if rule.raises_floor is not None:
            node.floor = max(node.floor, statement.view + rule.raises_floor)
        return True

    def send(self, node: Node, receivers: tuple[int, ...], message: Any) -> None:
        if isinstance(message, SignedMessage):
            assert self.may_sign(node, message.statement())
            message = signed(node.index, message)
        if self.traced:
            self.say(f"n{node.index} {self.words(message)} -> {'all' if len(receivers) > 1 else f'n{receivers[0]}'}")
        for receiver in receivers:
            sent = message
            if node.index in self.rewrite and receiver != node.index:
                sent = self.rewrite[node.index](receiver, message)
                if sent is None:
                    continue
            self.transmit(node.index, receiver, canonical(sent))

    def transmit(self, sender: int, receiver: int, data: bytes) -> None:
        self.sent += 1
        copies = 1
        if sender != receiver:
            if self.faults.cut(sender, receiver) or self.random.random() < self.faults.loss:
                return
            copies += self.random.random() < self.faults.repeat
        life = self.nodes[receiver].life if sender == receiver else None
        for _ in range(copies):
            self.at(self.delay(), lambda: self.receive(sender, receiver, data, life))

    def delay(self) -> int:
        return self.random.randint(*self.faults.delay_ms)

    def receive(self, sender: int, receiver: int, data: bytes, life: int | None) -> None:
        node = self.nodes[receiver]
        if not node.alive or (life is not None and life != node.life):
            return
        message = _decoder.decode(data)
        assert canonical(message) == data
        problem = SPEC.check(node.context, sender, message)
        if problem is None:
            for claim in SPEC.claims(sender, message):
                if claim.signature != signature_of(claim.signer, claim.statement):
                    problem = f"bad signature of n{claim.signer}"
                    break
        if problem is not None:
            assert sender in self.rewrite, f"n{sender} sent what n{receiver} refuses: {problem}: {message}"
            return
        list(SPEC.references(message))
        SPEC.lane_key(message)
        self.step(node, Received(self.now, sender, message))

    # --- Commits, checkpoints, bodies, catching up ---

    def commit(self, node: Node, entry: CommitEntry) -> None:
        assert entry.position == len(node.log) + 1, f"n{node.index} commits {entry.position} after {len(node.log)}"
        for ref in entry.refs:
            assert node.bodies.get(ref.digest) == ref, f"n{node.index} commits a batch that it does not hold"
        self.learn(node, entry)
        self.say(f"n{node.index} COMMITS {entry.position} {self.batches(entry.refs)}")

    def learn(self, node: Node, entry: CommitEntry) -> None:
        decided = self.decided.setdefault(entry.position, entry.refs)
        assert decided == entry.refs, f"two decisions for position {entry.position}"
        assert SPEC.commit_problem(node.context, entry) is None
        certificate = entry.proof.certificate
        assert certificate is not None
        for claim in certificate.claims():
            assert claim.signature == signature_of(claim.signer, claim.statement)
        node.log.append(entry)
        if entry.position % node.context.limits.checkpoint_interval == 0:
            root = sha256(b"".join(canonical(item.refs) for item in node.log)).digest()
            votes = self.executed.setdefault(entry.position, {})
            votes[node.index] = root
            if len(votes) >= self.quorum.quorum:
                self.make_stable(entry.position, votes)

    def make_stable(self, position: int, votes: dict[int, bytes]) -> None:
        assert len(set(votes.values())) == 1, "roots differ"
        certificate = checkpoint_at(
            position, sorted(votes)[: self.quorum.quorum], self.members, next(iter(votes.values()))
        )
        for node in self.nodes:
            if len(node.log) >= position:
                self.at(self.delay(), partial(self.stabilize, node, certificate))

    def stabilize(self, node: Node, certificate: CheckpointCertificate) -> None:
        if node.alive and node.stable.position < certificate.position <= len(node.log):
            node.stable = certificate
            self.say(f"n{node.index} stable {certificate.position}")
            self.step(node, Stable(self.now, certificate))

    def fetch(self, node: Node, refs: tuple[BatchRef, ...], sources: tuple[int, ...], *, asked: bool = False) -> None:
        life = node.life

        def try_one() -> None:
            if not node.alive or node.life != life:
                return
            found = [ref for ref in refs if ref.digest in node.bodies]
            lacking = [ref for ref in refs if ref.digest not in node.bodies]
            for source in sources:
                peer = self.nodes[source]
                if peer.alive and not self.faults.cut(source, node.index) and not self.faults.cut(node.index, source):
                    found += [peer.bodies[ref.digest] for ref in lacking if ref.digest in peer.bodies]
            executed = {ref.digest for entry in node.log for ref in entry.refs}
            new = {ref.digest: ref for ref in found if asked or ref.digest not in executed}
            if new:
                self.arrive(node, tuple(new.values()))

        self.at(2 * self.delay(), try_one)

    def offered(self, sender: int, receiver: int, refs: tuple[BatchRef, ...]) -> None:
        node = self.nodes[receiver]
        if not node.alive or self.faults.cut(sender, receiver) or self.random.random() < self.faults.loss:
            return
        new = tuple(ref for ref in refs if ref.digest not in node.bodies)
        if new:
            self.say(f"n{sender} offers {self.batches(new)} -> n{receiver}")
            self.fetch(node, new, (sender,))

    def sync(self, node: Node) -> None:
        if not node.alive:
            return
        life = node.life
        self.catch_up(node)
        if node.life == life:
            self.at(SYNC_MS, lambda: self.sync(node) if node.life == life else None)

    def catch_up(self, node: Node) -> None:
        """Copy the entries that another member has, as the replica's state exchange would."""
        if not node.alive:
            return
        peer = self.random.choice(self.nodes)
        if not peer.alive or (peer is not node and self.faults.cut(peer.index, node.index)):
            return
        if len(peer.log) <= len(node.log) or self.random.random() < self.faults.loss:
            return
        before = len(node.log)
        for entry in peer.log[before:]:
            node.bodies.update((ref.digest, ref) for ref in entry.refs)
            self.learn(node, entry)
        refs = tuple(ref for entry in node.log[before:] for ref in entry.refs)
        self.say(f"n{node.index} synced {len(node.log)}")
        self.step(node, Synced(self.now, len(node.log), refs, node.log[-1].proof))
        if peer.stable.position > node.stable.position:
            self.stabilize(node, peer.stable)

    # --- Words ---

    def batches(self, refs: tuple[BatchRef, ...]) -> str:
        return "[" + " ".join(self.names.get(ref.digest, ref.digest[:3].hex()) for ref in refs) + "]"

    def words(self, message: Any) -> str:
        """Say a message in a few words, without digests."""
        kind = type(message).__name__
        parts = [kind]
        if hasattr(message, "view"):
            parts.append(f"v{message.view}")
        if hasattr(message, "position"):
            parts.append(f"p{message.position}")
        if hasattr(message, "refs"):
            parts.append(self.batches(message.refs))
        if kind == "ViewChange":
            parts.append(f"h={message.checkpoint.position}")
            proofs = (f"p{proof.position}/v{proof.view}{self.batches(proof.refs)}" for proof in message.prepared)
            parts.append("P={" + " ".join(proofs) + "}")
        if kind == "NewView":
            parts.append("V={" + " ".join(f"n{name.signer}" for name in message.votes) + "}")
            parts.append("O={" + " ".join(f"p{p.position}{self.batches(p.refs)}" for p in message.proposals) + "}")
        if kind.endswith("Copy"):
            inner = getattr(message, "pre_prepare", None) or getattr(message, "new_view", None) or message.view_change
            parts.append(f"of n{message.signer}: {self.words(inner)}")
        return " ".join(parts)
