"""Two slots, of which one always holds."""

import random

import pytest

from bftkit.errors import CorruptLog, StorageError, StorageFull, UnsupportedFormat
from bftkit.storage.double_slot import MAGIC, MAX_PAYLOAD_BYTES, VERSION, DoubleSlot
from bftkit.storage.preamble import encode_preamble
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk

IDENTITY = bytes(range(32))


@pytest.fixture
def disk():
    return SimulatedDisk(random.Random(3))


def slot_on(disk):
    return DoubleSlot(disk, "", "state", IDENTITY)


def test_the_last_value_written_is_the_value(disk):
    slot = slot_on(disk)
    assert slot.value is None
    for number in range(5):
        slot.write(b"value %d" % number)
        assert slot.value == slot_on(disk).value == b"value %d" % number
    slot.write(b"")
    assert slot_on(disk).value == b""


@pytest.mark.parametrize("writes", [1, 2, 3, 4])
def test_one_torn_slot_leaves_the_newest_valid_one(disk, writes):
    slot = slot_on(disk)
    for number in range(1, writes + 1):
        slot.write(b"%d" % number)
    newest = f"state.{(writes - 1) % 2}"
    content = disk.contents()[newest]
    for cut in range(len(content)):
        disk.open_append(newest).truncate(cut)
        if writes == 1:
            with pytest.raises(CorruptLog):
                slot_on(disk)
        else:
            found = slot_on(disk)
            assert (found.value, found.damaged) == (b"%d" % (writes - 1), 1)
        file = disk.open_append(newest)
        file.truncate(0)
        file.write((content,))
    assert slot_on(disk).value == b"%d" % writes


def test_both_damaged_is_refused(disk):
    slot_on(disk).write_both(b"value")
    disk.flip_bit("state.0")
    assert slot_on(disk).value == b"value"
    disk.flip_bit("state.1")
    with pytest.raises(CorruptLog, match="both slots"):
        slot_on(disk)


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_before_any_operation_leaves_the_old_value_or_the_new_one(mode):
    for seed in range(10):
        for point in range(60):
            disk = SimulatedDisk(random.Random(seed))
            disk.crash_after(point)
            written = -1
            try:
                slot = slot_on(disk)
                for number in range(5):
                    slot.write(b"%d" % number)
                    written = number
            except SimulatedCrash:
                pass
            disk.crash(mode)
            value = slot_on(disk).value
            assert (-1 if value is None else int(value)) in (written, written + 1)


def test_a_full_disk_leaves_the_old_value(disk):
    slot = slot_on(disk)
    slot.write_both(b"old")
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(StorageFull):
        slot.write(b"new and longer")
    assert slot.value == slot_on(disk).value == b"old"
    disk.capacity_bytes = None
    slot.write(b"new and longer")
    assert slot_on(disk).value == b"new and longer"


def test_another_identity_and_another_version_are_refused(disk):
    slot_on(disk).write_both(b"value")
    with pytest.raises(StorageError, match="another node or cluster"):
        DoubleSlot(disk, "", "state", bytes(32))
    disk.overwrite("state.1", 0, encode_preamble(MAGIC, VERSION + 1))
    with pytest.raises(UnsupportedFormat):
        slot_on(disk)


def test_a_value_is_small(disk):
    slot = slot_on(disk)
    slot.write(bytes(MAX_PAYLOAD_BYTES))
    assert slot_on(disk).value == bytes(MAX_PAYLOAD_BYTES)
    with pytest.raises(StorageError, match="at most"):
        slot.write(bytes(MAX_PAYLOAD_BYTES + 1))
