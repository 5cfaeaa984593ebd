"""Finding out, after whatever happened, which records a log holds.

The end of the log is where the chain of records stops. Whether it may stop there is decided by what is known to have
been durable: everything in a segment that has a successor, everything up to the mark, and everything that a later
record says was durable when it was written. A bad record beyond all that is a torn tail, and is cut; a bad or missing
one below it is `CorruptLog`, which names the segment, the offset and the index.

A tail that is not known to be durable is copied into a new file, made durable and put in the old one's place. The copy
cuts what is torn, and it does not trust the system's page cache: after a failed sync the pages of the old file may
read well and be marked clean, so that syncing them again would write nothing. The copy needs free space of up to one
segment. All of it can be interrupted and repeated.
"""

import struct
from typing import NamedTuple

from bftkit.errors import CorruptLog
from bftkit.storage.double_slot import DoubleSlot
from bftkit.storage.interface import Storage
from bftkit.storage.record import SALT_BYTES
from bftkit.storage.replacement import join, remove_leftovers, replace_file, settle_names
from bftkit.storage.segment import (
    SegmentHeader,
    SegmentReader,
    chain_start,
    encode_segment_header,
    list_segments,
    segment_name,
)

MARK_NAME = "mark"
_MARK = struct.Struct(">QQQ")


class Mark(NamedTuple):
    """What is known of a log beside its records, kept in a double slot."""

    first_index: int = 1
    """Low-water mark: the first index of the oldest segment that is still needed."""
    durable_index: int = 0
    """Records up to here were durable; more may have become so since."""
    newest_segment: int = 0
    """First index of the newest segment known to exist; 0 while the log is being created."""

    def encode(self) -> bytes:
        """Return the mark's bytes."""
        return _MARK.pack(*self)


def read_mark(slot: DoubleSlot) -> Mark | None:
    """Return the slot's mark, or None if none was ever written; raises `CorruptLog` for a value that is no mark."""
    if slot.value is None:
        return None
    if len(slot.value) != _MARK.size:
        raise CorruptLog(f"the mark of a log has {len(slot.value)} bytes instead of {_MARK.size}")
    return Mark(*_MARK.unpack(slot.value))


class Location(NamedTuple):
    """Where an indexed record lies."""

    segment: int
    offset: int
    length: int
    check: bytes


class Segment(NamedTuple):
    """A segment that the log holds."""

    header: SegmentHeader
    size: int


class Recovered(NamedTuple):
    """A log's state after recovery; every record in it is durable."""

    mark: Mark
    segments: list[Segment]
    chain: bytes
    next_index: int
    locations: dict[int, Location]
    cut_bytes: int
    """How much torn tail was cut."""


def create_segment(storage: Storage, directory: str, identity: bytes, first_index: int, previous: bytes) -> Segment:
    """Write a new, empty segment, durable under its name."""
    header = SegmentHeader(identity, storage.random_bytes(SALT_BYTES), first_index, previous)
    content = encode_segment_header(header)
    replace_file(storage, join(directory, segment_name(first_index)), (content,))
    return Segment(header, len(content))


def recover(
    storage: Storage, directory: str, identity: bytes, slot: DoubleSlot, indexed_kinds: frozenset[int]
) -> Recovered:
    """Verify a log, or create it if there is none, and return its state.

    Payloads are verified in the last segment; in the others, headers and their chain are, and `Log.records` and
    `Log.read` verify what they return. Raises `CorruptLog`, `UnsupportedFormat`, `StorageError` (another identity)
    and `StorageFull`.
    """
    remove_leftovers(storage, directory)
    settle_names(storage, directory)
    present = list_segments(storage, directory)
    mark = read_mark(slot)
    if mark is None:
        if present:
            raise CorruptLog(f"{directory} holds segments but no mark", directory)
        mark = Mark()
        slot.write_both(mark.encode())
    if mark.newest_segment == 0:
        # A crash during creation, or none: the first segment may be there already, and cannot hold a record.
        if not present:
            create_segment(storage, directory, identity, 1, chain_start(identity))
            present = [1]
        mark = mark._replace(newest_segment=1)
        slot.write_both(mark.encode())
    first_indexes = [first for first in present if first >= mark.first_index]
    _check_names(directory, first_indexes, mark)
    recovered = _read_segments(storage, directory, identity, mark, first_indexes, indexed_kinds)
    stale = [first for first in present if first < mark.first_index]
    if recovered.mark != mark or stale:
        slot.write_both(recovered.mark.encode())
    remove_segments(storage, directory, stale)
    return recovered


def remove_segments(storage: Storage, directory: str, first_indexes: list[int]) -> None:
    """Remove segments, durably."""
    for first in first_indexes:
        storage.remove(join(directory, segment_name(first)))
    if first_indexes:
        storage.sync_directory(directory)


def _check_names(directory: str, first_indexes: list[int], mark: Mark) -> None:
    for needed in (mark.first_index, mark.newest_segment):
        if needed not in first_indexes:
            path = join(directory, segment_name(needed))
            raise CorruptLog(f"segment {path} is missing, which the mark says is needed", path)


def _read_segments(
    storage: Storage,
    directory: str,
    identity: bytes,
    mark: Mark,
    first_indexes: list[int],
    indexed_kinds: frozenset[int],
) -> Recovered:
    segments: list[Segment] = []
    locations: dict[int, Location] = {}
    before: SegmentReader | None = None
    for first in first_indexes:
        reader = SegmentReader(storage, directory, first, identity)
        _check_link(reader, before, identity)
        last = first == first_indexes[-1]
        for record in reader.walk(payloads=last):
            if record.header.kind in indexed_kinds:
                header = record.header
                locations[header.index] = Location(first, record.offset, header.length, header.check)
        if reader.fault and not last:
            raise corruption(reader)
        segments.append(Segment(reader.header, reader.end))
        before = reader
    if before is None:
        raise CorruptLog(f"{directory} holds no segment", directory)
    _settle_tail(storage, before, mark)
    newest = Mark(mark.first_index, before.next_index - 1, before.header.first_index)
    return Recovered(newest, segments, before.chain, before.next_index, locations, before.size - before.end)


def _check_link(reader: SegmentReader, before: SegmentReader | None, identity: bytes) -> None:
    if before is None:
        if reader.header.first_index == 1 and reader.header.previous != chain_start(identity):
            raise CorruptLog(f"segment {reader.path} does not start the chain of this node", reader.path)
        return
    if reader.header.first_index != before.next_index or reader.header.previous != before.chain:
        raise CorruptLog(
            f"segment {reader.path} does not follow from {before.path}, which ends before index {before.next_index}",
            reader.path,
        )


def _settle_tail(storage: Storage, reader: SegmentReader, mark: Mark) -> None:
    """Decide whether the last segment may end where its chain does, and make what it holds durable."""
    bad = reader.next_index
    if bad <= mark.durable_index:
        raise corruption(reader, f"the mark says that records up to {mark.durable_index} were durable")
    if reader.fault:
        proof = reader.find_proof(bad)
        if proof is not None:
            raise corruption(reader, f"record {proof.index} says that those up to {proof.durable} were durable")
    if reader.fault or bad - 1 > mark.durable_index or mark.newest_segment != reader.header.first_index:
        replace_file(storage, reader.path, reader.content(reader.end))


def corruption(reader: SegmentReader, proof: str = "a later segment exists") -> CorruptLog:
    """Return the error for the record at which a walk stopped."""
    fault = reader.fault or "the segment ends before it"
    return CorruptLog(
        f"record {reader.next_index} in segment {reader.path} at offset {reader.end} was durable and cannot be used: "
        f"{fault} ({proof})",
        reader.path,
    )
