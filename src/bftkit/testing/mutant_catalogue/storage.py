"""The log and the snapshots, broken on purpose."""

from random import Random
from typing import Any

import msgspec

from bftkit.errors import CorruptLog, StorageError, StorageFull
from bftkit.storage.log import Log
from bftkit.storage.preamble import PREAMBLE_BYTES
from bftkit.storage.replacement import TEMPORARY_SUFFIX
from bftkit.storage.snapshots import CHUNK_BYTES, SUFFIX, SnapshotStore
from bftkit.testing.disk import CrashMode, SimulatedDisk
from bftkit.testing.mutant_catalogue.schedules import CRASHES
from bftkit.testing.mutants import Check, Mutant, Schedules, doing_nothing


def _retried_sync(original: Any) -> Any:
    def write(self: Any, batch: Any) -> None:
        tail = self._segments[self._tail]
        try:
            original(self, batch)
        except StorageFull:
            raise
        except StorageError:
            # "Try again": the pages are marked clean by now, so the second sync has nothing to write, and succeeds.
            _, locations, chain, size = self._encode(batch, tail.size)
            self._file = self._storage.open_append(f"{self._directory}/{self._tail:020d}.log")
            self._file.sync()
            with self._memory:
                self._chain = chain
                self._segments[self._tail] = type(tail)(tail.header, size)
                self._locations.update(locations)
                self._durable_index = batch[-1].index
                self._buffered = 0
                self._flushing = []

    return write


def _without_directory_sync(original: Any) -> Any:
    def replace_file(storage: Any, path: str, chunks: Any) -> None:
        temporary = path + TEMPORARY_SUFFIX
        file = storage.open_append(temporary)
        try:
            file.truncate(0)
            for chunk in chunks:
                file.write((chunk,))
            file.sync()
        finally:
            file.close()
        storage.rename(temporary, path)

    return replace_file


def _look_at_damaged_records() -> str | None:
    """Damage to a record that was durable stops the log, and is not cut as if it were torn."""
    disk = SimulatedDisk(Random(1))
    log = Log.open(disk, "log", bytes(32))
    for number in range(4):
        log.append(1, 0, b"record %d" % number)
        log.flush_and_sync()
    path = next(name for name in disk.contents() if name.endswith(".log"))
    place = disk.contents()[path].index(b"record 1")
    disk.flip_bit(path, place)
    disk.crash(CrashMode.KILL)
    try:
        records = [record.payload for record in Log.open(disk, "log", bytes(32)).records()]
    except CorruptLog:
        return None
    return f"a damaged log opens, with {records}"


def _never_synced(original: Any) -> Any:
    class Unsynced:
        """A file that takes everything, and keeps nothing."""

        def __init__(self, file: Any) -> None:
            self.write, self.truncate, self.close = file.write, file.truncate, file.close

        def sync(self) -> None:
            return None

    def write(self: Any, batch: Any) -> None:
        file = self._file
        self._file = Unsynced(file)
        try:
            original(self, batch)
        finally:
            self._file = file

    return write


def _mark_in_memory(original: Any) -> Any:
    def set_mark(self: Any, mark: Any, *, both: bool = False) -> None:
        self._mark = mark

    return set_mark


def _unverified_chunk(original: Any) -> Any:
    def chunk(self: Any, info: Any, number: int) -> Any:
        start = PREAMBLE_BYTES + number * CHUNK_BYTES
        return self._storage.read(self._path(info.height), start, min(CHUNK_BYTES, info.total_bytes))

    return chunk


def _look_at_damaged_snapshots() -> str | None:
    """A snapshot that is damaged after it was written is not handed out."""
    disk = SimulatedDisk(Random(1))
    store = SnapshotStore(disk, "snapshots")
    store.save(8, [b"the state after eight batches"], b"")
    path = next(name for name in disk.contents() if name.endswith(SUFFIX))
    disk.flip_bit(path, disk.contents()[path].index(b"eight"))
    try:
        data = store.read(8, 0, 64)
    except StorageError:
        return None
    return f"a damaged snapshot is handed out: {data!r}"


def _look_at_names_after_a_kill() -> str | None:
    """A snapshot that was found after a kill is there after a loss of power."""
    disk = SimulatedDisk(Random(1))
    SnapshotStore(disk, "snapshots").save(1, [b"the state"], b"")
    temporary = disk.open_append("snapshots/2" + TEMPORARY_SUFFIX)
    temporary.write((disk.read("snapshots/" + disk.list("snapshots")[0], 0, 4_096),))
    temporary.sync()
    disk.rename("snapshots/2" + TEMPORARY_SUFFIX, f"snapshots/{2:020d}{SUFFIX}")
    disk.crash(CrashMode.KILL)
    found = SnapshotStore(disk, "snapshots").heights()
    disk.crash(CrashMode.NOTHING)
    again = SnapshotStore(disk, "snapshots").heights()
    return None if again == found else f"snapshots {found} were found, and then {again}"


MUTANTS = (
    Mutant(
        "log: a failed sync is tried again",
        "After a failed fsync the next one succeeds, and nothing is on the disk (fsyncgate).",
        "bftkit.storage.log:Log._write",
        _retried_sync,
        (
            Schedules(profile=msgspec.structs.replace(CRASHES, sync_errors=8, power_cuts=4)),
            Schedules(profile="disk"),
        ),
    ),
    Mutant(
        "log: a rename without its directory",
        "A file that was renamed is back under its old name after a loss of power.",
        "bftkit.storage.replacement:replace_file",
        _without_directory_sync,
        (Schedules(profile=CRASHES), Schedules(profile="disk")),
    ),
    Mutant(
        "log: payloads are not verified",
        "A record whose payload is torn or rotten is taken for whole.",
        "bftkit.storage.record:RecordCodec.verify",
        lambda original: lambda self, header, payload_digest: True,
        (Schedules(profile=CRASHES), Check(_look_at_damaged_records)),
    ),
    Mutant(
        "log: the first bad record ends it",
        "Whatever follows a bad record is cut, though it was durable.",
        "bftkit.storage.segment:SegmentReader.find_proof",
        lambda original: lambda self, bad: None,
        (Check(_look_at_damaged_records),),
    ),
    Mutant(
        "log: nothing is synced",
        "A record counts as durable as soon as it is written.",
        "bftkit.storage.log:Log._write",
        _never_synced,
        (Schedules(profile=CRASHES), Schedules(profile="disk")),
    ),
    Mutant(
        "log: files go before it is noted",
        "Segments are removed though the mark that says so is not on the disk.",
        "bftkit.storage.log:Log._set_mark",
        _mark_in_memory,
        (Schedules(profile=CRASHES), Schedules(profile="disk")),
    ),
    Mutant(
        "snapshot: what is read is not verified",
        "A state that the disk has damaged is handed out.",
        "bftkit.storage.snapshots:SnapshotStore._chunk",
        _unverified_chunk,
        (Check(_look_at_damaged_snapshots),),
    ),
    Mutant(
        "snapshot: what a kill has left is trusted",
        "A snapshot whose name no sync has covered is relied on, and gone after a loss of power.",
        "bftkit.storage.replacement:settle_names",
        doing_nothing,
        (Check(_look_at_names_after_a_kill),),
    ),
)
"""All of them."""
