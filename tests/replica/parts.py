"""Replicas by hand: a scripted engine, a host that performs outputs in memory, and a network that the test drives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.batch import BatchBody, BatchRef, CommittedBatch, make_batch
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineSpec, EngineStatus, SigningRule
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.inputs import Received, TimerFired
from bftkit.core.log import CommitProof
from bftkit.core.membership import Member
from bftkit.core.outputs import Broadcast, Commit, Send, SetTimer
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import SignedMessage, Statement
from bftkit.replica.client_messages import (
    Envelope,
    OpenSession,
    ReadRequest,
    client_domain,
    envelope_statement,
    open_session_statement,
    read_statement,
)
from bftkit.replica.execution import Answer, Executor
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.inputs import Executed, PeerDown, PeerUp, SnapshotInstalled, SnapshotSaved, Submission, Submitted
from bftkit.replica.messages import SnapshotChunk
from bftkit.replica.outputs import (
    Append,
    Execute,
    Forget,
    InstallSnapshot,
    Loopback,
    Refuse,
    Report,
    SaveSnapshot,
    SendBody,
    SendSnapshotChunk,
    Trim,
)
from bftkit.replica.recovery import LoggedRecord, recover
from bftkit.replica.replica import Replica
from bftkit.replica.settings import ReplicaSettings, ReplicaTuning
from bftkit.wire.auth import SigningKey, verify

SIGNATURE = bytes(64)
KEYS = [SigningKey(bytes([index + 1]) * 32) for index in range(7)]
CLIENT = SigningKey(b"c" * 32)


# --- A scripted engine -----------------------------------------------------------------------------------------------


class Note(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="note"):
    """An unsigned message of the scripted engine."""

    text: str


class Vote(SignedMessage, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="vote"):
    """A signed one."""

    view: int
    position: int
    content: bytes
    kind: str = "vote"
    signature: bytes = b""

    def statement(self) -> Statement:
        return Statement(self.kind, self.view, self.position, self.content)


class Mark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="mark"):
    """A record of the scripted engine."""

    number: int


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has none."""


class ScriptedEngine:
    """Does what the test tells it, and remembers what it was told."""

    def __init__(self, checkpoint: CheckpointCertificate, records: Sequence[Any]) -> None:
        self.checkpoint = checkpoint
        self.records = list(records)
        self.inputs: list[Any] = []
        self.on_start: list[Any] = []
        self.react: Callable[[Any], list[Any]] = lambda event: []
        self.status_now = EngineStatus(0, 0, 0, "normal")

    def start(self, now: int) -> list[Any]:
        return self.on_start

    def step(self, event: Any) -> list[Any]:
        self.inputs.append(event)
        return self.react(event)

    @property
    def view(self) -> int:
        return self.status_now.view

    def status(self) -> EngineStatus:
        return self.status_now

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.inputs if isinstance(event, kind)]


def scripted_spec(
    fault_model: FaultModel = FaultModel.BYZANTINE, window: int = 0, **signing: SigningRule
) -> EngineSpec:
    return EngineSpec(
        name="scripted",
        version="1",
        fault_model=fault_model,
        messages=Note | Vote,
        records=Mark,
        options_type=Options,
        build=lambda context, genesis, checkpoint, records: ScriptedEngine(checkpoint, records),
        check=lambda context, sender, message: None,
        claims=lambda sender, message: (),
        references=lambda message: (),
        lane_key=lambda message: b"",
        commit_problem=lambda context, entry: "a bad proof" if entry.proof.links == b"bad" else None,
        signing=signing or {"vote": SigningRule(), "leave": SigningRule(guarded=False, raises_floor=0)},
        window=lambda context: window,
    )


# --- Settings and batches --------------------------------------------------------------------------------------------

LIMITS = Limits(
    max_command_bytes=64,
    max_batch_bytes=4096,
    checkpoint_interval=4,
    max_sessions=4,
    session_window=16,
    session_reply_bytes=256,
)


def genesis_of(members: int = 4, limits: Limits = LIMITS, spec: EngineSpec | None = None) -> Genesis:
    spec = spec or scripted_spec()
    named = tuple(Member(f"n{index}", KEYS[index].public_key) for index in range(members))
    config = EpochConfig("test", 0, 0, spec.name, spec.version, spec.fault_model, canonical(Options()), named, limits)
    return Genesis(config, EMPTY_CHECKPOINT)


def settings_of(
    own: int = 0,
    members: int = 4,
    *,
    limits: Limits = LIMITS,
    tuning: ReplicaTuning | None = None,
    spec: EngineSpec | None = None,
) -> ReplicaSettings:
    spec = spec or scripted_spec()
    return ReplicaSettings(own, spec, genesis_of(members, limits, spec), Options(), tuning)


def body_of(text: str, origin: int = 1, count: int = 1) -> BatchBody:
    """A batch whose content nobody will be able to execute."""
    return make_batch(0, origin, [canonical(text)], count)


def certified(checkpoint: Checkpoint, members: int = 4, signers: Iterable[int] = (0, 1, 2)) -> CheckpointCertificate:
    votes = dict.fromkeys(signers, SIGNATURE)
    return CheckpointCertificate(checkpoint, QuorumCertificate.of(checkpoint.statement(), votes, members))


def checkpoint_at(position: int, height: int = 0, root: bytes = b"r" * 32) -> Checkpoint:
    return Checkpoint(position, height, root, root, root)


# --- Clients ---------------------------------------------------------------------------------------------------------

DOMAIN = client_domain("test", 0)


def open_session(key: SigningKey = CLIENT, nonce: bytes = bytes(16)) -> OpenSession:
    return OpenSession(key.public_key, nonce, key.sign(open_session_statement(DOMAIN, key.public_key, nonce)))


def envelope(
    session: tuple[int, int],
    first: int,
    commands: Sequence[bytes],
    acknowledged: int = 0,
    *,
    key: SigningKey = CLIENT,
    count: int | None = None,
) -> Envelope:
    raw = canonical(list(commands))
    count = len(commands) if count is None else count
    signature = key.sign(envelope_statement(DOMAIN, session, first, count, acknowledged, raw))
    return Envelope(session, first, count, acknowledged, msgspec.Raw(raw), signature)


def read_request(request: bytes = b"", nonce: bytes = bytes(16), *, key: SigningKey = CLIENT) -> ReadRequest:
    signature = key.sign(read_statement(DOMAIN, key.public_key, nonce, request))
    return ReadRequest(key.public_key, nonce, request, signature)


def batch_of(*requests: Any, origin: int = 1, count: int | None = None) -> BatchBody:
    total = sum(getattr(request, "count", 1) for request in requests)
    return make_batch(0, origin, [canonical(request) for request in requests], total if count is None else count)


class Journal:
    """A state machine that keeps everything: its state is the list of its commands."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        results = []
        for command in batch.commands:
            self.commands.append(command)
            results.append(b"%d:%s" % (len(self.commands), command))
        return results

    def state_root(self) -> bytes:
        return sha256(canonical(self.commands)).digest()

    def snapshot(self) -> bytes:
        return canonical(self.commands)

    def restore(self, data: bytes) -> None:
        self.commands = msgspec.msgpack.decode(data, type=list[bytes])


# --- A host and a network --------------------------------------------------------------------------------------------


class Host:
    """One replica with its log, bodies and application, all in memory; what it sends waits for the network."""

    def __init__(
        self,
        settings: ReplicaSettings,
        *,
        records: Sequence[LoggedRecord] = (),
        snapshot: tuple[CheckpointCertificate, bytes] | None = None,
        application: Any = None,
    ) -> None:
        self.settings = settings
        self.records = list(records)
        self.saved = snapshot
        self.bodies: dict[bytes, BatchBody] = {}
        self.executor = Executor(application or Journal(), settings.genesis, verify)
        if snapshot is not None:
            self.executor.restore(snapshot[1])
        next_index = self.records[-1].index + 1 if self.records else 1
        base = (snapshot[0], len(snapshot[1])) if snapshot else None
        recovered = recover(settings, base, self.records, next_index)
        self.replica: Replica = recovered.replica
        self.engine: ScriptedEngine = self.replica.engine  # type: ignore[assignment]
        self.uncommitted = recovered.uncommitted
        for record in self.records:
            if record.kind == 2:
                from bftkit.core.batch import open_body
                from bftkit.replica.records import split_body

                body = open_body(*split_body(record.payload))
                self.bodies[body.ref.digest] = body
        self.gate = DurabilityGate(self._append, next_index - 1)
        self.durable = len(self.records)
        """How many records are on the disk."""
        self.durable_when_saved = 0
        """How many were when the last snapshot was saved."""
        self.now = 0
        self.sent: deque[tuple[int, Any]] = deque()
        self.outputs: list[Any] = []
        self.answers: list[Answer] = []
        self.kept: dict[int, bytes] = {}
        self.timers: dict[str, int] = {}
        self.executing = True
        """Whether decided batches are executed at once; else they wait in `jobs`."""
        self.jobs: list[Any] = []

    @property
    def own(self) -> int:
        return self.settings.own

    def start(self) -> list[Any]:
        return self._perform(self.gate.offer(self.replica.start(self.now, self.uncommitted)))

    def step(self, event: Any) -> list[Any]:
        """Give one input, and all that comes back of itself; return what was performed."""
        return self._perform(self.gate.offer(self.replica.step(event)))

    def submit(self, *submissions: Submission) -> list[Any]:
        return self.step(Submitted(self.now, submissions))

    def request(self, request: Any, token: int = 0) -> list[Any]:
        data = canonical(request)
        return self.submit(Submission(token, sha256(data).digest(), data, getattr(request, "count", 1)))

    def hear(self, sender: int, message: Any) -> list[Any]:
        return self.step(Received(self.now, sender, message))

    def fire(self, timer: str) -> list[Any]:
        """Let a timer run out that is set."""
        self.now = max(self.now, self.timers.pop(timer))
        return self.step(TimerFired(self.now, timer))

    def commit(self, *bodies: BatchBody | BatchRef, proof: CommitProof | None = None) -> list[Any]:
        """Let the engine decide the next position."""
        refs = tuple(body if isinstance(body, BatchRef) else body.ref for body in bodies)
        return self.do(Commit(self.replica.commits.position + 1, refs, proof or CommitProof()))

    def do(self, *outputs: Any) -> list[Any]:
        """Let the engine put out something."""
        before, passed = self.engine.react, TimerFired(self.now, "go")
        self.engine.react = lambda event: list(outputs) if event == passed else []
        performed = self.step(TimerFired(self.now, "engine/go"))
        self.engine.react = before
        return performed

    def _append(self, output: Append) -> int:
        index = self.records[-1].index + 1 if self.records else 1
        payload = b"".join(bytes(part) for part in output.payload)
        self.records.append(LoggedRecord(index, output.kind, self.settings.epoch, payload))
        if output.ref is not None:
            self.bodies[output.ref.digest] = BatchBody(output.ref, bytes(output.payload[0]), output.payload[1])
        return index

    def _perform(self, ready: list[Any]) -> list[Any]:
        performed: list[Any] = []
        queue = deque(ready)
        while queue or self.gate.has_unsynced or self.gate.needs_sync:
            if not queue:
                self.durable = len(self.records)
                queue.extend(self.gate.durable(self.records[-1].index if self.records else 0))
                continue
            output = queue.popleft()
            performed.append(output)
            for event in self._one(output):
                queue.extend(self.gate.offer(self.replica.step(msgspec.structs.replace(event, now=self.now))))
        self.outputs += performed
        return performed

    def _one(self, output: Any) -> list[Any]:
        match output:
            case Send(to, message):
                self.sent.append((to, message))
            case Broadcast(message):
                message = _signed(message)
                self.sent.extend((peer, message) for peer in self.settings.others)
                return [Received(0, self.own, message)]
            case SendBody(to, ref):
                self.sent.append((to, self.bodies[ref.digest]))
            case SendSnapshotChunk(to, position, offset, length):
                if self.saved is not None and self.saved[0].position == position:
                    data = self.saved[1]
                    chunk = SnapshotChunk(position, len(data), offset, data[offset : offset + length])
                    self.sent.append((to, chunk))
            case SetTimer(timer, delay_ms):
                self.timers[timer] = self.now + delay_ms
            case Loopback(event):
                return [event]
            case Forget(digests):
                for digest in digests:
                    self.bodies.pop(digest, None)
            case Execute() | SaveSnapshot() | InstallSnapshot():
                if not self.executing:
                    self.jobs.append(output)
                    return []
                return self.run(output)
        return []

    def run(self, job: Any) -> list[Any]:
        """Do one job of the application; return what the replica is to be told."""
        match job:
            case Execute():
                for offset, ref in enumerate(job.refs):
                    blob = self.bodies[ref.digest].blob
                    self.answers += self.executor.execute(ref, blob, job.first_height + offset)
                if job.snapshot:
                    self.kept[job.position] = self.executor.snapshot()
                roots = self.executor.roots() if job.roots else (None, None)
                return [Executed(self.now, job.position, *roots)]
            case SaveSnapshot(certificate):
                self.saved = (certificate, self.kept.pop(certificate.position))
                self.durable_when_saved = self.durable
                return [SnapshotSaved(self.now, certificate, len(self.saved[1]))]
            case InstallSnapshot(certificate, data):
                whole, before = b"".join(data), self.executor.snapshot()
                problem = self._try(certificate.checkpoint, whole)
                if problem:
                    self.executor.restore(before)
                else:
                    self.saved = (certificate, whole)
                return [SnapshotInstalled(self.now, certificate, len(whole), problem)]
        raise AssertionError(job)

    def _try(self, checkpoint: Checkpoint, data: bytes) -> str:
        from bftkit.errors import BftkitError

        try:
            self.executor.restore(data)
        except BftkitError as error:
            return str(error)
        good = (self.executor.height, *self.executor.roots()) == (
            checkpoint.height,
            checkpoint.state_root,
            checkpoint.sessions_root,
        )
        return "" if good else "other roots"

    def restarted(self, records: int | None = None) -> Host:
        """Return the next life of this replica, with the first so many records of its log."""
        kept = self.records if records is None else self.records[:records]
        return Host(self.settings, records=kept, snapshot=self.saved)

    def of(self, kind: type) -> list[Any]:
        """Everything of a type that was performed so far."""
        return [output for output in self.outputs if isinstance(output, kind)]

    def reports(self, event: str) -> list[Report]:
        return [report for report in self.of(Report) if report.event == event]

    def messages(self, kind: type) -> list[tuple[int, Any]]:
        """What waits to be delivered."""
        return [(to, message) for to, message in self.sent if isinstance(message, kind)]


def _signed(message: Any) -> Any:
    if isinstance(message, SignedMessage) and not message.signature:  # type: ignore[attr-defined]
        return msgspec.structs.replace(message, signature=SIGNATURE)
    return message


class Net:
    """Hosts that are all connected; `run` delivers until nothing is on its way."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self.hosts = {host.own: host for host in hosts}
        self.delivered: list[tuple[int, int, Any]] = []
        self.lose: Callable[[int, int, Any], bool] = lambda sender, to, message: False

    def start(self) -> Net:
        for host in self.hosts.values():
            host.start()
        for host in self.hosts.values():
            for peer in self.hosts:
                if peer != host.own:
                    host.step(PeerUp(host.now, peer))
        return self

    def part(self, one: int, other: int) -> None:
        self.hosts[one].step(PeerDown(self.hosts[one].now, other))
        self.hosts[other].step(PeerDown(self.hosts[other].now, one))

    def run(self, limit: int = 10_000) -> None:
        for _ in range(limit):
            sender = next((host for host in self.hosts.values() if host.sent), None)
            if sender is None:
                return
            to, message = sender.sent.popleft()
            if to in self.hosts and not self.lose(sender.own, to, message):
                self.delivered.append((sender.own, to, message))
                self.hosts[to].hear(sender.own, message)
        raise AssertionError("the network does not fall silent")

    def tick(self, rounds: int = 1) -> None:
        """Let every timer that is set run out, and deliver what comes of it."""
        for _ in range(rounds):
            for host in self.hosts.values():
                for timer in list(host.timers):
                    host.fire(timer)
            self.run()


def refusals(outputs: Iterable[Any]) -> list[Refuse]:
    return [output for output in outputs if isinstance(output, Refuse)]


def trims(host: Host) -> list[int]:
    return [output.below_index for output in host.of(Trim)]
