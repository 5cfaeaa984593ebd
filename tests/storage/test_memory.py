"""The storage in memory keeps the same promises as a disk, as long as the program runs."""

from __future__ import annotations

import pytest

from bftkit.errors import StorageError, StorageLocked
from bftkit.storage.log import Log
from bftkit.storage.memory import MemoryStorage
from bftkit.storage.snapshots import SnapshotStore

IDENTITY = bytes(32)


def test_files_grow_at_their_end_and_shrink_there():
    storage = MemoryStorage()
    file = storage.open_append("a")
    file.write([b"one", memoryview(b"two")])
    file.sync()
    assert storage.read("a", 0, 100) == b"onetwo"
    assert storage.read("a", 2, 2) == b"et"
    assert storage.read("a", 6, 2) == b""
    file.truncate(4)
    again = storage.open_append("a")
    again.write([b"!"])
    assert (storage.size("a"), storage.read("a", 0, 9)) == (5, b"onet!")
    file.close()
    file.close()


def test_a_directory_lists_its_own_names():
    storage = MemoryStorage()
    storage.make_directory("d")
    storage.make_directory("d/e")
    for path in ("top", "d/b", "d/a", "d/e/inside", "dx"):
        storage.open_append(path)
    assert storage.list("d") == ["a", "b", "e"]
    assert storage.list("") == ["d", "dx", "top"]
    assert storage.list("d/e") == ["inside"]
    assert storage.exists("d")
    assert storage.exists("d/a")
    assert not storage.exists("a")


def test_renaming_replaces_and_an_open_file_keeps_its_content():
    storage = MemoryStorage()
    storage.open_append("old").write([b"old"])
    file = storage.open_append("new")
    file.write([b"new"])
    storage.rename("new", "old")
    assert storage.read("old", 0, 9) == b"new"
    assert not storage.exists("new")
    file.write([b"er"])
    assert storage.read("old", 0, 9) == b"newer"
    storage.remove("old")
    assert not storage.exists("old")


def test_what_is_not_there_is_an_error_of_the_storage():
    storage = MemoryStorage()
    for call in (
        lambda: storage.read("a", 0, 1),
        lambda: storage.size("a"),
        lambda: storage.remove("a"),
        lambda: storage.rename("a", "b"),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.path == "a"


def test_a_lock_is_held_by_one():
    storage = MemoryStorage()
    lock = storage.lock("l")
    with pytest.raises(StorageLocked):
        storage.lock("l")
    storage.lock("other").release()
    lock.release()
    lock.release()
    second = storage.lock("l")
    lock.release()
    with pytest.raises(StorageLocked):
        storage.lock("l")
    second.release()


def test_random_bytes_are_as_many_as_asked_for():
    storage = MemoryStorage()
    assert len(storage.random_bytes(16)) == 16
    assert storage.random_bytes(16) != storage.random_bytes(16)


def test_a_log_and_snapshots_survive_a_restart():
    storage = MemoryStorage()
    with Log.open(storage, "log", IDENTITY, indexed_kinds=(2,), segment_bytes=100) as log:
        for number in range(20):
            log.append(2, 0, b"%d" % number)
            log.flush_and_sync()
        log.trim(15)
        with pytest.raises(StorageLocked):
            Log.open(storage, "log", IDENTITY)
    SnapshotStore(storage, "snapshots").save(7, [b"state"], b"manifest")
    with Log.open(storage, "log", IDENTITY, indexed_kinds=(2,)) as log:
        assert [record.payload for record in log.records(15)] == [b"14", b"15", b"16", b"17", b"18", b"19"]
        assert log.read(16) == b"15"
    newest = SnapshotStore(storage, "snapshots").newest()
    assert newest is not None
    assert (newest.height, newest.manifest) == (7, b"manifest")
