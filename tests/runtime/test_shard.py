"""The shard: one owner of a replica, turn by turn."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from bftkit.core.inputs import Received, TimerFired
from bftkit.core.outputs import Broadcast, CancelTimer, Persist, Send, SetTimer
from bftkit.core.statement import statement_bytes
from bftkit.errors import StorageError, StorageFull
from bftkit.replica.inputs import PeerDown, PeerUp, Submission, Submitted
from bftkit.replica.messages import FetchBodies, Progress, SnapshotChunk
from bftkit.replica.outputs import SendSnapshotChunk
from bftkit.replica.recovery import recover
from bftkit.runtime import shard as shard_module
from bftkit.runtime.channel import CONTROL
from bftkit.runtime.payload_store import PayloadStore
from bftkit.runtime.peer_codec import PeerCodec
from bftkit.runtime.shard import ReplicaShard
from bftkit.storage.log import Log
from bftkit.storage.memory import MemoryStorage
from bftkit.storage.snapshots import SnapshotStore
from bftkit.wire.auth import verify
from bftkit.wire.envelope import decode_envelope
from tests.replica.parts import KEYS, Mark, Note, Vote, body_of, certified, checkpoint_at, settings_of
from tests.runtime.parts import Hands, frames_of

SETTINGS = settings_of()
A, B = b"a" * 32, b"b" * 32


class Wire:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, object]] = []
        self.flushes = 0
        self.closed: set[str] = set()
        self.on_flush = lambda: None
        self._codec = PeerCodec(SETTINGS)

    def send(self, peer: str, priority: int, buffers: Sequence[bytes | memoryview]) -> bool:
        if peer in self.closed:
            return False
        for frame in frames_of(buffers):
            if frame.type == frame.type.BODY:
                self.sent.append((peer, "body"))
                continue
            envelope = decode_envelope(frame.payload)
            half = self._codec.replica if envelope.kind else self._codec.engine
            self.sent.append((peer, half.decode(memoryview(envelope.body))))
        return True

    def flush(self) -> None:
        self.flushes += 1
        self.on_flush()

    def to(self, peer: str, kind: type) -> list:
        return [message for to, message in self.sent if to == peer and isinstance(message, kind)]


class Rig:
    def __init__(self, storage=None) -> None:
        self.storage = storage or MemoryStorage()
        self.log = Log.open(self.storage, "log", bytes(32), indexed_kinds=(2,))
        recovered = recover(SETTINGS, None, (), self.log.next_index)
        self.replica = recovered.replica
        self.engine = recovered.replica.engine
        self.payloads = PayloadStore(self.log)
        self.snapshots = SnapshotStore(self.storage, "snapshots")
        self.wire, self.clock = Wire(), Hands()
        codec = PeerCodec(SETTINGS)
        self.shard = ReplicaShard(
            self.replica, KEYS[0], self.log, self.payloads, self.snapshots, self.wire, codec, self.clock
        )

    def let(self, *outputs) -> None:
        """Let the engine put out something, in one turn."""
        passed = TimerFired(self.clock.now, "go")
        self.engine.react = lambda event: list(outputs) if event == passed else []
        self.shard.take(TimerFired(self.clock.now, "engine/go"))
        self.engine.react = lambda event: []

    def timers(self) -> list[str]:
        return [event.timer for event in self.engine.told(TimerFired) if event.timer != "go"]


async def wait_for(condition) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.001)


# --- Without tasks: one turn after the other -------------------------------------------------------------------------


def test_a_turn_ends_with_one_flush_however_much_it_sent():
    rig = Rig()
    rig.let(Broadcast(Note("a")), Send(2, Note("b")), Send(2, Note("c")))
    assert rig.wire.flushes == 1
    assert [note.text for note in rig.wire.to("n2", Note)] == ["a", "b", "c"]
    assert [note.text for note in rig.wire.to("n1", Note)] == ["a"]


def test_what_is_for_oneself_comes_back_in_the_same_turn():
    rig = Rig()
    rig.let(Send(0, Note("own")), Broadcast(Note("all")))
    assert [(event.sender, event.message.text) for event in rig.engine.told(Received)] == [(0, "own"), (0, "all")]
    assert rig.wire.to("n0", Note) == []


def test_a_vote_waits_for_the_disk_and_is_signed_once_for_all():
    rig = Rig()
    rig.let(Persist(Mark(1)), Broadcast(Vote(0, 1, A)))
    assert rig.wire.sent == []
    assert rig.shard.counters.signatures == 0
    rig.shard._turn([], rig.shard._gate.durable(rig.shard._sync(0)))
    assert rig.shard.counters.signatures == 1
    (vote,) = {*rig.wire.to("n1", Vote), *rig.wire.to("n3", Vote)}
    assert verify(KEYS[0].public_key, statement_bytes(SETTINGS.domain, vote.statement()), vote.signature)
    assert [event.message for event in rig.engine.told(Received)] == [vote]


def test_an_early_message_overtakes_the_disk():
    rig = Rig()
    rig.let(Persist(Mark(1)), Broadcast(Note("early"), early=True), Broadcast(Note("late")))
    assert [note.text for note in rig.wire.to("n1", Note)] == ["early"]


def test_what_a_closed_link_drops_is_counted():
    rig = Rig()
    rig.wire.closed = {"n1"}
    rig.let(Broadcast(Note("a")))
    assert (rig.shard.counters.messages_sent, rig.shard.counters.dropped) == (2, 1)


def test_a_link_that_closes_while_it_is_written_to_is_heard_after_the_step():
    rig = Rig()
    order: list[str] = []

    def close() -> None:
        rig.wire.on_flush = lambda: None
        rig.shard.take(PeerDown(0, 1))
        order.append("back in flush")

    rig.shard.take(PeerUp(0, 1))
    rig.wire.on_flush = close
    original = rig.replica.step
    rig.replica.step = lambda event: order.append(type(event).__name__) or original(event)
    rig.let(Broadcast(Note("a")))
    assert order == ["TimerFired", "Received", "back in flush", "PeerDown"]
    assert not rig.replica.catch_up.connected[1]


def test_a_body_goes_to_the_log_and_is_sent_to_who_asks():
    rig = Rig()
    body = body_of("one")
    rig.shard.take(Received(0, 1, body))
    assert rig.payloads.get(body.ref.digest) is not None
    rig.shard._turn([], rig.shard._gate.durable(rig.shard._sync(0)))
    rig.shard.take(Received(0, 2, FetchBodies((body.ref.digest,))))
    assert ("n2", "body") in rig.wire.sent
    rig.payloads.forget((body.ref.digest,))
    rig.shard.take(Received(0, 3, FetchBodies((body.ref.digest,))))
    assert ("n3", "body") not in rig.wire.sent


def test_chunks_of_the_newest_snapshot_only():
    rig = Rig()
    rig.snapshots.save(9, [b"the state"], b"")
    rig.replica.snapshot = (certified(checkpoint_at(4, 9)), 9)
    for position, offset in ((4, 0), (4, 4), (4, 9), (4, 2**60), (8, 0)):
        rig.shard._send_chunk(SendSnapshotChunk(2, position, offset, 4))
    chunks = rig.wire.to("n2", SnapshotChunk)
    assert [(chunk.offset, chunk.size, chunk.data) for chunk in chunks] == [(0, 9, b"the "), (4, 9, b"stat")]


# --- Timers ----------------------------------------------------------------------------------------------------------


def test_timers_fire_in_order_when_they_are_due():
    rig = Rig()
    rig.let(SetTimer("b", 20), SetTimer("a", 10), SetTimer("later", 50))
    rig.shard._fire(1020)
    assert rig.timers() == ["a", "b"]


def test_a_timer_that_an_earlier_one_cancels_or_sets_again_does_not_fire():
    rig = Rig()
    rig.let(SetTimer("a", 10), SetTimer("cancelled", 10), SetTimer("again", 10), SetTimer("last", 10))
    rig.clock.now = 1010
    first = TimerFired(1010, "a")
    rig.engine.react = lambda event: [CancelTimer("cancelled"), SetTimer("again", 30)] if event == first else []
    rig.shard._fire(1010)
    assert rig.timers() == ["a", "last"]
    rig.shard._fire(1040)
    assert rig.timers() == ["a", "last", "again"]


# --- With tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_inputs_timers_and_the_disk_are_served_at_once():
    rig = Rig()
    rig.engine.on_start = [SetTimer("start", 1)]
    async with anyio.create_task_group() as tasks:
        rig.shard.start(tasks, ())
        rig.clock.now += 5
        await wait_for(lambda: rig.timers() == ["start"])
        rig.shard.inbox.send_nowait(CONTROL, Received(0, 1, Progress(3, 3, 0)))
        await wait_for(lambda: rig.replica.catch_up.claims[1] is not None)
        rig.let(Persist(Mark(1)), Broadcast(Vote(0, 1, A)))
        await wait_for(lambda: rig.wire.to("n1", Vote))
        assert rig.shard.counters.fsyncs >= 1
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_records_that_nobody_waits_for_reach_the_disk_soon():
    rig = Rig()
    async with anyio.create_task_group() as tasks:
        rig.shard.start(tasks, ())
        rig.let()
        rig.replica.append(3, 1, barrier=False)
        rig.let()
        assert rig.log.durable_index == 0
        rig.clock.now += shard_module.IDLE_SYNC_MS
        await wait_for(lambda: rig.log.durable_index == 1)
        tasks.cancel_scope.cancel()


class Moody(MemoryStorage):
    """A disk whose syncs or writes fail when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.mood: Exception | None = None

    def open_append(self, path: str):
        return _MoodyFile(self, super().open_append(path))


class _MoodyFile:
    def __init__(self, storage: Moody, inner) -> None:
        self._storage, self._inner = storage, inner
        self.truncate, self.close = inner.truncate, inner.close

    def write(self, buffers) -> None:
        if isinstance(self._storage.mood, StorageFull):
            raise self._storage.mood
        self._inner.write(buffers)

    def sync(self) -> None:
        if self._storage.mood is not None:
            raise self._storage.mood
        self._inner.sync()


@pytest.mark.anyio
async def test_a_full_disk_holds_votes_back_until_there_is_space(monkeypatch):
    monkeypatch.setattr(shard_module, "FULL_DISK_RETRY_S", 0.001)
    storage = Moody()
    rig = Rig(storage)
    async with anyio.create_task_group() as tasks:
        rig.shard.start(tasks, ())
        storage.mood = StorageFull("no space")
        rig.let(Persist(Mark(1)), Broadcast(Vote(0, 1, A)), SetTimer("runs on", 1))
        await wait_for(lambda: rig.shard.counters.disk_full >= 3)
        assert rig.wire.to("n1", Vote) == []
        rig.clock.now += 5
        rig.let(SetTimer("next", 1))
        await wait_for(lambda: "runs on" in rig.timers())
        storage.mood = None
        await wait_for(lambda: rig.wire.to("n1", Vote))
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_failed_sync_ends_the_shard_and_lets_nothing_out():
    storage = Moody()
    rig = Rig(storage)
    storage.mood = StorageError("the disk is broken")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            rig.shard.start(tasks, ())
            rig.let(Persist(Mark(1)), Broadcast(Vote(0, 1, A)))
            with anyio.fail_after(5):
                await anyio.sleep_forever()
    assert caught.value.subgroup(StorageError) is not None
    assert rig.wire.to("n1", Vote) == []


def test_a_message_that_no_frame_holds_is_lost_and_reported():
    rig = Rig()
    reports = []
    rig.shard.on_report = reports.append
    rig.let(Broadcast(Note("x" * (5 << 20))), Send(1, Note("y" * (5 << 20))), Send(1, Note("z")))
    assert [note.text for note in rig.wire.to("n1", Note)] == ["z"]
    assert rig.shard.counters.oversized == 2
    assert [report.event for report in reports if report.event == "oversized"] == ["oversized"] * 2


@pytest.mark.anyio
async def test_bodies_that_a_full_disk_cannot_take_wait_outside_and_votes_go_on(monkeypatch):
    monkeypatch.setattr(shard_module, "FULL_DISK_RETRY_S", 0.001)
    monkeypatch.setattr(shard_module, "BUFFERED_HIGH_BYTES", 100)
    storage = Moody()
    rig = Rig(storage)
    refused = []
    rig.shard.on_refuse = refused.append
    async with anyio.create_task_group() as tasks:
        rig.shard.start(tasks, ())
        storage.mood = StorageFull("no space")
        bodies = [body_of(f"{number:040}") for number in range(20)]
        for body in bodies:
            rig.shard.take(Received(0, 1, body))
        buffered = rig.log.buffered_bytes
        assert 100 < buffered < 400
        assert 0 < rig.shard.counters.deferred < 20
        rig.shard.take(Submitted(0, (Submission(7, b"key", b"data", 1),)))
        assert [refuse.token for refuse in refused] == [7]
        rig.shard.take(Received(0, 1, Note("a vote")))
        assert any(event.message == Note("a vote") for event in rig.engine.told(Received))
        storage.mood = None
        await wait_for(lambda: rig.log.buffered_bytes == 0)
        deferred = rig.shard.counters.deferred
        rig.shard.take(Received(0, 1, bodies[-1]))
        assert rig.shard.counters.deferred == deferred
        assert rig.log.buffered_bytes > 0
        tasks.cancel_scope.cancel()
