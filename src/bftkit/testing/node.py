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
from bftkit.errors import StorageError, StorageFull, WireError
from bftkit.replica.execution import Executor
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.inputs import PeerDown, PeerUp
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
from bftkit.replica.records import RecordKind
from bftkit.replica.recovery import LoggedRecord, recover
from bftkit.replica.replica import Replica
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.application import ApplicationStage, restore_newest
from bftkit.runtime.failpoint_storage import StorageFailpoints
from bftkit.runtime.node import LOG_DIRECTORY, SNAPSHOT_DIRECTORY, identity_of
from bftkit.runtime.payload_store import PayloadStore
from bftkit.runtime.shard import FULL_DISK_RETRY_S, IDLE_SYNC_MS
from bftkit.storage.log import Log
from bftkit.storage.snapshots import SnapshotStore
from bftkit.testing.application import FINE, SimulatedApplication
from bftkit.testing.checkers import Violation
from bftkit.testing.clock import TRUE_RATE, VirtualClock
from bftkit.testing.crash_plan import CrashPlan
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk
from bftkit.testing.durability import DurabilityAudit
from bftkit.testing.edge import SimulatedEdge
from bftkit.testing.frames import FrameCodec
from bftkit.testing.machine import WatchedMachine
from bftkit.testing.nemesis import LONGEST_STALL_US
from bftkit.testing.network import SpoiltFrame
from bftkit.testing.timers import SimulatedTimers
from bftkit.testing.verify_stage import VerifyStage
from bftkit.testing.voice import Voice

if TYPE_CHECKING:
    from bftkit.testing.byzantine import Behaviour
    from bftkit.testing.nemesis import Fault
    from bftkit.testing.world import World

SYNC_TIMER = "node/sync"
"""Records that nobody waits for are synced when it runs out."""

MEMORY_BYTES = 8_192
"""Bodies kept beside the log: few, so that they are read back from it."""


class SimulatedNode:
    """A member's machine: its disk lasts, everything else begins again with each life."""

    gate: DurabilityGate
    replica: Replica
    executor: Executor

    def __init__(self, world: "World", settings: ReplicaSettings, instance: int) -> None:
        self.world = world
        self.settings = settings
        self.index = settings.own
        """Whose key it holds."""
        self.instance = instance
        """Its place in the network; only twins differ from each other in nothing else."""
        self.honest = True
        """Whether the checkers hold it to the rules."""
        self.rotten = False
        """Whether its disk was damaged: it may stop for good."""
        self.forgetful = False
        """Whether that was its memory: it may have forgotten what it signed."""
        self.stopped = ""
        """Why it has stopped for good; empty while it may still be started."""
        self.rewrite: Callable[[list[Any]], list[Any]] | None = None
        """What a faulty member makes of its outputs before they are performed."""
        self.speak: Behaviour | None = None
        """What a faulty member makes of each message before it is signed and sent."""
        self.alive = False
        self.life = 0
        self.steps = 0
        """Inputs that its replica has handled, in all lives."""
        self.disk = SimulatedDisk(world.choices.random("disk", instance))
        self.plan = CrashPlan(world.hits)
        self.paused_until_us = 0
        codec = FrameCodec(settings, world.signatures.verify) if world.profile.encoded else None
        self._voice = Voice(self, codec)
        self.verify_stage = VerifyStage(settings, world.signatures.verify)
        self._open = codec.open if codec is not None else self.verify_stage.open
        self._clock_rate = world.choices.clock.among("rate", instance, world.profile.clock_rates)
        if self._clock_rate != TRUE_RATE:
            world.hits["clock_rates"] += 1
        self._promised = 0
        """Highest index that any life of this member took for durable."""
        self.trimmed_below = 0
        """Index below which its log was trimmed last."""

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Come up with what the disk holds."""
        self.life += 1
        self.alive = True
        if self.plan.in_recovery:
            self.disk.crash_after(self.plan.in_recovery.pop(), self.plan.in_recovery_happens)
        if self.plan.armed:
            self._watch_disk()
        self._guarded(self._start)

    def _start(self) -> None:
        world, settings = self.world, self.settings
        if self.honest:
            world.checkers.lost_memory(self.index)
        offset_ms = 10_000 * world.choices.clock.below("offset", self.instance, 1_000)
        self.clock = VirtualClock(world.events, offset_ms, self._clock_rate)
        self.timers = SimulatedTimers(self, world.profile.late_timers, self._fire)
        self._local: deque[Any] = deque()
        self._syncing = False
        self._trim_below = 0
        identity = identity_of(settings.genesis, settings.membership.name(self.index))
        self.log = Log.open(
            self.disk,
            LOG_DIRECTORY,
            identity,
            indexed_kinds=(RecordKind.BODY,),
            segment_bytes=world.profile.segment_bytes,
        )
        if self.log.durable_index < self._promised:
            world.forgot(self, f"n{self.index} lost records up to {self._promised} that it took for durable")
        self._snapshots = SnapshotStore(self.disk, SNAPSHOT_DIRECTORY)
        watching = world.checkers if self.honest else None
        must_answer = world.make_query is not None
        self.machine = WatchedMachine(world.make_machine(), watching, self.index, must_answer=must_answer)
        self.executor = Executor(self.machine, settings.genesis, world.signatures.verify)
        snapshot = restore_newest(self.executor, self._snapshots)
        self._payloads = PayloadStore(self.log, MEMORY_BYTES)
        records = (LoggedRecord(item.index, item.kind, item.epoch, item.payload) for item in self.log.records())
        recovered = recover(settings, snapshot, records, self.log.next_index)
        self.replica = recovered.replica
        for digest, index in self.replica.payloads.indices():
            self._payloads.recovered(digest, index)
        if self.honest:
            world.checkers.bodies_found(self.index, [digest for digest, _ in self.replica.payloads.indices()])
            world.checkers.state_found(self.index, snapshot[0].checkpoint.height if snapshot is not None else 0)
        stage = ApplicationStage(
            self.executor, self._payloads, self._snapshots, self.clock, lambda outcome: None, self.plan.reached
        )
        self.application = SimulatedApplication(self, stage)
        self.edge = SimulatedEdge(self)
        self._perform = self._handlers()
        self.gate = DurabilityGate(self._append, self.log.durable_index)
        self._audit = DurabilityAudit(self.index, self.log.durable_index)
        self.plan.reached("node.after_recovery")
        self._outputs(self.replica.start(self.clock.now_ms(), recovered.uncommitted))
        self._end_turn()
        self.plan.reached("node.before_listen")
        world.started(self)
        self.plan.reached("node.after_listen")

    def arm(self, failpoint: str, hits: int = 1, fault: "Fault | None" = None) -> None:
        """Let this member crash when it passes a place that has a name for the so-manieth time.

        The fault says what the crash leaves and how long it lasts; without one it is like a crash that nobody planned.
        """
        self.plan.arm(failpoint, hits, fault)
        self._watch_disk()

    def _watch_disk(self) -> None:
        places = StorageFailpoints(self.plan.reached)
        self.disk.before, self.disk.after = places.before, places.after

    def crash(self, mode: CrashMode) -> bool:
        """Lose everything but what the disk keeps; say whether that is less than was written."""
        self.alive = False
        self.life += 1
        self.paused_until_us = 0
        self.plan.crashed()
        self.disk.before = self.disk.after = None
        return self.disk.crash(mode, self.world.choices.random("crash", self.instance, self.life))

    def no_more_faults(self) -> None:
        """Forget the faults that were to come, and end those that last."""
        self.plan.clear()
        self.disk.before = self.disk.after = None
        self.paused_until_us = 0
        self.disk.no_more_faults()
        self.disk.take_latency_us()

    def later(self, delay_us: int, function: Callable[..., None], *arguments: Any, kind: str = "member") -> None:
        """Let something happen to this member, unless its life ends before; an adversary is told what kind it is."""
        self.world.events.due(kind, self.instance, delay_us, self._enter, self.life, function, arguments)

    def _enter(self, life: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life == self.life and self.alive:
            if self.paused_until_us:
                self._awake(function, *arguments)
            else:
                self._guarded(function, *arguments)

    def _awake(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run one event now, or when this member stands still no longer."""
        pause_us = self.paused_until_us - self.world.events.now_us
        if pause_us > 0:
            self.later(pause_us, function, *arguments)
        else:
            self.paused_until_us = 0
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
            if self.disk.failed or (isinstance(error, StorageFull) and not self.world.healed):
                self.world.crashed(self)
            elif self.rotten:
                self.world.stopped(self, str(error))
            else:
                raise Violation(f"n{self.index} stops: {error}") from error
        except Exception as error:
            if isinstance(error.__cause__, Violation):
                # Found while the application executed; the executor takes everything for the application's fault.
                raise error.__cause__ from None
            if not self.rotten:
                raise Violation(f"n{self.index} raised {error!r}") from error
            self.world.stopped(self, repr(error))

    @property
    def is_still(self) -> bool:
        """Say whether nothing will happen here without somebody who comes."""
        return not (self.timers.running or self.application.busy or self.awaits_disk)

    @property
    def awaits_disk(self) -> bool:
        """Say whether something will happen here once the log has reached the disk."""
        return self._syncing or self.gate.depth > 0

    # -- inputs -----------------------------------------------------------------------------------

    def deliver(self, sender: int, message: Any) -> None:
        """Take a message from the network."""
        if self.alive:
            if self.paused_until_us:
                self._awake(self._receive, sender, message)
            else:
                self._guarded(self._receive, sender, message)

    def channel(self, peer: int, up: bool) -> None:
        """Note that the channel to a peer has opened or is gone."""
        if self.alive:
            self._awake(self._note_channel, peer, up)

    def _note_channel(self, peer: int, up: bool) -> None:
        now = self.clock.now_ms()
        self.turn(PeerUp(now, peer) if up else PeerDown(now, peer))

    def submit(self, token: int, data: bytes) -> None:
        """Take an encoded client request, as the client edge does."""
        if self.alive:
            self._awake(self.edge.submit, token, data)

    def read(self, public_key: bytes, data: bytes) -> None:
        """Take an encoded question of a client who believes this member alone."""
        if self.alive:
            self._awake(self.edge.read, public_key, data)

    def _receive(self, sender: int, message: Any) -> None:
        opened, problem = message, ""
        try:
            opened = self._open(sender, message)
        except WireError as error:
            problem = str(error)
        if type(message) is SpoiltFrame:
            # Whatever it has become, the channel's own checksum ends the connection.
            self.world.spoilt(self, sender)
            return
        self.world.trace("m", self.instance, sender, type(opened).__name__)
        if not problem:
            self.turn(Received(self.clock.now_ms(), sender, opened))
        elif self.world.is_trusted(sender):
            raise Violation(f"n{self.index} refuses what n{sender} sent: {problem}: {opened}")

    def leap(self, ms: int) -> None:
        """Let this member's clock go forward at once; timers whose deadline that passes run out."""
        self.clock.leap(ms)
        self.timers.leap()

    # -- turns ------------------------------------------------------------------------------------

    def turn(self, *events: Any) -> None:
        """Give inputs to the replica, and perform what it wants done."""
        wants = False
        for event in events:
            wants |= self._step(event)
        if wants:
            self._end_turn()
        elif self.honest:
            self.world.checkers.stepped(self)

    def _step(self, event: Any) -> bool:
        """Give one input to the replica; say whether it wants anything done."""
        self.steps += 1
        outputs = self.replica.step(event)
        if outputs:
            self._outputs(outputs)
        return bool(outputs)

    def _end_turn(self) -> None:
        while self._local:
            self._step(msgspec.structs.replace(self._local.popleft(), now=self.clock.now_ms()))
        self._sync_if_wanted()
        if self.honest:
            self.world.checkers.stepped(self)

    def _outputs(self, outputs: list[Any]) -> None:
        if self.rewrite is not None:
            outputs = self.rewrite(outputs)
        self._audit.offered(outputs, self.log.durable_index)
        for output in self.gate.offer(outputs):
            self._do(output)

    def _do(self, output: Any) -> None:
        self.plan.performing()
        self._audit.performing(output, self.log.durable_index)
        self._perform[type(output)](output)

    # -- the disk ---------------------------------------------------------------------------------

    def _append(self, output: Append) -> int:
        ref = output.ref
        index = self.log.append(
            output.kind, self.settings.epoch, output.payload, ref.digest if ref is not None else None
        )
        if ref is not None:
            self._payloads.add(ref, index, bytes(output.payload[0]), output.payload[1])
            if self.honest:
                self.world.checkers.body_appended(self.index, ref.digest, index)
        return index

    def _sync_if_wanted(self) -> None:
        if self._syncing:
            return
        if self.gate.needs_sync or self._trim_below:
            self._syncing = True
            stream = self.world.choices.disk
            least, spread = self.world.profile.sync_us
            delay_us = least + spread * stream.below("sync", self.instance, FINE) // FINE
            # A crash between the write and its report finds the records on the disk; one before it does not.
            durable = self._flush() if stream.chance("early", self.instance, 0.5) else None
            self.later(delay_us + self.disk_time_us(), self._synced, durable, kind="disk")
        elif self.gate.has_unsynced and SYNC_TIMER not in self.timers:
            self.timers.set(SetTimer(SYNC_TIMER, IDLE_SYNC_MS))

    def disk_time_us(self) -> int:
        """Return how much longer than usual the disk has taken since this was asked last."""
        if not self.disk.latency_us:
            return 0
        self.world.hits["stalled_disks"] += 1
        return min(self.disk.take_latency_us(), LONGEST_STALL_US)

    def _flush(self) -> int | None:
        """Make durable what was appended, and trim; None where there is no space, and nothing has changed."""
        self.plan.reached("shard.before_sync")
        try:
            durable = self.log.flush_and_sync()
            self._promised = durable
            below, self._trim_below = self._trim_below, 0
            if below:
                self.plan.reached("shard.before_trim")
                self.log.trim(below)
                self.trimmed_below = below
        except StorageFull:
            self.world.counters["disk full"] += 1
            return None
        if self.honest:
            self.world.checkers.durable(self.index, durable)
            self.world.checkers.recorded(self)
        self.plan.reached("shard.after_sync")
        return durable

    def _synced(self, durable: int | None) -> None:
        if durable is None:
            durable = self._flush()
        wait_us = int(FULL_DISK_RETRY_S * 1_000_000) if durable is None else self.disk_time_us()
        if durable is None or wait_us:
            self.later(wait_us, self._synced, durable, kind="disk")
            return
        self._syncing = False
        for output in self.gate.durable(durable):
            self._do(output)
        self._end_turn()

    # -- outputs ----------------------------------------------------------------------------------

    def _handlers(self) -> dict[type, Callable[[Any], None]]:
        return {
            Send: self._send,
            Broadcast: self._broadcast,
            SetTimer: self.timers.set,
            CancelTimer: self.timers.cancel,
            Loopback: lambda output: self._local.append(output.event),
            Execute: self._execute,
            SendBody: self._send_body,
            Forget: lambda output: self._payloads.forget(output.digests),
            SaveSnapshot: self.application.put,
            InstallSnapshot: self.application.put,
            SendSnapshotChunk: self._send_chunk,
            Trim: self._trim,
            Refuse: lambda output: self.world.refused(self.index, output.token, output.reason, output.retry_after_ms),
            Report: lambda output: self.world.reported(self, output),
            ReadReady: self._read_ready,
        }

    def _send(self, output: Send) -> None:
        message = self._voice.signed(output.message)
        if output.to == self.index:
            self._local.append(Received(0, self.index, message))
        else:
            self._voice.say((output.to,), message)

    def _broadcast(self, output: Broadcast) -> None:
        message = self._voice.signed(output.message)
        self._voice.say(self.settings.others, message)
        self._local.append(Received(0, self.index, message))

    def _send_body(self, output: SendBody) -> None:
        body = self._payloads.get(output.ref.digest)
        if body is not None:
            self._voice.say((output.to,), BatchBody(output.ref, *body))

    def _send_chunk(self, output: SendSnapshotChunk) -> None:
        snapshot = self.replica.snapshot_at(output.position)
        if snapshot is None:
            return
        certificate, size = snapshot
        data = self._snapshots.read(certificate.checkpoint.height, output.offset, output.length)
        if data:
            self._voice.say((output.to,), SnapshotChunk(output.position, size, output.offset, data))

    def _fire(self, timer: str) -> None:
        if timer == SYNC_TIMER:
            if not self._syncing:
                self._syncing = True
                self._synced(None)
            return
        self.world.trace("t", self.instance, 0, timer)
        self.turn(TimerFired(self.clock.now_ms(), timer))

    def _read_ready(self, output: ReadReady) -> None:
        question = self.edge.ready(output)
        if question is not None:
            self._local.append(question)

    def _trim(self, output: Trim) -> None:
        self._trim_below = max(self._trim_below, output.below_index)

    def _execute(self, output: Execute) -> None:
        if self.honest:
            self.world.checkers.executing(self.index, output)
        self.world.trace("x", self.instance, output.position, output.refs[0].digest if output.refs else b"")
        self.application.put(output)
