"""One simulated member: the second interpreter of a replica's outputs, beside the real shell.

Everything but time, network, disk and keys is real: the replica, the durability gate, the log, the
snapshots, the payload store, the jobs of the application stage and the recovery after a crash.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.core.batch import BatchBody
from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Broadcast, CancelTimer, ReadReady, Send, SetTimer
from bftkit.core.statement import SignedMessage, statement_bytes
from bftkit.errors import BftkitError, StorageError, WireError
from bftkit.replica.client_messages import Envelope, client_domain, decode_request, request_key, request_statement
from bftkit.replica.execution import Executor
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.inputs import Executed, PeerDown, PeerUp, SnapshotInstalled, Submission, Submitted
from bftkit.replica.messages import AnyReplicaMessage, SnapshotChunk, message_claims, message_problem
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
from bftkit.replica.records import RecordKind
from bftkit.replica.recovery import LoggedRecord, recover
from bftkit.replica.replica import Replica
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.application import MAX_TAKEN, ApplicationStage, restore_newest
from bftkit.runtime.node import LOG_DIRECTORY, SNAPSHOT_DIRECTORY, identity_of
from bftkit.runtime.payload_store import PayloadStore
from bftkit.runtime.shard import IDLE_SYNC_MS
from bftkit.runtime.timers import draw
from bftkit.storage.log import Log
from bftkit.storage.snapshots import SnapshotStore
from bftkit.testing.checkers import Violation, WatchedMachine
from bftkit.testing.clock import VirtualClock
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk
from bftkit.testing.frames import FrameCodec

if TYPE_CHECKING:
    from bftkit.testing.nemesis import Fault
    from bftkit.testing.world import World

SYNC_TIMER = "node/sync"
"""Records that nobody waits for are synced when it runs out."""

MEMORY_BYTES = 8_192
"""Bodies kept beside the log: few, so that they are read back from it."""

_INVISIBLE = (SetTimer, CancelTimer, Forget)
_REPLICA_TYPES = frozenset(AnyReplicaMessage.__args__)


class SimulatedNode:
    """A member's machine: its disk lasts, everything else begins again with each life."""

    gate: DurabilityGate
    replica: Replica

    def __init__(self, world: "World", settings: ReplicaSettings) -> None:
        self.world = world
        self.settings = settings
        self.index = settings.own
        self.honest = True
        """Whether the checkers hold it to the rules."""
        self.rewrite: Callable[[list[Any]], list[Any]] = lambda outputs: outputs
        """What a faulty member makes of its outputs before they are performed."""
        self.alive = False
        self.life = 0
        self.disk = SimulatedDisk(world.streams.disk)
        self.disk_fails = False
        """Whether a failure of this disk was injected and has not shown yet."""
        self.outputs_left = -1
        """Outputs until a crash; negative for none."""
        self.next_crash: Fault | None = None
        """What the next crash in the middle of something leaves, and how long it lasts."""
        self._public_key = settings.membership.public_key(settings.own)
        self._domain = settings.domain
        self._client_domain = client_domain(settings.genesis.config.cluster, settings.genesis.config.group)
        self._codec = FrameCodec(settings, world.registry) if world.profile.encoded else None
        self._perform: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Broadcast: self._broadcast,
            SetTimer: self._set_timer,
            CancelTimer: self._cancel_timer,
            Loopback: lambda output: self._local.append(output.event),
            Execute: self._execute,
            SendBody: self._send_body,
            Forget: lambda output: self._payloads.forget(output.digests),
            SaveSnapshot: self._to_application,
            InstallSnapshot: self._to_application,
            SendSnapshotChunk: self._send_chunk,
            Trim: self._trim,
            Refuse: lambda output: None,
            Report: self._report,
            ReadReady: lambda output: None,
        }
        self._promised = 0
        """Highest index that any life of this member took for durable."""

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Come up with what the disk holds."""
        self.life += 1
        self.alive = True
        self._guarded(self._start)

    def _start(self) -> None:
        world, settings = self.world, self.settings
        world.checkers.restarted(self.index)
        self.clock = VirtualClock(world.events, world.streams.jitter.randrange(10_000_000))
        self._timers: dict[str, int] = {}
        self._timer_count = 0
        self._local: deque[Any] = deque()
        self._jobs: deque[Any] = deque()
        self._working = self._syncing = False
        self._trim_below = 0
        self._owed: dict[int, int] = {}
        identity = identity_of(settings.genesis, settings.membership.name(self.index))
        self.log = Log.open(
            self.disk,
            LOG_DIRECTORY,
            identity,
            indexed_kinds=(RecordKind.BODY,),
            segment_bytes=world.profile.segment_bytes,
        )
        if self.log.durable_index < self._promised:
            raise Violation(f"n{self.index} lost records up to {self._promised} that it took for durable")
        self._snapshots = SnapshotStore(self.disk, SNAPSHOT_DIRECTORY)
        self.machine = world.make_machine()
        watched = WatchedMachine(self.machine, world.checkers, self.index) if self.honest else self.machine
        self.executor = Executor(watched, settings.genesis, world.registry.verify)
        snapshot = restore_newest(self.executor, self._snapshots)
        self._payloads = PayloadStore(self.log, MEMORY_BYTES)
        records = (LoggedRecord(item.index, item.kind, item.epoch, item.payload) for item in self.log.records())
        recovered = recover(settings, snapshot, records, self.log.next_index)
        self.replica = recovered.replica
        for digest, index in self.replica.payloads.indices():
            self._payloads.recovered(digest, index)
        self._stage = ApplicationStage(self.executor, self._payloads, self._snapshots, self.clock, lambda outcome: None)
        self.gate = DurabilityGate(self._append, self.log.durable_index)
        self._appended = self._barrier = self.log.durable_index
        self._outputs(self.replica.start(self.clock.now_ms(), recovered.uncommitted))
        self._end_turn()
        world.started(self)

    def crash(self, mode: CrashMode) -> None:
        """Lose everything but what the disk keeps."""
        self.alive = False
        self.life += 1
        self.outputs_left = -1
        self.disk_fails = False
        self.disk.crash(mode)

    def no_more_faults(self) -> None:
        """Forget the faults that were to come."""
        self.outputs_left = -1
        self.next_crash = None
        self.disk.no_more_faults()

    def later(self, delay_us: int, function: Callable[..., None], *arguments: Any) -> None:
        """Let something happen to this member, unless its life ends before."""
        self.world.events.after(delay_us, self._enter, self.life, function, arguments)

    def _enter(self, life: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life == self.life and self.alive:
            self._guarded(function, *arguments)

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run one event of this member; what it raises is a crash that was planned, or a finding."""
        try:
            function(*arguments)
        except SimulatedCrash:
            self.world.crashed(self)
        except Violation:
            raise
        except StorageError as error:
            if not self.disk_fails:
                raise Violation(f"n{self.index} stops: {error}") from error
            self.world.crashed(self)
        except (
            BftkitError,
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise Violation(f"n{self.index} raised {error!r}") from error

    @property
    def has_plans(self) -> bool:
        """Say whether anything will happen here without a message from outside."""
        return bool(self._timers or self._jobs or self._working or self._syncing or self.gate.depth)

    # -- inputs -----------------------------------------------------------------------------------

    def deliver(self, sender: int, message: Any) -> None:
        """Take a message from the network."""
        if self.alive:
            self._guarded(self._receive, sender, message)

    def channel(self, peer: int, up: bool) -> None:
        """Note that the channel to a peer has opened or is gone."""
        if self.alive:
            now = self.clock.now_ms()
            self._guarded(self._turn, PeerUp(now, peer) if up else PeerDown(now, peer))

    def submit(self, token: int, data: bytes) -> None:
        """Take an encoded client request, as the client edge does."""
        if self.alive:
            self._guarded(self._submit, token, data)

    def _submit(self, token: int, data: bytes) -> None:
        request = decode_request(data)
        if isinstance(request, Envelope):
            session = self.executor.sessions.get(request.session)
            if session is None:
                return
            public_key, count = session.public_key, request.count
        else:
            public_key, count = request.public_key, 1
        statement = request_statement(self._client_domain, request)
        if not self.world.registry.verify(public_key, statement, request.signature):
            raise Violation("a client's signature is not valid")
        submission = Submission(token, request_key(request), data, count)
        self._turn(Submitted(self.clock.now_ms(), (submission,)))

    def _receive(self, sender: int, message: Any) -> None:
        if self._codec is not None:
            try:
                message = self._codec.open(sender, message)
                problem = None
            except WireError as error:
                problem = str(error)
        else:
            problem = self._problem(sender, message)
        self.world.trace("m", self.index, sender, type(message).__name__)
        if problem is None:
            self._turn(Received(self.clock.now_ms(), sender, message))
        elif self.world.nodes[sender].honest:
            raise Violation(f"n{self.index} refuses what n{sender} sent: {problem}: {message}")

    def _problem(self, sender: int, message: Any) -> str | None:
        """Do what the verify stage does, to a message that was never encoded."""
        settings = self.settings
        if type(message) is BatchBody:
            return None
        claims = settings.spec.claims
        if type(message) in _REPLICA_TYPES:
            problem = message_problem(settings.context, settings.spec, message)
            claims = message_claims
        else:
            problem = settings.spec.check(settings.context, sender, message)
        if problem is not None:
            return problem
        verify, key = self.world.registry.verify, settings.membership.public_key
        for claim in claims(sender, message):
            if not verify(key(claim.signer), statement_bytes(self._domain, claim.statement), claim.signature):
                return f"a signature of n{claim.signer} is not valid"
        return None

    # -- turns ------------------------------------------------------------------------------------

    def _turn(self, *events: Any) -> None:
        for event in events:
            self._outputs(self.replica.step(event))
        self._end_turn()

    def _end_turn(self) -> None:
        while self._local:
            event = msgspec.structs.replace(self._local.popleft(), now=self.clock.now_ms())
            self._outputs(self.replica.step(event))
        self._sync_if_wanted()
        if self.honest:
            self.world.checkers.stepped(self)

    def _outputs(self, outputs: list[Any]) -> None:
        outputs = self.rewrite(outputs)
        self._note_barriers(outputs)
        for output in self.gate.offer(outputs):
            self._do(output)

    def _note_barriers(self, outputs: list[Any]) -> None:
        """Write down, independently of the gate, what must be durable before each output is performed."""
        for output in outputs:
            kind = type(output)
            if kind is Append:
                self._appended += 1
                if output.barrier:
                    self._barrier = self._appended
            elif kind is Loopback:
                self._owed[id(output)] = self._appended
            elif kind in _INVISIBLE:
                continue
            elif (kind is Send or kind is Broadcast) and output.early:
                if isinstance(output.message, SignedMessage):
                    raise Violation(f"n{self.index} lets a signed message overtake the disk: {output.message}")
            elif self._barrier > self.log.durable_index:
                self._owed[id(output)] = self._barrier

    def _do(self, output: Any) -> None:
        if self.outputs_left >= 0:
            self.outputs_left -= 1
            if self.outputs_left < 0:
                raise SimulatedCrash("in the middle of a step's outputs")
        owed = self._owed.pop(id(output), 0)
        if owed > self.log.durable_index:
            raise Violation(f"n{self.index} performs {type(output).__name__} before record {owed} is durable")
        self._perform[type(output)](output)

    # -- the disk ---------------------------------------------------------------------------------

    def _append(self, output: Append) -> int:
        ref = output.ref
        index = self.log.append(
            output.kind, self.settings.epoch, output.payload, ref.digest if ref is not None else None
        )
        if ref is not None:
            self._payloads.add(ref, index, bytes(output.payload[0]), output.payload[1])
        return index

    def _sync_if_wanted(self) -> None:
        if self._syncing:
            return
        if self.gate.needs_sync or self._trim_below:
            self._syncing = True
            random = self.world.streams.disk
            least, spread = self.world.profile.sync_us
            # A crash between the write and its report finds the records on the disk; one before it does not.
            durable = self._flush() if random.random() < 0.5 else None
            self.later(least + int(spread * random.random()), self._synced, durable)
        elif self.gate.has_unsynced and SYNC_TIMER not in self._timers:
            self._set_timer(SetTimer(SYNC_TIMER, IDLE_SYNC_MS))

    def _flush(self) -> int:
        durable = self.log.flush_and_sync()
        self._promised = durable
        below, self._trim_below = self._trim_below, 0
        if below:
            self.log.trim(below)
        return durable

    def _synced(self, durable: int | None) -> None:
        if durable is None:
            durable = self._flush()
        self._syncing = False
        for output in self.gate.durable(durable):
            self._do(output)
        self._end_turn()

    # -- outputs ----------------------------------------------------------------------------------

    def _signed(self, message: Any) -> Any:
        if not isinstance(message, SignedMessage) or getattr(message, "signature", None):
            return message
        statement = message.statement()
        if self.honest:
            self.world.checkers.signs(self.index, statement)
        signature = self.world.registry.sign(self._public_key, statement_bytes(self._domain, statement))
        return msgspec.structs.replace(message, signature=signature)

    def _send(self, output: Send) -> None:
        message = self._signed(output.message)
        if output.to == self.index:
            self._local.append(Received(0, self.index, message))
        else:
            self._post((output.to,), message)

    def _broadcast(self, output: Broadcast) -> None:
        message = self._signed(output.message)
        self._post(self.settings.others, message)
        self._local.append(Received(0, self.index, message))

    def _post(self, receivers: tuple[int, ...], message: Any) -> None:
        if self._codec is not None:
            message = self._codec.frame(message)
        send = self.world.network.send
        for receiver in receivers:
            send(self.index, receiver, message)

    def _send_body(self, output: SendBody) -> None:
        body = self._payloads.get(output.ref.digest)
        if body is not None:
            self._post((output.to,), BatchBody(output.ref, *body))

    def _send_chunk(self, output: SendSnapshotChunk) -> None:
        snapshot = self.replica.snapshot_at(output.position)
        if snapshot is None:
            return
        certificate, size = snapshot
        data = self._snapshots.read(certificate.checkpoint.height, output.offset, output.length)
        if data:
            self._post((output.to,), SnapshotChunk(output.position, size, output.offset, data))

    def _set_timer(self, output: SetTimer) -> None:
        self._timer_count += 1
        self._timers[output.timer] = self._timer_count
        delay_ms = draw(output.delay_ms, output.jitter_ms, self.world.streams.jitter)
        self.later(delay_ms * 1_000, self._fire, output.timer, self._timer_count)

    def _cancel_timer(self, output: CancelTimer) -> None:
        self._timers.pop(output.timer, None)

    def _fire(self, timer: str, count: int) -> None:
        if self._timers.get(timer) != count:
            return
        del self._timers[timer]
        if timer == SYNC_TIMER:
            if not self._syncing:
                self._synced(None)
            return
        self.world.trace("t", self.index, 0, timer)
        self._turn(TimerFired(self.clock.now_ms(), timer))

    def _trim(self, output: Trim) -> None:
        self._trim_below = max(self._trim_below, output.below_index)

    def _report(self, output: Report) -> None:
        self.world.reported(self, output)

    # -- the application --------------------------------------------------------------------------

    def _execute(self, output: Execute) -> None:
        if self.honest:
            self.world.checkers.executing(self.index, output)
        self.world.trace("x", self.index, output.position, output.refs[0].digest if output.refs else b"")
        self._to_application(output)

    def _to_application(self, job: Any) -> None:
        self._jobs.append(job)
        self._work_if_idle()

    def _work_if_idle(self) -> None:
        if self._working or not self._jobs:
            return
        self._working = True
        taken = [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_TAKEN))]
        least, spread = self.world.profile.apply_us
        self.later(least + int(spread * self.world.streams.disk.random()), self._worked, taken)

    def _worked(self, jobs: list[Any]) -> None:
        outcome = self._stage.work(jobs)
        self._working = False
        for answer in outcome.answers:
            if self.honest:
                self.world.checkers.answered(self.index, answer.reply)
            self.world.answer(self.index, answer)
        for event in outcome.events:
            if isinstance(event, Executed) and event.state_root is not None and self.honest:
                roots = (event.state_root, event.sessions_root or b"")
                self.world.checkers.roots_at_position(self.index, event.position, roots)
            if isinstance(event, SnapshotInstalled) and not event.problem:
                self.world.checkers.restarted(self.index)
                self.world.counters["state transfers"] += 1
        self._turn(*outcome.events)
        self._work_if_idle()
