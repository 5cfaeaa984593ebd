"""The shard: the single owner of a replica, and the interpreter of its outputs.

One turn drains the inbox, steps the replica for each input, performs what may be performed, and ends
with at most one write to each peer. The log is synced in a thread; what waits for it is performed when
the sync returns, while the loop goes on.
"""

import random
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from bftkit.core.batch import BatchBody
from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Broadcast, CancelTimer, ReadReady, Send, SetTimer
from bftkit.core.statement import SignedMessage, statement_bytes
from bftkit.errors import FrameTooLarge, StorageFull
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.inputs import Submitted
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
from bftkit.replica.replica import Replica
from bftkit.runtime.application import ApplicationStage
from bftkit.runtime.channel import PriorityChannel
from bftkit.runtime.clock import Clock
from bftkit.runtime.failpoints import Hit, pass_by
from bftkit.runtime.payload_store import PayloadStore
from bftkit.runtime.peer_codec import Encoded, PeerCodec
from bftkit.runtime.timers import TimerHeap, draw
from bftkit.runtime.transport import Transport
from bftkit.storage.log import Log
from bftkit.storage.snapshots import SnapshotStore
from bftkit.wire.auth import SigningKey

INBOX_CAPACITY = (16384, 4096, 8192, 512)
"""Inputs that may wait: control, proposals, clients, bulk."""

_SYNC_TIMER = "shard/sync"

OWN_BATCHES_TIMED = 256
"""Own batches whose age is known, for the metric of their delay."""

IDLE_SYNC_MS = 50
"""Records that nobody waits for are synced after at most so long."""

BUFFERED_HIGH_BYTES = 32 * 1024 * 1024
"""Above this much that waits for the disk no more batches are taken: votes need the rest of the log's buffer."""

BUFFERED_RETRY_MS = 50
"""When a client may try again what was not taken because the disk is behind."""

FULL_DISK_RETRY_S = 0.5
"""Pause before a full disk is tried again."""

LONGEST_SLEEP_S = 0.5
"""After so long the clock is read again, whatever it said: it need not go at the pace of the event loop."""


class ShardCounters(msgspec.Struct):
    """What the shard has done since it started."""

    turns: int = 0
    steps: int = 0
    messages_sent: int = 0
    signatures: int = 0
    fsyncs: int = 0
    blocks: int = 0
    """Decided positions with at least one batch."""
    dropped: int = 0
    """Frames that a full or closed outbox did not take."""
    disk_full: int = 0
    oversized: int = 0
    """Messages that were not sent because no frame could hold them."""
    deferred: int = 0
    """Bodies and requests that were not taken because the disk is behind."""


class ReplicaShard:
    """Runs one replica: timers, inbox, log, outboxes."""

    def __init__(
        self,
        replica: Replica,
        key: SigningKey,
        log: Log,
        payloads: PayloadStore,
        snapshots: SnapshotStore,
        transport: Transport,
        codec: PeerCodec,
        clock: Clock,
    ) -> None:
        self.replica = replica
        self.inbox: PriorityChannel[Any] = PriorityChannel(INBOX_CAPACITY)
        self.counters = ShardCounters()
        self.on_report: Callable[[Report], None] = lambda report: None
        self.on_refuse: Callable[[Refuse], None] = lambda refuse: None
        self.on_read_ready: Callable[[ReadReady], None] = lambda answer: None
        self.on_final: Callable[[int], None] = lambda delay_ms: None
        """Told how long each own batch took from its making to its decision, in milliseconds."""
        self.hit: Hit = pass_by
        """Told of the failpoints that are passed."""
        self._made: OrderedDict[bytes, int] = OrderedDict()
        self._key = key
        self._log = log
        self._payloads = payloads
        self._snapshots = snapshots
        self._transport = transport
        self._codec = codec
        self._clock = clock
        self._random = random.Random(secrets.randbits(64))
        self._names = [member.name for member in replica.settings.membership.members]
        self._domain = replica.settings.domain
        self._gate = DurabilityGate(self._append, log.durable_index)
        self._local: deque[Any] = deque()
        self._in_turn = False
        self._due: dict[str, None] = {}
        self._timers: TimerHeap[str] = TimerHeap()
        self._timer_changed = anyio.Event()
        self._sleeping_until: int | None = None
        self._sync_wanted = anyio.Event()
        self._trim_below = 0
        self._application: ApplicationStage | None = None
        self._perform: dict[type[Any], Callable[[Any], None]] = {
            Send: self._send,
            Broadcast: self._broadcast,
            SetTimer: self._set_timer,
            CancelTimer: self._cancel_timer,
            Loopback: lambda output: self._local.append(output.event),
            Execute: self._execute,
            SendBody: self._send_body,
            Forget: lambda output: payloads.forget(output.digests),
            SaveSnapshot: self._to_application,
            InstallSnapshot: self._to_application,
            SendSnapshotChunk: self._send_chunk,
            Trim: self._trim,
            Refuse: self._refuse,
            Report: self._report,
            ReadReady: self._read_ready,
        }

    @property
    def gate_depth(self) -> int:
        """Count the outputs that wait for the disk."""
        return self._gate.depth

    def attach(self, application: ApplicationStage) -> None:
        """Say where decided batches go; once, before `start`."""
        self._application = application

    def start(self, tasks: TaskGroup, uncommitted: tuple[Any, ...]) -> None:
        """Start the replica and the tasks that serve it."""
        self._outputs(self.replica.start(self._clock.now_ms(), uncommitted))
        self._turn([])
        tasks.start_soon(self._loop)
        tasks.start_soon(self._sync_loop)
        tasks.start_soon(self._timer_loop)

    def take(self, *events: Any) -> None:
        """Give the replica inputs at once, as a turn of their own; for callers on the event loop.

        A caller that the turn itself has called (a link that closes while it is written to) is served at its end.
        """
        if self._in_turn:
            self._local.extend(events)
        else:
            self._turn(list(events))

    # -- turns ------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            self._turn(await self.inbox.receive())

    def _turn(self, events: list[Any], released: Iterable[Any] = ()) -> None:
        """Perform what the disk has released, take events, and end with one write to each peer."""
        self.counters.turns += 1
        replica = self.replica
        self._in_turn = True
        try:
            for output in released:
                self._perform[type(output)](output)
            for event in events:
                if self._log.buffered_bytes > BUFFERED_HIGH_BYTES and self._defer(event):
                    continue
                self.counters.steps += 1
                self._outputs(replica.step(event))
                while self._local:
                    self._step_local()
            while self._local:
                self._step_local()
            self.hit("shard.before_flush")
            self._transport.flush()
            while self._local:
                self._step_local()
                self._transport.flush()
        finally:
            self._in_turn = False
        if self._gate.needs_sync or self._trim_below:
            self._sync_wanted.set()
        elif self._gate.has_unsynced and _SYNC_TIMER not in self._timers:
            self._set_timer(SetTimer(_SYNC_TIMER, IDLE_SYNC_MS))

    def _defer(self, event: Any) -> bool:
        """Turn away what would be appended and can come again: a body is fetched, a request is repeated."""
        if isinstance(event, Submitted):
            for submission in event.submissions:
                self.on_refuse(Refuse(submission.token, "the disk is behind", BUFFERED_RETRY_MS))
        elif not (isinstance(event, Received) and isinstance(event.message, BatchBody)):
            return False
        self.counters.deferred += 1
        self._sync_wanted.set()
        return True

    def _step_local(self) -> None:
        event = self._local.popleft()
        self.counters.steps += 1
        self._outputs(self.replica.step(msgspec.structs.replace(event, now=self._clock.now_ms())))

    def _outputs(self, outputs: list[Any]) -> None:
        perform = self._perform
        for output in self._gate.offer(outputs):
            perform[type(output)](output)

    async def _sync_loop(self) -> None:
        limiter = anyio.CapacityLimiter(1)
        while True:
            await self._sync_wanted.wait()
            self._sync_wanted = anyio.Event()
            below, self._trim_below = self._trim_below, 0
            try:
                durable = await anyio.to_thread.run_sync(self._sync, below, limiter=limiter)
            except StorageFull:
                # Nothing was lost and nothing that waits is let out: try again until there is space.
                self.counters.disk_full += 1
                self._trim_below = max(self._trim_below, below)
                self._sync_wanted.set()
                await anyio.sleep(FULL_DISK_RETRY_S)
                continue
            self.counters.fsyncs += 1
            self._turn([], self._gate.durable(durable))

    def _sync(self, trim_below: int) -> int:
        self.hit("shard.before_sync")
        durable = self._log.flush_and_sync()
        self.hit("shard.after_sync")
        if trim_below:
            self.hit("shard.before_trim")
            self._log.trim(trim_below)
        return durable

    async def _timer_loop(self) -> None:
        while True:
            deadline = self._timers.next_deadline()
            now = self._clock.now_ms()
            if deadline is not None and deadline <= now:
                self._fire(now)
                continue
            self._sleeping_until = deadline
            self._timer_changed = anyio.Event()
            with anyio.move_on_after(None if deadline is None else min((deadline - now) / 1000, LONGEST_SLEEP_S)):
                await self._timer_changed.wait()

    def _fire(self, now: int) -> None:
        """Take the timers that have run out; one that an earlier one cancels or sets again has not."""
        self._due = dict.fromkeys(self._timers.pop_due(now))
        while self._due:
            timer = next(iter(self._due))
            del self._due[timer]
            if timer == _SYNC_TIMER:
                self._sync_wanted.set()
            else:
                self._turn([TimerFired(now, timer)])

    # -- outputs ----------------------------------------------------------------------------------

    def _append(self, output: Append) -> int:
        ref = output.ref
        digest = ref.digest if ref is not None else None
        index = self._log.append(output.kind, self.replica.settings.epoch, output.payload, digest)
        if ref is not None:
            self._payloads.add(ref, index, bytes(output.payload[0]), output.payload[1])
            if ref.origin == self.replica.own:
                self._made[ref.digest] = self._clock.now_ms()
                if len(self._made) > OWN_BATCHES_TIMED:
                    self._made.popitem(last=False)
        return index

    def _signed(self, message: Any) -> Any:
        if not isinstance(message, SignedMessage) or getattr(message, "signature", None):
            return message
        self.counters.signatures += 1
        signature = self._key.sign(statement_bytes(self._domain, message.statement()))
        return msgspec.structs.replace(message, signature=signature)

    def _send(self, output: Send) -> None:
        message = self._signed(output.message)
        if output.to == self.replica.own:
            self._local.append(Received(0, output.to, message))
            return
        self._post_message((output.to,), message)

    def _broadcast(self, output: Broadcast) -> None:
        message = self._signed(output.message)
        self._post_message(self.replica.settings.others, message)
        self._local.append(Received(0, self.replica.own, message))

    def _post_message(self, peers: Iterable[int], message: Any) -> None:
        encoded = self._encoded(lambda: self._codec.encode(message), type(message).__name__)
        if encoded is not None:
            for peer in peers:
                self._post(peer, *encoded)

    def _encoded(self, encode: Callable[[], Encoded], name: str) -> Encoded | None:
        """Encode what is to be sent; what no frame holds is a lost message, which every protocol survives."""
        try:
            return encode()
        except FrameTooLarge as error:
            self.counters.oversized += 1
            self.on_report(Report("oversized", f"{name}: {error}"))
            return None

    def _post(self, peer: int, priority: int, buffers: tuple[bytes | memoryview, ...]) -> None:
        self.hit("shard.before_send")
        if self._transport.send(self._names[peer], priority, buffers):
            self.counters.messages_sent += 1
        else:
            self.counters.dropped += 1

    def _send_body(self, output: SendBody) -> None:
        body = self._payloads.get(output.ref.digest)
        if body is not None:
            encoded = self._encoded(lambda: self._codec.encode_body(*body), "BatchBody")
            if encoded is not None:
                self._post(output.to, *encoded)

    def _send_chunk(self, output: SendSnapshotChunk) -> None:
        snapshot = self.replica.snapshot_at(output.position)
        if snapshot is None:
            return
        certificate, size = snapshot
        data = self._snapshots.read(certificate.checkpoint.height, output.offset, output.length)
        if data:
            self._post_message((output.to,), SnapshotChunk(output.position, size, output.offset, data))

    def _set_timer(self, output: SetTimer) -> None:
        delay = draw(output.delay_ms, output.jitter_ms, self._random)
        deadline = self._clock.now_ms() + delay
        self._timers.set(output.timer, deadline)
        self._due.pop(output.timer, None)
        if self._sleeping_until is None or deadline < self._sleeping_until:
            self._timer_changed.set()

    def _cancel_timer(self, output: CancelTimer) -> None:
        self._timers.cancel(output.timer)
        self._due.pop(output.timer, None)

    def _execute(self, output: Execute) -> None:
        if output.refs:
            self.counters.blocks += 1
        for ref in output.refs:
            made = self._made.pop(ref.digest, None)
            if made is not None:
                self.on_final(self._clock.now_ms() - made)
        self._to_application(output)

    def _to_application(self, output: Execute | SaveSnapshot | InstallSnapshot) -> None:
        if self._application is not None:
            self._application.put(output)

    def _refuse(self, output: Refuse) -> None:
        self.on_refuse(output)

    def _read_ready(self, output: ReadReady) -> None:
        self.on_read_ready(output)

    def _report(self, output: Report) -> None:
        self.on_report(output)

    def _trim(self, output: Trim) -> None:
        self._trim_below = max(self._trim_below, output.below_index)
