"""The simulated disk forgets exactly what it may forget."""

import random

import pytest

from bftkit.errors import StorageError, StorageFull, StorageLocked
from bftkit.testing.disk import SECTOR_BYTES, CrashMode, SimulatedCrash, SimulatedDisk

POWER_LOSS = [mode for mode in CrashMode if mode is not CrashMode.KILL]


def new_disk(seed=0):
    return SimulatedDisk(random.Random(seed))


def durable_file(disk, content=b"durable"):
    file = disk.open_append("file")
    file.write((content,))
    file.sync()
    disk.sync_directory("")
    return file


def outcomes(mode, act, seeds=300):
    """What the file holds after a crash, over many seeds."""
    found = set()
    for seed in range(seeds):
        disk = new_disk(seed)
        act(durable_file(disk))
        disk.crash(mode)
        found.add(disk.contents()["file"])
    return found


@pytest.mark.parametrize("mode", list(CrashMode))
def test_what_was_synced_is_kept(mode):
    assert outcomes(mode, lambda file: None, 20) == {b"durable"}


def test_what_was_not_synced_is_kept_as_the_mode_says():
    def act(file):
        file.write((b"-1",))
        file.write((b"-2",))

    assert outcomes(CrashMode.KILL, act) == {b"durable-1-2"}
    assert outcomes(CrashMode.NOTHING, act) == {b"durable"}
    assert outcomes(CrashMode.PREFIX, act) == {b"durable", b"durable-1", b"durable-1-2"}
    torn = outcomes(CrashMode.TORN, act)
    assert {b"durable", b"durable-", b"durable-1", b"durable-1-", b"durable-1-2", b"durable\0\0"} <= torn
    assert all(content.startswith(b"durable") for content in torn)
    assert outcomes(CrashMode.REORDERED, act) == {b"durable", b"durable-1", b"durable\0\0-2", b"durable-1-2"}


def test_reordering_goes_by_sectors():
    def act(file):
        file.write((b"x" * (2 * SECTOR_BYTES),))

    found = outcomes(CrashMode.REORDERED, act)
    assert len(found) == 8
    assert b"durable" + bytes(SECTOR_BYTES - 7) + b"x" * SECTOR_BYTES in found


def test_a_truncation_may_be_undone_until_synced():
    def act(file):
        file.truncate(3)
        file.write((b"!",))

    assert outcomes(CrashMode.NOTHING, act) == {b"durable"}
    assert outcomes(CrashMode.PREFIX, act) == {b"durable", b"dur", b"dur!"}
    assert {b"durable", b"dur", b"dur!", b"dur!ble"} >= outcomes(CrashMode.REORDERED, act)


def test_names_are_lost_unless_their_directory_was_synced():
    def names(mode, seed, *, synced):
        disk = new_disk(seed)
        durable_file(disk)
        disk.make_directory("d")
        for name in ("d/a", "d/b"):
            disk.open_append(name).sync()
        disk.rename("file", "renamed")
        if synced:
            disk.sync_directory("d")
            disk.sync_directory("")
        disk.crash(mode)
        return tuple(disk.contents())

    for mode in POWER_LOSS:
        assert names(mode, 0, synced=True) == ("d/a", "d/b", "renamed")
    assert names(CrashMode.KILL, 0, synced=False) == ("d/a", "d/b", "renamed")
    assert names(CrashMode.NOTHING, 0, synced=False) == ("file",)
    prefixes = {names(CrashMode.PREFIX, seed, synced=False) for seed in range(100)}
    kept = {(), ("d/a",), ("d/a", "d/b")}
    assert prefixes == {(*in_d, name) for in_d in kept for name in ("file", "renamed")}
    assert ("d/b", "file") in {names(CrashMode.REORDERED, seed, synced=False) for seed in range(100)}


def test_a_removed_name_may_be_back():
    disk = new_disk()
    durable_file(disk)
    disk.remove("file")
    assert not disk.exists("file")
    disk.crash(CrashMode.NOTHING)
    assert disk.contents() == {"file": b"durable"}


def test_a_replaced_file_is_the_old_one_or_the_new_one():
    found = set()
    for seed in range(50):
        disk = new_disk(seed)
        durable_file(disk)
        file = disk.open_append("other")
        file.write((b"new",))
        file.sync()
        disk.rename("other", "file")
        disk.crash(CrashMode.REORDERED)
        found.add(disk.contents()["file"])
    assert found == {b"durable", b"new"}


def test_a_failed_sync_loses_what_reads_well():
    disk = new_disk()
    file = durable_file(disk)
    file.write((b"-lost",))
    disk.fail("sync")
    with pytest.raises(StorageError, match="injected"):
        file.sync()
    for call in (file.sync, lambda: file.write((b"x",)), lambda: file.truncate(0)):
        with pytest.raises(StorageError, match="earlier sync"):
            call()
    again = disk.open_append("file")
    assert disk.read("file", 0, 100) == b"durable-lost"
    again.write((b"-kept",))
    again.sync()
    disk.crash(CrashMode.KILL)
    assert disk.read("file", 0, 100) == b"durable-lost-kept"
    disk.crash(CrashMode.NOTHING)
    assert disk.read("file", 0, 100) == b"durable\0\0\0\0\0-kept"


def test_failures_hit_the_operation_and_path_they_are_meant_for():
    disk = new_disk()
    durable_file(disk)
    disk.fail("read", count=2, path="file")
    assert disk.size("file") == 7
    disk.open_append("other").sync()
    assert disk.read("other", 0, 1) == b""
    for _ in range(2):
        with pytest.raises(StorageError, match="injected"):
            disk.read("file", 0, 1)
    assert disk.read("file", 0, 1) == b"d"


def test_a_full_disk_takes_what_fits():
    disk = new_disk()
    file = durable_file(disk)
    disk.capacity_bytes = 10
    with pytest.raises(StorageFull):
        file.write((b"123", b"456"))
    assert disk.read("file", 0, 100) == b"durable123"
    file.truncate(7)
    file.write((b"ok",))
    disk.capacity_bytes = None
    file.write((b"more than fits",))
    assert disk.used_bytes() == 7 + 2 + 14


def test_rot_is_seen_and_survives_a_crash():
    disk = new_disk()
    durable_file(disk)
    assert disk.flip_bit("file", 2) == 2
    damaged = disk.contents()["file"]
    assert bin(damaged[2] ^ b"durable"[2]).count("1") == 1
    disk.crash(CrashMode.NOTHING)
    assert disk.contents()["file"] == damaged
    disk.overwrite("file", 5, b"xy")
    assert disk.contents()["file"][5:] == b"xy"
    with pytest.raises(StorageError, match="shorter"):
        disk.overwrite("file", 6, b"xy")


def test_after_the_power_is_off_nothing_changes_until_the_crash_is_settled():
    disk = new_disk()
    file = durable_file(disk)
    lock = disk.lock("lock")
    disk.crash_after(1)
    file.write((b"!",))
    for call in (file.sync, lambda: disk.remove("file"), lambda: disk.open_append("file"), lambda: disk.list("")):
        with pytest.raises(SimulatedCrash):
            call()
    disk.crash(CrashMode.KILL)
    assert disk.contents() == {"file": b"durable!"}
    with pytest.raises(SimulatedCrash, match="before a crash"):
        file.write((b"x",))
    held = disk.lock("lock")
    lock.release()
    with pytest.raises(StorageLocked):
        disk.lock("lock")
    held.release()


def test_a_hook_sees_every_operation_and_may_crash_it():
    disk = new_disk()
    seen = []

    def hook(operation, path):
        seen.append((operation, path))
        if operation == "sync":
            raise SimulatedCrash("here")

    disk.before = hook
    file = disk.open_append("file")
    file.write((b"x",))
    with pytest.raises(SimulatedCrash):
        file.sync()
    with pytest.raises(SimulatedCrash):
        file.write((b"y",))
    assert seen == [("open_append", "file"), ("write", "file"), ("sync", "file")]


@pytest.mark.parametrize("mode", list(CrashMode))
def test_the_same_seed_gives_the_same_disk(mode):
    def run():
        disk = new_disk(42)
        for number in range(20):
            file = disk.open_append(f"file{number % 3}")
            file.write((disk.random_bytes(50), b"x" * 600))
            if number % 4 == 0:
                file.sync()
            if number % 5 == 0:
                disk.sync_directory("")
        disk.crash(mode)
        return disk.contents()

    assert run() == run()


@pytest.mark.parametrize("mode", [mode for mode in CrashMode if mode is not CrashMode.KILL])
def test_a_crash_says_whether_there_was_anything_to_lose(mode):
    disk = SimulatedDisk(random.Random(1))
    file = disk.open_append("one")
    assert disk.crash(mode), "its name was not durable"
    file = disk.open_append("one")
    file.write((b"one",))
    file.sync()
    disk.sync_directory("")
    assert not disk.crash(mode)
    disk.open_append("one").write((b"two",))
    assert disk.crash(mode)
    assert not disk.crash(mode)
