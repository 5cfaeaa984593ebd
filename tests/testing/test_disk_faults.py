"""Operations of the simulated disk that go astray, stop half-way, find no space or take their time."""

import random

import pytest

from bftkit.errors import StorageError, StorageFull
from bftkit.testing.disk import SECTOR_BYTES, CrashMode, SimulatedCrash, SimulatedDisk


def sectors(letters):
    """Content whose every sector is one letter; a letter in lower case stands for half a sector."""
    return b"".join(letter.encode() * (SECTOR_BYTES if letter.isupper() else SECTOR_BYTES // 2) for letter in letters)


def new_disk(seed=0, **files):
    disk = SimulatedDisk(random.Random(seed))
    for name, letters in files.items():
        file = disk.open_append(name)
        file.write((sectors(letters),))
        file.sync()
    disk.sync_directory("")
    return disk


def read_as(disk, name):
    """The letters of what a read of the whole file returns."""
    data = disk.read(name, 0, 1 << 20)
    return "".join(chr(data[at]) for at in range(0, len(data), SECTOR_BYTES))


def test_a_misdirected_read_returns_another_place_and_changes_nothing():
    found = set()
    for seed in range(300):
        disk = new_disk(seed, one="AB", two="CDE")
        disk.misdirect_read("one", 1)
        found.add(read_as(disk, "one"))
        assert disk.misdirected == 1
        assert read_as(disk, "one") == "AB"
        assert disk.contents() == {"one": sectors("AB"), "two": sectors("CDE")}
    # The whole from one place, or one sector from any other.
    assert found == {"CD", "DE"} | {"BB", "CB", "DB", "EB"} | {"AA", "AC", "AD", "AE"}


def test_a_misdirected_read_keeps_its_place_within_the_sector():
    content = bytes(range(256)) * 8
    for seed in range(20):
        disk = SimulatedDisk(random.Random(seed))
        disk.open_append("file").write((content,))
        disk.misdirect_read()
        # Every sector of this file reads the same, so none can be told from another.
        assert disk.read("file", 700, 900) == content[700:1600]
        assert disk.misdirected == 1


def test_so_many_reads_go_astray_as_were_asked_for():
    disk = new_disk(one="A", two="B")
    disk.misdirect_read("one", 2)
    assert read_as(disk, "two") == "B"
    assert [read_as(disk, "one") for _ in range(4)] == ["B", "B", "A", "A"]


def test_a_read_goes_to_the_place_that_is_named():
    disk = new_disk(one="A", two="BC")
    disk.misdirect_read("one", place=("two", SECTOR_BYTES - 2))
    assert disk.read("one", 10, 4) == b"BBCC"


def test_without_another_place_a_read_comes_true_and_the_next_one_is_tried():
    disk = new_disk(one="A")
    disk.misdirect_read()
    assert read_as(disk, "one") == "A"
    assert disk.misdirected == 0
    disk.open_append("two").write((sectors("B"),))
    assert read_as(disk, "one") == "B"
    disk.misdirect_read("one", place=("two", 1))
    assert read_as(disk, "one") == "A"


def test_a_misdirected_write_leaves_zeros_and_spoils_another_place_for_good():
    found = set()
    for seed in range(300):
        disk = new_disk(seed, one="AB")
        disk.misdirect_write("two")
        file = disk.open_append("two")
        file.write((sectors("CD"),))
        file.sync()
        disk.sync_directory("")
        file.write((sectors("E"),))
        disk.crash(CrashMode.NOTHING)
        found.add((read_as(disk, "one"), read_as(disk, "two")))
        assert disk.misdirected == 1
    whole = {("CD", "\0\0")}
    one_sector = {("CB", "\0D"), ("AC", "\0D"), ("DB", "C\0"), ("AD", "C\0"), ("AB", "\0C"), ("AB", "D\0")}
    assert found == whole | one_sector


def test_a_write_goes_to_the_place_that_is_named():
    disk = new_disk(one="AB")
    disk.misdirect_write("two", place=("one", 1))
    file = disk.open_append("two")
    file.write((b"x", b"yz"))
    assert disk.contents() == {"one": b"Axyz" + sectors("AB")[4:], "two": bytes(3)}


def test_misdirections_outlast_a_crash_and_failures_do_not():
    disk = new_disk(one="A", two="B")
    disk.misdirect_read("one")
    disk.fail("read", 5)
    disk.short_write()
    disk.crash(CrashMode.KILL)
    assert read_as(disk, "one") == "B"
    disk.open_append("two").write((b"whole",))
    disk.misdirect_read("one")
    disk.no_more_faults()
    assert read_as(disk, "one") == "A"


def test_a_short_write_fails_and_leaves_a_part():
    found = set()
    for seed in range(300):
        disk = new_disk(seed)
        file = disk.open_append("file")
        disk.short_write(path="file")
        with pytest.raises(StorageError, match="after a part") as caught:
            file.write((b"ab", b"cd"))
        assert not isinstance(caught.value, StorageFull)
        found.add(disk.contents()["file"])
        file.write((b"!",))
    assert found == {b"", b"a", b"ab", b"abc"}


def test_nothing_new_is_created_on_a_full_disk():
    disk = new_disk(one="A")
    disk.make_directory("old")
    disk.fill()
    for create in (lambda: disk.open_append("two"), lambda: disk.make_directory("new")):
        with pytest.raises(StorageFull, match="cannot create"):
            create()
    assert disk.list("") == ["old", "one"]
    # What only changes names that exist needs no room, and removing makes some.
    disk.make_directory("old")
    disk.rename("one", "two")
    disk.remove("two")
    disk.open_append("three").write((sectors("B"),))
    disk.fill(free_bytes=3)
    with pytest.raises(StorageFull):
        disk.open_append("four").write((b"abcd",))
    assert disk.contents()["four"] == b"abc"
    disk.make_room()
    disk.open_append("five").write((sectors("CCCC"),))


def test_slow_operations_say_how_long_they_took():
    disk = new_disk()
    assert disk.latency_us == 0
    disk.slow("sync", 500)
    disk.slow("sync", 70, "log")
    disk.slow("read", 9)
    log, other = disk.open_append("log"), disk.open_append("other")
    log.sync()
    log.sync()
    other.sync()
    disk.read("log", 0, 1)
    assert disk.take_latency_us() == 570 + 570 + 500 + 9
    assert disk.take_latency_us() == 0
    disk.slow("sync", 1)
    disk.slow("sync", 0, "log")
    disk.crash(CrashMode.KILL)
    disk.open_append("log").sync()
    assert disk.latency_us == 1
    disk.no_more_faults()
    disk.open_append("log").sync()
    assert disk.take_latency_us() == 1


def test_a_crash_that_has_its_own_stream_forgets_what_was_drawn_before():
    def left(draws, stream):
        disk = new_disk(7, one="A")
        disk.random_bytes(draws)
        file = disk.open_append("one")
        file.write((b"x" * 5_000,))
        disk.crash(CrashMode.TORN, stream and random.Random(stream))
        at = disk.flip_bit("one", random=random.Random(stream or 1))
        return at, disk.contents()

    assert left(1, "crash") == left(99, "crash")
    assert left(1, None) != left(99, None)
    assert left(1, "crash") != left(1, "another crash")


def test_planned_failures_do_not_move_the_stream():
    def salt(plan):
        disk = new_disk(3)
        plan(disk)
        return disk.random_bytes(8)

    assert salt(lambda disk: None) == salt(lambda disk: disk.fail("sync", 3))
    own = random.Random(1)
    assert salt(lambda disk: None) == salt(lambda disk: disk.misdirect_read(random=own))


def test_a_disk_that_nothing_waits_for_is_not_watched():
    disk = new_disk()
    file = disk.open_append("file")
    assert not disk.watched
    for plan in (
        lambda: disk.fail("sync"),
        lambda: disk.short_write(),
        lambda: disk.misdirect_read(),
        lambda: disk.slow("sync", 1),
        lambda: disk.crash_after(5),
    ):
        plan()
        assert disk.watched
        disk.no_more_faults()
        file.write((b"x",))
        assert not disk.watched
    disk.before = lambda operation, path: None
    file.write((b"x",))
    assert disk.watched
    disk.before = None
    disk.crash_after(0)
    for _ in range(2):
        with pytest.raises(SimulatedCrash):
            file.write((b"x",))


# --- Telling what happened ---


@pytest.fixture
def told():
    return []


def test_a_flipped_bit_is_met_by_the_first_read_that_returns_it(told):
    disk = new_disk(one="AB", two="C")
    disk.flip_bit("one", 700, then=lambda: told.append("met"))
    disk.read("two", 0, 1_000)
    disk.read("one", 0, 700)
    disk.read("one", 701, 1_000)
    assert told == []
    disk.crash(CrashMode.TORN)
    disk.no_more_faults()
    disk.read("one", 600, 101)
    disk.read("one", 600, 101)
    assert told == ["met"]


def test_a_flipped_bit_that_is_gone_before_anybody_reads_it_is_never_met(told):
    disk = new_disk(one="A", two="A", three="A")
    for name in ("one", "two", "three"):
        disk.flip_bit(name, 100, then=lambda: told.append("met"))
    disk.overwrite("one", 0, sectors("A"))
    disk.open_append("two").truncate(50)
    disk.rename("one", "three")
    for name in ("two", "three"):
        disk.read(name, 0, 1_000)
    assert told == []


def test_whoever_asks_for_a_fault_is_told_when_it_happens_and_not_before(told):
    disk = new_disk(one="AB", two="CD")
    file = disk.open_append("one")
    disk.fail("sync", then=lambda: told.append("sync"))
    disk.fail("read", 2, then=lambda: told.append("read"))
    disk.short_write(then=lambda: told.append("short"))
    disk.misdirect_write("two", then=lambda: told.append("astray"))
    disk.misdirect_read("two", then=lambda: told.append("misread"))
    assert told == []
    for _ in range(2):
        with pytest.raises(StorageError):
            disk.read("one", 0, 1)
    with pytest.raises(StorageError):
        file.write((b"some bytes",))
    with pytest.raises(StorageError):
        file.sync()
    disk.open_append("two").write((sectors("E"),))
    disk.read("two", 0, 100)
    assert told == ["read", "read", "short", "sync", "astray", "misread"]


def test_a_full_disk_says_so_when_something_finds_no_space_the_first_time(told):
    disk = new_disk(one="A")
    file = disk.open_append("one")
    disk.fill(10, then=lambda: told.append("full"))
    file.write((b"ten bytes.",))
    assert told == []
    for _ in range(2):
        with pytest.raises(StorageFull):
            file.write((b"more",))
    assert told == ["full"]


def test_a_crash_in_place_of_an_operation_is_told(told):
    disk = new_disk(one="A")
    disk.crash_after(1, lambda: told.append("crash"))
    disk.read("one", 0, 1)
    assert told == []
    for _ in range(2):
        with pytest.raises(SimulatedCrash):
            disk.read("one", 0, 1)
    assert told == ["crash"]
