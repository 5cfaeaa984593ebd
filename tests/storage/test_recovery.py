"""What recovery decides, beside what the log's own tests show."""

import random

import pytest

from bftkit.errors import CorruptLog, StorageFull
from bftkit.storage.double_slot import DoubleSlot
from bftkit.storage.log import Log
from bftkit.storage.recovery import MARK_NAME, Mark, read_mark
from bftkit.storage.segment import segment_name
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk

IDENTITY = bytes(range(32))
SEGMENT = "wal/" + segment_name(1)


def slot_on(disk):
    return DoubleSlot(disk, "wal", MARK_NAME, IDENTITY)


@pytest.fixture
def disk():
    disk = SimulatedDisk(random.Random(5))
    log = Log.open(disk, "wal", IDENTITY)
    log.append(1, 1, b"one")
    log.flush_and_sync()
    disk.crash(CrashMode.KILL)
    return disk


def test_a_tail_known_to_be_durable_is_not_copied(disk):
    """The copy is made after an unclean stop only, and only once."""

    def writes() -> int:
        seen = []
        disk.before = lambda operation, path: seen.append(path) if operation == "write" and "log" in path else None
        Log.open(disk, "wal", IDENTITY)
        disk.crash(CrashMode.KILL)
        return len(seen)

    assert writes() > 0
    assert writes() == 0


def test_a_full_disk_stops_recovery_without_harm(disk):
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(StorageFull):
        Log.open(disk, "wal", IDENTITY)
    disk.capacity_bytes = None
    with Log.open(disk, "wal", IDENTITY) as log:
        assert [record.payload for record in log.records()] == [b"one"]


def test_segments_below_the_low_water_mark_are_removed_at_opening(disk):
    """A crash between the mark of a trim and the removal of the files leaves them."""
    log = Log.open(disk, "wal", IDENTITY, segment_bytes=100)
    log.append(1, 1, b"two")
    log.flush_and_sync()
    slot_on(disk).write_both(Mark(2, 2, 2).encode())
    disk.crash(CrashMode.KILL)
    with Log.open(disk, "wal", IDENTITY) as again:
        assert [record.payload for record in again.records()] == [b"two"]
        assert not disk.exists(SEGMENT)


def test_a_mark_of_another_shape_is_refused(disk):
    slot = slot_on(disk)
    assert read_mark(slot) == Mark(1, 0, 1)
    slot.write(b"short")
    with pytest.raises(CorruptLog, match="mark"):
        Log.open(disk, "wal", IDENTITY)


def test_records_of_a_batch_that_no_sync_covered_are_cut_when_one_is_missing(disk):
    """The later ones may have reached the disk before it; they vouch for nothing that was not durable."""
    log = Log.open(disk, "wal", IDENTITY)
    size = disk.size(SEGMENT)
    for _ in range(5):
        log.append(1, 1, bytes(100))
    log.flush_and_sync()
    disk.crash(CrashMode.KILL)
    disk.overwrite(SEGMENT, size, bytes(100))
    with Log.open(disk, "wal", IDENTITY) as again:
        assert again.durable_index == 1
        assert again.cut_bytes > 0


def test_nothing_that_recovery_relies_on_may_be_lost_afterwards():
    """The process is killed, comes back, and then the power goes: what was only in the page cache must not matter."""
    points = 0
    for point in range(200):
        disk = SimulatedDisk(random.Random(point))
        with Log.open(disk, "wal", IDENTITY, segment_bytes=150) as log:
            log.append(1, 1, bytes(100))
        disk.crash_after(point)
        acknowledged = 1
        try:
            with Log.open(disk, "wal", IDENTITY, segment_bytes=150) as log:
                log.append(1, 1, bytes(100))
                acknowledged = log.flush_and_sync()
                log.trim(2)
        except SimulatedCrash:
            points += 1
        disk.crash(CrashMode.KILL)
        found = Log.open(disk, "wal", IDENTITY).durable_index
        assert found >= acknowledged
        disk.crash(CrashMode.NOTHING)
        assert Log.open(disk, "wal", IDENTITY).durable_index == found
    assert 30 < points < 200
