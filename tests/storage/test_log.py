"""The write-ahead log on both storages."""

import hashlib
import random
import struct
import threading

import pytest

from bftkit.errors import CorruptLog, StorageError, StorageFull, StorageLocked, UnsupportedFormat
from bftkit.storage.files import FileStorage
from bftkit.storage.interface import Storage
from bftkit.storage.log import Log
from bftkit.storage.preamble import encode_preamble
from bftkit.storage.record import HEADER_BYTES, RecordCodec
from bftkit.storage.segment import MAGIC, SEGMENT_HEADER_BYTES, segment_name
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk

IDENTITY = hashlib.sha256(b"cluster/n0").digest()
FIRST_SEGMENT = "wal/" + segment_name(1)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(7))


@pytest.fixture(params=["simulated", "files"])
def storage(request, tmp_path) -> Storage:
    return SimulatedDisk(random.Random(7)) if request.param == "simulated" else FileStorage(tmp_path / "data")


def open_log(storage, **options) -> Log:
    return Log.open(storage, "wal", IDENTITY, **options)


def payloads(log) -> list[bytes]:
    return [record.payload for record in log.records()]


def filled(storage, count, *, flush_each=False, **options) -> Log:
    log = open_log(storage, **options)
    for number in range(count):
        log.append(1, 1, b"payload %d" % number)
        if flush_each:
            log.flush_and_sync()
    log.flush_and_sync()
    return log


def test_a_new_log_is_empty(storage):
    with open_log(storage) as log:
        assert (log.first_index, log.next_index, log.durable_index) == (1, 1, 0)
        assert list(log.records()) == []
        assert log.flush_and_sync() == 0


def test_records_come_back_as_they_were_written(storage):
    with open_log(storage) as log:
        assert log.append(0, 0, b"") == 1
        assert log.append(255, 2**64 - 1, [b"one", memoryview(b"two"), b""]) == 2
        assert log.append(3, 4, memoryview(bytes(100_000))) == 3
        assert log.durable_index == 0
        assert log.flush_and_sync() == 3
    with open_log(storage) as log:
        found = [(record.index, record.kind, record.epoch, record.payload) for record in log.records()]
        assert found == [(1, 0, 0, b""), (2, 255, 2**64 - 1, b"onetwo"), (3, 3, 4, bytes(100_000))]
        assert [record.index for record in log.records(from_index=3)] == [3]
        assert log.append(1, 1, b"next") == 4


def test_a_known_digest_is_trusted_when_writing_and_checked_when_reading(storage):
    body = bytes(range(256)) * 100
    with open_log(storage, indexed_kinds=[2]) as log:
        right = log.append(2, 1, body, hashlib.sha256(body).digest())
        wrong = log.append(2, 1, body, hashlib.sha256(b"other").digest())
        log.flush_and_sync()
        assert log.read(right) == body
        with pytest.raises(CorruptLog, match="record 2 in segment"):
            log.read(wrong)


def test_read_serves_queued_records_and_indexed_kinds(storage):
    with open_log(storage, indexed_kinds=[2]) as log:
        plain, body = log.append(1, 1, b"plain"), log.append(2, 1, [b"bo", b"dy"])
        assert (log.read(plain), log.read(body)) == (b"plain", b"body")
        log.flush_and_sync()
        assert log.read(body) == b"body"
        with pytest.raises(StorageError, match="not of an indexed kind"):
            log.read(plain)
        with pytest.raises(StorageError, match="not held"):
            log.read(3)
    with open_log(storage, indexed_kinds=[2]) as log:
        assert log.read(body) == b"body"


def test_segments_roll_and_are_trimmed(storage):
    log = filled(storage, 100, flush_each=True, segment_bytes=1000, indexed_kinds=[1])
    segments = [name for name in storage.list("wal") if name.endswith(".log")]
    assert len(segments) > 5
    before = log.total_bytes
    assert before == sum(storage.size(f"wal/{name}") for name in segments)
    log.trim(50)
    assert 40 < log.first_index <= 50
    assert log.total_bytes < before
    assert log.read(50) == b"payload 49"
    with pytest.raises(StorageError):
        log.read(1)
    expected = list(range(log.first_index, 101))
    assert [record.index for record in log.records()] == expected
    log.trim(10_000)
    assert log.first_index <= 100, "the newest segment stays"
    expected = list(range(log.first_index, 101))
    log.close()
    with open_log(storage, segment_bytes=1000) as log:
        assert [record.index for record in log.records()] == expected
        assert log.append(1, 1, b"on") == 101


def test_the_buffer_is_bounded(storage):
    with open_log(storage, buffer_bytes=100) as log:
        log.append(1, 1, bytes(60))
        assert log.buffered_bytes == 60
        with pytest.raises(StorageError, match="flush before"):
            log.append(1, 1, bytes(41))
        log.flush_and_sync()
        assert log.buffered_bytes == 0
        assert log.append(1, 1, bytes(200)) == 2, "one record may exceed the bound alone"


@pytest.mark.parametrize(("kind", "epoch"), [(256, 0), (-1, 0), (0, -1), (0, 2**64)])
def test_what_does_not_fit_a_record_is_refused_at_once(storage, kind, epoch):
    with open_log(storage) as log, pytest.raises(StorageError, match="cannot be stored"):
        log.append(kind, epoch, b"")


def test_another_identity_is_refused(storage):
    filled(storage, 1).close()
    with pytest.raises(StorageError, match="another node or cluster"):
        Log.open(storage, "wal", hashlib.sha256(b"cluster/n1").digest())
    open_log(storage).close()


def test_a_missing_log_is_not_created_unless_allowed(storage):
    for _ in range(2):
        with pytest.raises(StorageError, match="there is no log"):
            open_log(storage, create=False)
    filled(storage, 1).close()
    with open_log(storage, create=False) as log:
        assert log.durable_index == 1


def test_two_openings_at_once_are_refused(storage):
    with open_log(storage), pytest.raises(StorageLocked):
        open_log(storage)
    open_log(storage).close()


def test_a_closed_log_refuses_everything_but_closing(storage):
    log = filled(storage, 1)
    log.append(1, 1, b"flushed by close")
    log.close()
    log.close()
    for call in (lambda: log.append(1, 1, b""), log.flush_and_sync, lambda: log.read(1), lambda: list(log.records())):
        with pytest.raises(StorageError, match="it is closed"):
            call()
    with open_log(storage) as again:
        assert again.durable_index == 2


def test_a_torn_last_record_is_cut_at_every_byte(disk):
    """What a crash may leave of an unsynced record: any prefix of it, here at every length."""
    log = filled(disk, 3)
    whole = disk.size(FIRST_SEGMENT)
    log.append(1, 1, b"the last record")
    log.flush_and_sync()
    content = disk.contents()[FIRST_SEGMENT]
    for cut in range(whole, len(content)):
        other = SimulatedDisk(random.Random(cut))
        filled(other, 3)
        other.crash(CrashMode.KILL)
        file = other.open_append(FIRST_SEGMENT)
        file.truncate(0)
        file.write((content[:cut],))
        file.sync()
        with open_log(other) as again:
            assert payloads(again) == [b"payload 0", b"payload 1", b"payload 2"]
            assert again.cut_bytes == cut - whole
            assert again.append(1, 1, b"in its place") == 4
        with open_log(other) as again:
            assert payloads(again)[-1] == b"in its place"
            assert again.cut_bytes == 0


@pytest.mark.parametrize("garbage", [bytes(50), b"\xb5rec" * 30, b"x"])
def test_garbage_behind_the_last_record_is_cut(disk, garbage):
    filled(disk, 2)
    disk.crash(CrashMode.KILL)
    disk.open_append(FIRST_SEGMENT).write((garbage,))
    with open_log(disk) as log:
        assert (log.durable_index, log.cut_bytes) == (2, len(garbage))


def test_every_flipped_bit_below_the_last_flush_is_found(disk):
    """Each flush vouches for those before it, so no byte of an earlier record can change unnoticed."""
    filled(disk, 3, flush_each=True)
    content = disk.contents()[FIRST_SEGMENT]
    last = len(content) - HEADER_BYTES - len(b"payload 2")
    for offset in range(last):
        disk.crash(CrashMode.KILL)
        disk.flip_bit(FIRST_SEGMENT, offset)
        with pytest.raises((CorruptLog, UnsupportedFormat)) as caught:
            open_log(disk)
        assert FIRST_SEGMENT in str(caught.value)
        disk.overwrite(FIRST_SEGMENT, 0, content)
    with open_log(disk) as log:
        assert log.durable_index == 3


def test_the_error_names_segment_offset_and_index(disk):
    filled(disk, 3, flush_each=True)
    disk.crash(CrashMode.KILL)
    offset = SEGMENT_HEADER_BYTES + HEADER_BYTES + len(b"payload 0")
    disk.flip_bit(FIRST_SEGMENT, offset + HEADER_BYTES)
    with pytest.raises(CorruptLog, match=f"record 2 in segment {FIRST_SEGMENT} at offset {offset}.*payload.*record 3"):
        open_log(disk)


def test_damage_in_the_last_flush_is_found_after_a_clean_close(disk):
    filled(disk, 3).close()
    disk.flip_bit(FIRST_SEGMENT, disk.size(FIRST_SEGMENT) - 1)
    with pytest.raises(CorruptLog, match="the mark says"):
        open_log(disk)


@pytest.mark.parametrize("slot", ["wal/mark.0", "wal/mark.1"])
def test_opening_vouches_for_what_it_found_in_both_slots(disk, slot):
    filled(disk, 3)
    disk.crash(CrashMode.KILL)
    open_log(disk)
    disk.crash(CrashMode.KILL)
    disk.flip_bit(slot)
    disk.flip_bit(FIRST_SEGMENT, disk.size(FIRST_SEGMENT) - 1)
    with pytest.raises(CorruptLog, match="the mark says"):
        open_log(disk)


@pytest.mark.parametrize("slot", ["wal/mark.0", "wal/mark.1"])
def test_rot_in_either_slot_after_a_trim_does_no_harm(disk, slot):
    log = filled(disk, 20, flush_each=True, segment_bytes=300)
    log.trim(15)
    expected = payloads(log)
    disk.crash(CrashMode.KILL)
    disk.flip_bit(slot)
    assert payloads(open_log(disk)) == expected


def test_missing_durable_records_are_found_after_a_clean_close(disk):
    filled(disk, 3).close()
    disk.open_append(FIRST_SEGMENT).truncate(SEGMENT_HEADER_BYTES)
    with pytest.raises(CorruptLog, match="ends before it"):
        open_log(disk)


def test_damage_in_an_older_segment_is_found_when_it_is_read(disk):
    log = filled(disk, 20, flush_each=True, segment_bytes=500, indexed_kinds=[1])
    log.close()
    disk.flip_bit(FIRST_SEGMENT, SEGMENT_HEADER_BYTES + HEADER_BYTES)
    with open_log(disk, segment_bytes=500, indexed_kinds=[1]) as log:
        with pytest.raises(CorruptLog, match="record 1 "):
            list(log.records())
        with pytest.raises(CorruptLog, match="record 1 "):
            log.read(1)
        assert log.read(2) == b"payload 1"


def test_missing_segments_are_found(disk):
    filled(disk, 20, flush_each=True, segment_bytes=300).close()
    segments = ["wal/" + name for name in disk.list("wal") if name.endswith(".log")]
    kept = disk.contents()
    for path in segments:
        disk.remove(path)
        with pytest.raises(CorruptLog):
            open_log(disk)
        disk.open_append(path).write((kept[path],))
    open_log(disk).close()
    for slot in range(2):
        disk.remove(f"wal/mark.{slot}")
    with pytest.raises(CorruptLog, match="no mark"):
        open_log(disk)


def test_a_misdirected_read_of_a_valid_record_is_detected(disk):
    """The record is intact, but it is another one: its index and its chain say so."""
    log = filled(disk, 4, indexed_kinds=[1])
    length = HEADER_BYTES + len(b"payload 0")
    content = disk.contents()[FIRST_SEGMENT]
    disk.overwrite(FIRST_SEGMENT, SEGMENT_HEADER_BYTES + length, content[SEGMENT_HEADER_BYTES:][:length])
    with pytest.raises(CorruptLog, match="record 2"):
        log.read(2)
    with pytest.raises(CorruptLog, match="index is 1"):
        list(log.records())


def test_a_payload_cannot_pose_as_a_later_record(disk):
    """A peer that knows the format still does not know the salt, so its bytes prove nothing about the torn tail."""
    log = filled(disk, 1)
    forged, _ = RecordCodec(bytes(16)).encode_header(1, 1, 99, 98, bytes(16), 0, hashlib.sha256(b"").digest())
    log.append(1, 1, [b"x" * 100, forged])
    log.flush_and_sync()
    disk.crash(CrashMode.KILL)
    disk.flip_bit(FIRST_SEGMENT, SEGMENT_HEADER_BYTES + 2 * HEADER_BYTES + 20)
    with open_log(disk) as again:
        assert payloads(again) == [b"payload 0"]


def test_another_format_is_refused(storage):
    filled(storage, 1).close()
    original = storage.read(FIRST_SEGMENT, 0, storage.size(FIRST_SEGMENT))
    for version, word in ((2, "newer"), (0, "older")):
        file = storage.open_append(FIRST_SEGMENT)
        file.truncate(0)
        file.write((encode_preamble(MAGIC, version), original[16:]))
        file.close()
        with pytest.raises(UnsupportedFormat, match=word):
            open_log(storage)


def test_a_full_disk_changes_nothing_and_passes(disk):
    log = filled(disk, 2)
    size = disk.size(FIRST_SEGMENT)
    disk.capacity_bytes = disk.used_bytes() + 50
    log.append(1, 1, b"waits")
    for _ in range(2):
        with pytest.raises(StorageFull):
            log.flush_and_sync()
        assert (log.durable_index, disk.size(FIRST_SEGMENT)) == (2, size)
    assert log.append(1, 1, b"waits too") == 4
    assert log.read(3) == b"waits"
    disk.capacity_bytes = None
    assert log.flush_and_sync() == 4
    log.close()
    with open_log(disk) as again:
        assert payloads(again) == [b"payload 0", b"payload 1", b"waits", b"waits too"]


def test_a_full_disk_while_rolling_passes_too(disk):
    for room in range(0, 900, 30):
        disk = SimulatedDisk(random.Random(room))
        log = filled(disk, 6, segment_bytes=300)
        disk.capacity_bytes = disk.used_bytes() + room
        log.append(1, 1, bytes(300))
        try:
            log.flush_and_sync()
        except StorageFull:
            disk.capacity_bytes = None
            assert log.flush_and_sync() == 7
        log.close()
        with open_log(disk) as again:
            assert payloads(again)[-1] == bytes(300)


def test_a_failed_sync_ends_the_log(disk):
    log = filled(disk, 1)
    disk.fail("sync")
    log.append(1, 1, b"never acknowledged")
    with pytest.raises(StorageError, match="injected"):
        log.flush_and_sync()
    for call in (lambda: log.append(1, 1, b""), log.flush_and_sync, lambda: log.trim(1), lambda: list(log.records())):
        with pytest.raises(StorageError, match="earlier operation failed"):
            call()
    assert log.durable_index == 1
    log.close()
    disk.crash(CrashMode.NOTHING)
    with open_log(disk) as again:
        assert payloads(again) == [b"payload 0"]


def test_what_is_read_back_after_a_failed_sync_is_made_durable_anew(disk):
    """The pages read well and are marked clean; only a copy of them reaches the disk."""
    log = filled(disk, 1)
    disk.fail("sync")
    log.append(1, 1, b"in the page cache")
    with pytest.raises(StorageError):
        log.flush_and_sync()
    disk.crash(CrashMode.KILL)
    expected = [b"payload 0", b"in the page cache"]
    assert payloads(open_log(disk)) == expected
    disk.crash(CrashMode.NOTHING)
    assert payloads(open_log(disk)) == expected


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_before_every_operation_keeps_what_was_acknowledged(mode):
    """Creation, flushes, rolls, trims and closing, cut short before each single operation, then recovery likewise."""
    for point in range(10_000):
        disk = SimulatedDisk(random.Random(point))
        acknowledged, appended = 0, 0
        disk.crash_after(point)
        finished = False
        try:
            log = open_log(disk, segment_bytes=400)
            for number in range(8):
                appended = log.append(1, 1, b"%d" % number * 40)
                acknowledged = log.flush_and_sync()
                if number == 6:
                    log.trim(4)
            log.close()
            finished = True
        except SimulatedCrash:
            pass
        disk.crash(mode)
        # Recovery is interrupted as well, further on each time, and must be repeatable.
        for again in range(0, 40, 3):
            disk.crash_after(again)
            try:
                log = open_log(disk, segment_bytes=400)
            except SimulatedCrash:
                disk.crash(mode)
            else:
                break
        disk.crash(mode)
        log = open_log(disk, segment_bytes=400)
        found = {record.index: record.payload for record in log.records()}
        durable_index = log.durable_index
        disk.crash(CrashMode.NOTHING)
        log = open_log(disk, segment_bytes=400)
        assert log.durable_index == durable_index
        assert {record.index: record.payload for record in log.records()} == found
        assert list(found) == list(range(log.first_index, log.durable_index + 1))
        assert acknowledged <= log.durable_index <= appended
        assert all(payload == b"%d" % (index - 1) * 40 for index, payload in found.items())
        if finished:
            assert point > 60
            return
    pytest.fail("the run never finished")


def test_appends_go_on_while_a_thread_flushes(tmp_path):
    storage = FileStorage(tmp_path)
    log = open_log(storage, segment_bytes=20_000, indexed_kinds=[1])
    done = threading.Event()
    seen: list[list[int]] = [[], []]

    def flush(results: list[int]) -> None:
        while not done.is_set():
            results.append(log.flush_and_sync())

    threads = [threading.Thread(target=flush, args=(results,)) for results in seen]
    for thread in threads:
        thread.start()
    for number in range(3000):
        index = log.append(1, 1, b"%d" % number)
        assert log.read(index) == b"%d" % number
        if index > 50:
            assert log.read(index - 50) == b"%d" % (number - 50)
    done.set()
    for thread in threads:
        thread.join()
    assert log.flush_and_sync() == 3000
    assert all(sorted(results) == results for results in seen)
    log.close()
    with open_log(storage) as again:
        assert payloads(again) == [b"%d" % number for number in range(3000)]


def test_replay_holds_one_record_at_a_time(disk):
    """Nothing is read ahead beyond a window: the bytes read before the first record are few."""
    log = filled(disk, 0)
    for _ in range(20):
        log.append(1, 1, bytes(200_000))
    log.flush_and_sync()
    read = []
    disk.before = lambda operation, path: read.append(operation) if operation == "read" else None
    records = log.records()
    next(records)
    assert len(read) <= 4


def test_the_format_on_the_disk_does_not_change_by_accident(disk):
    """A change of these bytes is a new format version."""
    disk.random_bytes = lambda count: bytes(range(count))
    log = open_log(disk)
    log.append(7, 9, b"golden")
    log.flush_and_sync()
    content = disk.contents()[FIRST_SEGMENT]
    record = content[SEGMENT_HEADER_BYTES:]
    assert struct.unpack(">4sIB3xQQQ", record[:36]) == (b"\xb5rec", 6, 7, 9, 1, 0)
    assert hashlib.sha256(content).hexdigest() == "44bb5dbd29065f8d61c2f2c2aeb04cd0d0ff9565f6723a2bf07bab0d9650dad8"
