"""Snapshots: whole, verified, and replaced without a moment of doubt."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import StorageError, StorageFull, UnsupportedFormat
from bftkit.storage.files import FileStorage
from bftkit.storage.preamble import PREAMBLE_BYTES, encode_preamble
from bftkit.storage.snapshots import CHUNK_BYTES, MAGIC, VERSION, SnapshotStore
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk

DATA = random.Random(0).randbytes(2 * CHUNK_BYTES + 1000)


@pytest.fixture
def disk():
    return SimulatedDisk(random.Random(4))


@pytest.fixture(params=["simulated", "files"])
def storage(request, tmp_path):
    return SimulatedDisk(random.Random(4)) if request.param == "simulated" else FileStorage(tmp_path)


def path_of(height):
    return f"snapshots/{height:020d}.snapshot"


def test_a_snapshot_comes_back_as_it_was_saved(storage):
    store = SnapshotStore(storage, "snapshots")
    assert store.newest() is None
    parts: list[bytes | memoryview] = [DATA[:10], memoryview(DATA)[10 : CHUNK_BYTES + 5], b"", DATA[CHUNK_BYTES + 5 :]]
    saved = store.save(7, parts, b"manifest")
    again = SnapshotStore(storage, "snapshots")
    info = again.newest()
    assert info == saved
    assert (info.height, info.manifest, info.total_bytes) == (7, b"manifest", len(DATA))
    assert info.digest == hashlib.sha256(DATA).digest()
    assert info.chunk_digests[0] == hashlib.sha256(DATA[:CHUNK_BYTES]).digest()
    assert b"".join(again.parts(7)) == DATA
    assert len(info.chunk_digests) == 3


@pytest.mark.parametrize("total", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES])
def test_data_of_any_length_is_kept(disk, total):
    info = SnapshotStore(disk, "").save(1, [bytes(total)], b"")
    store = SnapshotStore(disk, "")
    assert store.newest() == info
    assert len(info.chunk_digests) == -(-total // CHUNK_BYTES)
    assert store.read(1, 0, total + 1) == bytes(total)


@given(st.integers(0, len(DATA) + 10), st.integers(0, len(DATA) + 10))
def test_any_range_can_be_read(offset, length):
    store = SnapshotStore(SimulatedDisk(random.Random(0)), "")
    store.save(1, [DATA], b"")
    assert store.read(1, offset, length) == DATA[offset : offset + length]


def test_a_damaged_snapshot_is_reported_and_the_older_one_used(disk):
    """Wherever the damage lies: preamble, data, manifest, digests or trailer."""
    store = SnapshotStore(disk, "snapshots")
    store.save(1, [b"old"], b"m1")
    store.save(2, [DATA], b"m2")
    size = disk.size(path_of(2))
    original = disk.contents()[path_of(2)]
    places = [0, 9, PREAMBLE_BYTES, PREAMBLE_BYTES + len(DATA) - 1, *range(PREAMBLE_BYTES + len(DATA), size)]
    for offset in places:
        disk.flip_bit(path_of(2), offset)
        again = SnapshotStore(disk, "snapshots")
        newest = again.newest()
        assert newest is not None
        assert newest.height == 1
        assert list(again.damaged) == [2]
        assert again.damaged[2].path == path_of(2)
        disk.overwrite(path_of(2), 0, original)
    for length in (0, 10, 100, size - 1):
        other = SimulatedDisk(random.Random(0))
        store = SnapshotStore(other, "snapshots")
        store.save(1, [b"old"], b"m1")
        other.open_append(path_of(2)).write((original[:length],))
        newest = store.newest()
        assert newest is not None
        assert newest.height == 1


def test_rot_after_verification_is_found_when_reading(disk):
    store = SnapshotStore(disk, "snapshots")
    store.save(1, [b"old"], b"")
    store.save(2, [DATA], b"")
    disk.flip_bit(path_of(2), PREAMBLE_BYTES + CHUNK_BYTES)
    assert store.read(2, 0, CHUNK_BYTES) == DATA[:CHUNK_BYTES]
    with pytest.raises(StorageError, match="chunk 1"):
        store.read(2, CHUNK_BYTES, 1)
    newest = store.newest()
    assert newest is not None
    assert newest.height == 1
    with pytest.raises(StorageError, match="no intact snapshot"):
        store.read(2, 0, 1)


def test_a_file_under_another_height_is_damaged(disk):
    store = SnapshotStore(disk, "snapshots")
    store.save(1, [b"data"], b"")
    disk.rename(path_of(1), path_of(9))
    assert SnapshotStore(disk, "snapshots").newest() is None


@pytest.mark.parametrize("magic", [b"bftwal\0\0", b"bftslot\0"])
def test_what_belongs_to_another_file_is_damage_and_the_older_one_is_used(disk, magic):
    store = SnapshotStore(disk, "snapshots")
    for height in (3, 7):
        store.save(height, [b"state"], b"")
    disk.overwrite(path_of(7), 0, encode_preamble(magic, VERSION))
    again = SnapshotStore(disk, "snapshots")
    newest = again.newest()
    assert newest is not None
    assert newest.height == 3
    assert again.damaged[7].reason == "its preamble is damaged"


def test_another_format_is_refused(disk):
    SnapshotStore(disk, "snapshots").save(1, [b"data"], b"")
    disk.overwrite(path_of(1), 0, encode_preamble(MAGIC, VERSION + 1))
    with pytest.raises(UnsupportedFormat):
        SnapshotStore(disk, "snapshots").newest()


def test_pruning_keeps_the_newest_intact_ones(disk):
    store = SnapshotStore(disk, "snapshots")
    for height in (1, 2, 3, 4):
        store.save(height, [b"%d" % height], b"")
    disk.flip_bit(path_of(3), PREAMBLE_BYTES)
    store = SnapshotStore(disk, "snapshots")
    assert store.prune(2) == [3, 1]
    assert store.heights() == [2, 4]
    assert store.prune(2) == []
    assert store.prune(0) == [2], "the last intact one always stays"
    disk.flip_bit(path_of(4), PREAMBLE_BYTES)
    assert SnapshotStore(disk, "snapshots").prune(1) == []


def test_a_full_disk_leaves_what_was_there(disk):
    store = SnapshotStore(disk, "snapshots")
    store.save(1, [b"old"], b"")
    before = disk.contents()
    disk.capacity_bytes = disk.used_bytes() + 100
    with pytest.raises(StorageFull):
        store.save(2, [DATA], b"")
    assert disk.contents() == before


def test_a_snapshot_that_was_found_after_a_kill_is_there_after_a_loss_of_power():
    heights = set()
    for point in range(100):
        disk = SimulatedDisk(random.Random(point))
        store = SnapshotStore(disk, "snapshots")
        store.save(1, [b"old"], b"m1")
        disk.crash_after(point)
        try:
            store.save(2, [DATA], b"m2")
        except SimulatedCrash:
            disk.crash(CrashMode.KILL)
        else:
            break
        found = SnapshotStore(disk, "snapshots").newest()
        assert found is not None
        disk.crash(CrashMode.NOTHING)
        assert SnapshotStore(disk, "snapshots").newest() == found
        heights.add(found.height)
    assert heights == {1, 2}


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_at_each_step_leaves_the_old_snapshot_or_the_new_one(mode):
    heights = set()
    for point in range(100):
        disk = SimulatedDisk(random.Random(point))
        store = SnapshotStore(disk, "snapshots")
        store.save(1, [b"old"], b"m1")
        disk.crash_after(point)
        saved = pruned = False
        try:
            store.save(2, [DATA], b"m2")
            saved = True
            store.prune(1)
            pruned = True
        except SimulatedCrash:
            pass
        disk.crash(mode)
        again = SnapshotStore(disk, "snapshots")
        info = again.newest()
        assert info is not None
        assert not again.damaged
        assert (info.height, info.manifest) in [(1, b"m1"), (2, b"m2")]
        assert info.height == 2 or not saved
        assert b"".join(again.parts(info.height)) == (b"old" if info.height == 1 else DATA)
        assert all(name.endswith(".snapshot") for name in disk.list("snapshots"))
        heights.add(info.height)
        if pruned:
            break
    assert heights == {1, 2}
