"""Replacing a whole file."""

import random

import pytest

from bftkit.errors import StorageFull
from bftkit.storage.replacement import TEMPORARY_SUFFIX, make_durable_directory, remove_leftovers, replace_file
from bftkit.testing.disk import CrashMode, SimulatedCrash, SimulatedDisk


@pytest.mark.parametrize("mode", list(CrashMode))
def test_a_crash_leaves_the_old_file_or_the_new_one(mode):
    seen = set()
    for point in range(12):
        disk = SimulatedDisk(random.Random(point))
        make_durable_directory(disk, "d")
        replace_file(disk, "d/file", (b"old",))
        disk.crash_after(point)
        done = False
        try:
            replace_file(disk, "d/file", (b"n", b"ew"))
            done = True
        except SimulatedCrash:
            pass
        disk.crash(mode)
        content = disk.contents()["d/file"]
        assert content == b"new" if done else content in (b"old", b"new")
        seen.add(content)
        remove_leftovers(disk, "d")
        assert disk.list("d") == ["file"]
    assert seen == {b"old", b"new"}


def test_a_leftover_of_an_earlier_attempt_does_not_get_in():
    disk = SimulatedDisk(random.Random(0))
    disk.open_append("file" + TEMPORARY_SUFFIX).write((b"leftover",))
    replace_file(disk, "file", (b"new",))
    assert disk.contents() == {"file": b"new"}


def test_a_full_disk_leaves_the_old_file_and_nothing_else():
    disk = SimulatedDisk(random.Random(0))
    replace_file(disk, "file", (b"old",))
    disk.capacity_bytes = 5
    with pytest.raises(StorageFull):
        replace_file(disk, "file", (b"newer",))
    assert disk.contents() == {"file": b"old"}
