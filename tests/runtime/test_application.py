"""The application stage: order, roots, snapshots kept, saved and taken over."""

from __future__ import annotations

import random

import anyio
import pytest

from bftkit.core.batch import BatchBody
from bftkit.errors import ApplicationError, StorageError, StorageFull
from bftkit.replica.execution import Executor
from bftkit.replica.inputs import Executed, SnapshotInstalled, SnapshotSaved
from bftkit.replica.outputs import STATES_KEPT, Execute, InstallSnapshot, SaveSnapshot
from bftkit.replica.records import RecordKind
from bftkit.runtime import application
from bftkit.runtime.application import ApplicationStage, Outcome, restore_newest
from bftkit.runtime.payload_store import PayloadStore
from bftkit.storage.log import Log
from bftkit.storage.memory import MemoryStorage
from bftkit.storage.snapshots import SnapshotStore
from bftkit.testing.disk import SimulatedDisk
from bftkit.wire.auth import verify
from tests.replica.parts import Journal, batch_of, certified, checkpoint_at, envelope, genesis_of, open_session
from tests.runtime.parts import Hands

GENESIS = genesis_of()


class Rig:
    """A stage with its log, its bodies and its snapshots."""

    def __init__(self, storage=None, machine=None) -> None:
        self.storage = storage or MemoryStorage()
        self.log = Log.open(self.storage, "log", bytes(32), indexed_kinds=(RecordKind.BODY,))
        self.payloads = PayloadStore(self.log)
        self.snapshots = SnapshotStore(self.storage, "snapshots")
        self.machine = machine or Journal()
        self.executor = Executor(self.machine, GENESIS, verify)
        self.outcomes: list[Outcome] = []
        self.stage = ApplicationStage(self.executor, self.payloads, self.snapshots, Hands(), self.outcomes.append)

    def hold(self, *bodies: BatchBody) -> tuple:
        for body in bodies:
            index = self.log.append(RecordKind.BODY, 0, (body.header, body.blob), body.ref.digest)
            self.payloads.add(body.ref, index, body.header, body.blob)
        return tuple(body.ref for body in bodies)

    def job(self, position: int, *, roots: bool = False, snapshot: bool = False, refs: tuple | None = None) -> Execute:
        """Position p holds the batch of height p."""
        if refs is None:
            request = open_session() if position == 1 else envelope((1, 0), position, [b"%d" % position])
            refs = self.hold(batch_of(request))
        return Execute(position, position, refs, None, roots, snapshot)

    def certificate(self, position: int):
        """What a quorum would certify of the state as it is."""
        roots = self.executor.roots()
        checkpoint = checkpoint_at(position, self.executor.height)
        return certified(type(checkpoint)(position, self.executor.height, bytes(32), *roots))


def filled(positions: int, **options) -> Rig:
    rig = Rig(**options)
    rig.stage.work([rig.job(position) for position in range(1, positions)])
    rig.stage.work([rig.job(positions, roots=True, snapshot=True)])
    return rig


# --- Executing -------------------------------------------------------------------------------------------------------


def test_jobs_are_done_in_order_and_reported_together():
    rig = Rig()
    outcome = rig.stage.work([rig.job(position) for position in (1, 2, 3)])
    assert rig.machine.commands == [b"2", b"3"]
    assert [event.position for event in outcome.events] == [3]
    assert [answer.reply.session for answer in outcome.answers] == [(1, 0)] * 3
    assert [job.position for job in outcome.executed] == [1, 2, 3]
    assert rig.stage.commands == 3


def test_the_roots_at_a_checkpoint_are_never_merged_away():
    rig = Rig()
    outcome = rig.stage.work([rig.job(1), rig.job(2, roots=True), rig.job(3), rig.job(4), rig.job(5, roots=True)])
    assert [(event.position, event.state_root is None) for event in outcome.events] == [
        (1, True),
        (2, False),
        (4, True),
        (5, False),
    ]
    assert (outcome.events[-1].state_root, outcome.events[-1].sessions_root) == rig.executor.roots()


def test_a_position_without_batches_is_reported_too():
    rig = Rig()
    outcome = rig.stage.work([rig.job(1), Execute(2, 2, (), None, False, False), rig.job(2)])
    assert [event.position for event in outcome.events] == [2]
    assert rig.executor.height == 2


def test_a_body_that_is_gone_stops_the_node():
    rig = Rig()
    with pytest.raises(StorageError, match="gone"):
        rig.stage.work([rig.job(1, refs=(batch_of(open_session()).ref,))])


def test_an_application_that_raises_stops_the_node():
    rig = Rig()
    rig.machine.apply = lambda batch: 1 // 0
    with pytest.raises(ApplicationError):
        rig.stage.work([rig.job(1), rig.job(2)])


# --- Snapshots -------------------------------------------------------------------------------------------------------


def test_a_kept_state_is_saved_as_it_was_and_old_ones_are_pruned():
    rig = filled(4)
    certificate, roots = rig.certificate(4), rig.executor.roots()
    outcome = rig.stage.work([rig.job(5), SaveSnapshot(certificate)])
    (saved,) = [event for event in outcome.events if isinstance(event, SnapshotSaved)]
    assert saved.certificate == certificate
    later = Rig()
    assert restore_newest(later.executor, rig.snapshots) == (certificate, saved.size)
    assert later.executor.roots() == roots
    assert later.executor.height == 4
    for position in (6, 7, 8):
        rig.stage.work([rig.job(position, roots=True, snapshot=True)])
        rig.stage.work([SaveSnapshot(rig.certificate(position))])
    assert rig.snapshots.heights() == [6, 7, 8]


def test_a_state_that_was_not_kept_is_not_saved():
    rig = filled(4)
    assert rig.stage.work([SaveSnapshot(certified(checkpoint_at(3)))]).events == []
    for position in range(5, 5 + STATES_KEPT):
        rig.stage.work([rig.job(position, roots=True, snapshot=True)])
    assert rig.stage.work([SaveSnapshot(certified(checkpoint_at(4)))]).events == [], "superseded"
    assert rig.snapshots.heights() == []


def test_whichever_of_the_last_states_is_certified_is_saved_and_those_before_it_go():
    rig = filled(4)
    certificates = [rig.certificate(4)]
    for position in (5, 6):
        rig.stage.work([rig.job(position, roots=True, snapshot=True)])
        certificates.append(rig.certificate(position))
    (saved,) = rig.stage.work([SaveSnapshot(certificates[1])]).events
    assert saved.certificate.position == 5
    assert rig.stage.work([SaveSnapshot(certificates[0])]).events == []
    (saved,) = rig.stage.work([SaveSnapshot(certificates[2])]).events
    assert saved.certificate.position == 6
    assert rig.snapshots.heights() == [5, 6]


def transferred(rig: Rig) -> tuple:
    return rig.certificate(4), rig.executor.snapshot()


def test_a_transferred_state_is_taken_over_and_made_durable():
    source, rig = filled(4), Rig()
    certificate, data = transferred(source)
    (event,) = rig.stage.work([InstallSnapshot(certificate, (data[:10], data[10:]))]).events
    assert event == SnapshotInstalled(1000, certificate, len(data))
    assert rig.executor.roots() == source.executor.roots()
    assert rig.snapshots.heights() == [4]
    outcome = rig.stage.work([rig.job(3), rig.job(5)])
    assert [event.position for event in outcome.events] == [5], "what the state holds is not executed again"
    assert rig.machine.commands[-1] == b"5"


def test_a_transferred_state_takes_the_place_of_those_that_were_kept_below_it():
    source = filled(6)
    certificate, data = source.certificate(6), source.executor.snapshot()
    rig = filled(3)
    rig.stage.work([rig.job(4, roots=True, snapshot=True)])
    assert rig.stage.kept == (3, 4)
    install = InstallSnapshot(certificate, (data,))
    rig.stage.work([install])
    assert rig.stage.kept == ()
    rig.stage.work([rig.job(7, roots=True, snapshot=True)])
    assert rig.stage.kept == (7,)
    rig.stage.work([install])
    assert rig.stage.kept == (7,), "it was refused: this member is further"


@pytest.mark.parametrize("spoil", ["bytes", "roots", "height"])
def test_a_state_that_is_not_the_certified_one_leaves_the_former(spoil):
    source, rig = filled(4), filled(2)
    certificate, data = transferred(source)
    before, commands = rig.executor.roots(), list(rig.machine.commands)
    checkpoint = certificate.checkpoint
    if spoil == "bytes":
        data = data[:-1]
    elif spoil == "roots":
        certificate = certified(type(checkpoint)(4, 4, bytes(32), b"x" * 32, checkpoint.sessions_root))
    else:
        certificate = certified(type(checkpoint)(4, 5, bytes(32), checkpoint.state_root, checkpoint.sessions_root))
    (event,) = rig.stage.work([InstallSnapshot(certificate, (data,))]).events
    assert event.problem
    assert (rig.executor.height, rig.executor.roots(), rig.machine.commands) == (2, before, commands)
    assert rig.snapshots.heights() == []
    assert isinstance(rig.stage.work([rig.job(3)]).events[0], Executed)


def test_a_state_from_before_is_refused():
    source, rig = filled(4), filled(6)
    certificate, data = transferred(source)
    (event,) = rig.stage.work([InstallSnapshot(certificate, (data,))]).events
    assert "further" in event.problem
    assert rig.executor.height == 6


def test_without_a_snapshot_nothing_is_restored():
    rig = Rig()
    assert restore_newest(rig.executor, rig.snapshots) is None


def test_a_snapshot_that_does_not_fit_its_certificate_is_not_believed():
    rig = filled(4)
    rig.snapshots.save(4, [rig.executor.snapshot()], b"\x92junk")
    with pytest.raises(StorageError):
        restore_newest(Rig().executor, rig.snapshots)
    from bftkit.core.ids import canonical

    rig.snapshots.save(4, [rig.executor.snapshot()], canonical(certified(checkpoint_at(4, 4))))
    with pytest.raises(ApplicationError):
        restore_newest(Rig().executor, rig.snapshots)


# --- A full disk -----------------------------------------------------------------------------------------------------


class Full:
    """Snapshots on a disk without space, until the test makes some."""

    def __init__(self, snapshots: SnapshotStore) -> None:
        self.inner = snapshots
        self.space = False
        self.tried = anyio.Event()

    def save(self, *arguments):
        if not self.space:
            raise StorageFull("no space")
        return self.inner.save(*arguments)

    def prune(self, keep: int):
        return self.inner.prune(keep)


def test_a_snapshot_without_space_waits_and_what_follows_it_too():
    rig = filled(4)
    certificate = rig.certificate(4)
    full = rig.stage._snapshots = Full(rig.snapshots)
    jobs = [rig.job(5), SaveSnapshot(certificate), rig.job(6)]
    outcome = rig.stage.work(jobs)
    assert outcome.undone == jobs[1:]
    assert [event.position for event in outcome.events] == [5]
    full.space = True
    outcome = rig.stage.work(outcome.undone)
    assert outcome.undone == []
    assert [type(event) for event in outcome.events] == [SnapshotSaved, Executed]


def test_a_transferred_state_without_space_is_tried_again():
    source, rig = filled(4), Rig()
    certificate, data = transferred(source)
    full = rig.stage._snapshots = Full(rig.snapshots)
    jobs = [InstallSnapshot(certificate, (data,))]
    assert rig.stage.work(jobs).undone == jobs
    assert rig.executor.height == 0, "the replica does not know of the state yet"
    full.space = True
    (event,) = rig.stage.work(jobs).events
    assert event.problem == ""
    assert rig.executor.roots() == source.executor.roots()


def test_a_failing_disk_is_not_a_full_one():
    disk = SimulatedDisk(random.Random(1))
    rig = filled(4, storage=disk)
    disk.fail("write")
    with pytest.raises(StorageError):
        rig.stage.work([SaveSnapshot(rig.certificate(4))])


# --- The task --------------------------------------------------------------------------------------------------------


async def wait_for(condition) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.001)


@pytest.mark.anyio
async def test_the_stage_works_off_its_queue_and_answers_in_turn(monkeypatch):
    monkeypatch.setattr(application, "FULL_DISK_RETRY_S", 0.001)
    rig = Rig()
    full = rig.stage._snapshots = Full(rig.snapshots)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.stage.run)
        for position in range(1, 4):
            rig.stage.put(rig.job(position))
        rig.stage.put(rig.job(4, roots=True, snapshot=True))
        await wait_for(lambda: rig.executor.height == 4)
        rig.stage.put(SaveSnapshot(rig.certificate(4)))
        rig.stage.put(rig.job(5))
        await wait_for(lambda: any(outcome.undone for outcome in rig.outcomes))
        assert rig.executor.height == 4
        full.space = True
        await wait_for(lambda: rig.executor.height == 5)
        assert await rig.stage.call(lambda height: rig.executor.height + height, 10) == 15
        assert (await rig.stage.call(rig.stage.roots_now))[0] == 5
        assert rig.stage.depth == 0
        tasks.cancel_scope.cancel()
    assert rig.snapshots.heights() == [4]
    replies = [answer.reply for outcome in rig.outcomes for answer in outcome.answers]
    assert [reply.height for reply in replies[1:]] == [2, 3, 4, 5]


def test_the_roots_are_computed_once_for_each_height():
    rig = filled(2)
    calls = []
    rig.executor.roots = lambda: calls.append(1) or (b"a", b"b")
    assert rig.stage.roots_now() == rig.stage.roots_now() == (2, b"a", b"b")
    assert len(calls) == 1
