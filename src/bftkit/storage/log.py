"""The write-ahead log: an endless list of records in segment files, durable in groups.

Writing has two halves. `Log.append` only queues a record and gives it its index; `Log.flush_and_sync` writes all that
is queued with one write and one fdatasync, and may run in a thread while others append. What was written by a flush
that returned is durable; of what was not, any part may survive a crash, but the log always comes back as a prefix.

What recovery can tell apart, and what it cannot:

* A torn, missing, zeroed or reordered part of writes that no sync covered is cut: nobody was told of those records.
* Damage to a record that is known to have been durable is `CorruptLog`, at opening or when the record is read. Known
  are all records of every segment but the last, all up to the mark (which advances at opening, at each new segment
  and at a clean close), and all up to the `durable` field of any later record whose header is whole. Each flush thus
  vouches for those before it.
* Damage to the records of the very last flush before an unclean stop looks like a torn write, and is cut, unless a
  mark came after it. Only another copy elsewhere (the peers') can tell; a node that cannot afford the doubt about its
  last vote should close cleanly or come back as a learner after such damage.
* A whole directory replaced by an older copy of itself is consistent, and is not noticed here.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import msgspec

from bftkit.errors import CorruptLog, StorageError, StorageFull
from bftkit.storage.double_slot import DoubleSlot
from bftkit.storage.interface import AppendFile, Buffer, Lock, Storage
from bftkit.storage.record import HEADER_BYTES, MAX_PAYLOAD_BYTES, Record, RecordCodec, digest_of
from bftkit.storage.recovery import (
    MARK_NAME,
    Location,
    Mark,
    Recovered,
    Segment,
    corruption,
    create_segment,
    read_mark,
    recover,
    remove_segments,
)
from bftkit.storage.replacement import join, make_durable_directory
from bftkit.storage.segment import SegmentReader, segment_name

SEGMENT_BYTES = 64 * 1024 * 1024
BUFFER_BYTES = 64 * 1024 * 1024
IDENTITY_BYTES = 32
LOCK_NAME = "lock"
JOIN_BELOW_BYTES = 4096
"""Buffers shorter than this are glued together before a write: copying them is cheaper than telling the system of
each."""


class _Queued(msgspec.Struct, frozen=True, gc=False):
    index: int
    kind: int
    epoch: int
    buffers: tuple[Buffer, ...]
    length: int
    payload_digest: bytes | None


class Log:
    """A log that is open, and locked against every other process.

    `append`, `read` and the properties may be used from any thread at any time; `flush_and_sync`, `trim` and `close`
    do I/O one at a time. After an I/O error other than a full disk the log is dead: every call raises, and what is
    true must be found out by opening it again.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        identity: bytes,
        slot: DoubleSlot,
        lock: Lock,
        recovered: Recovered,
        limits: tuple[int, int, frozenset[int]],
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._identity = identity
        self._slot = slot
        self._file_lock = lock
        self._segment_bytes, self._buffer_bytes, self._indexed_kinds = limits
        self._io = threading.Lock()
        """Held while files change: one flush at a time."""
        self._memory = threading.Lock()
        """Held for moments, around what `append` and `read` share with a flush."""
        self._queued: list[_Queued] = []
        self._flushing: list[_Queued] = []
        self._buffered = 0
        self._failure = ""
        self._closed = False
        self._segments = {segment.header.first_index: segment for segment in recovered.segments}
        self._codecs = {first: RecordCodec(segment.header.salt) for first, segment in self._segments.items()}
        self._locations = recovered.locations
        self._chain = recovered.chain
        self._next_index = recovered.next_index
        self._durable_index = recovered.next_index - 1
        self._mark = recovered.mark
        self.cut_bytes = recovered.cut_bytes
        """Length of the torn tail that opening cut; 0 if there was none."""
        self._file: AppendFile = storage.open_append(join(directory, segment_name(self._tail)))

    @classmethod
    def open(
        cls,
        storage: Storage,
        directory: str,
        identity: bytes,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        indexed_kinds: Iterable[int] = (),
        create: bool = True,
    ) -> "Log":
        """Open the log in `directory`, recovering it, or create it unless `create` is false.

        `identity` is 32 bytes that bind the log to one node of one cluster. A segment is closed by the first flush
        after it reached `segment_bytes`; at most `buffer_bytes` of payload wait in memory; records of `indexed_kinds`
        can be `read` singly.

        Raises `StorageLocked` if it is open already, `CorruptLog` if what was durable is damaged or missing,
        `UnsupportedFormat` if another version wrote it, and `StorageError` if it belongs to another identity, is
        missing and may not be created, or the disk fails.
        """
        if len(identity) != IDENTITY_BYTES:
            raise StorageError(f"an identity has {IDENTITY_BYTES} bytes, not {len(identity)}", directory)
        if not create and not storage.exists(directory):
            raise StorageError(f"there is no log in {directory!r}", directory)
        make_durable_directory(storage, directory)
        lock = storage.lock(join(directory, LOCK_NAME))
        try:
            slot = DoubleSlot(storage, directory, MARK_NAME, identity)
            mark = read_mark(slot)
            if not create and (mark is None or mark.newest_segment == 0):
                raise StorageError(f"there is no log in {directory!r}", directory)
            kinds = frozenset(indexed_kinds)
            recovered = recover(storage, directory, identity, slot, kinds)
            return cls(storage, directory, identity, slot, lock, recovered, (segment_bytes, buffer_bytes, kinds))
        except BaseException:
            lock.release()
            raise

    @property
    def first_index(self) -> int:
        """Index of the oldest record that is still held."""
        return self._mark.first_index

    @property
    def segments(self) -> tuple[int, ...]:
        """Index of the first record of each segment that is held, ascending."""
        with self._memory:
            return tuple(sorted(self._segments))

    @property
    def next_index(self) -> int:
        """Index that the next append will get."""
        return self._next_index

    @property
    def durable_index(self) -> int:
        """Highest index that survives a crash; 0 while there is none."""
        return self._durable_index

    @property
    def total_bytes(self) -> int:
        """Total length of the segment files."""
        with self._memory:
            return sum(segment.size for segment in self._segments.values())

    @property
    def buffered_bytes(self) -> int:
        """Payload that waits for a flush, bounded by `buffer_bytes`."""
        return self._buffered

    def append(
        self,
        kind: int,
        epoch: int,
        payload: Buffer | Sequence[Buffer],
        payload_digest: bytes | None = None,
    ) -> int:
        """Queue a record and return its index; nothing is written before `flush_and_sync`.

        The buffers must not change until then. `payload_digest`, if known, is the SHA-256 of the whole payload: it is
        taken on trust, and a wrong one makes the record unreadable. Raises `StorageError` when the buffer is full.
        """
        buffers = (payload,) if isinstance(payload, bytes | memoryview) else tuple(payload)
        length = sum([len(part) if isinstance(part, bytes) else part.nbytes for part in buffers])
        if length > MAX_PAYLOAD_BYTES or not 0 <= kind <= 255 or not 0 <= epoch < 1 << 64:
            message = f"a record of kind {kind}, epoch {epoch} and {length} bytes cannot be stored"
            raise StorageError(message, self._directory)
        with self._memory:
            self._check()
            # A record that is longer than the whole bound may still wait alone.
            if self._buffered and self._buffered + length > self._buffer_bytes:
                raise StorageError(f"{self._buffered} bytes wait already: flush before appending more", self._directory)
            index = self._next_index
            self._next_index = index + 1
            self._buffered += length
            self._queued.append(_Queued(index, kind, epoch, buffers, length, payload_digest))
        return index

    def flush_and_sync(self) -> int:
        """Write everything queued, make it durable, and return the highest durable index.

        Raises `StorageFull` when there is no space: nothing has changed then, the records stay queued, and the next
        call tries again. Any other error ends the log.
        """
        with self._io:
            return self._flush()

    def read(self, index: int) -> bytes:
        """Return the payload of a queued record, or of a written one of an indexed kind.

        Raises `CorruptLog` if it is damaged, `StorageError` if it is not held or not indexed.
        """
        with self._memory:
            self._check()
            for waiting in (self._flushing, self._queued):
                if waiting and waiting[0].index <= index <= waiting[-1].index:
                    return b"".join(waiting[index - waiting[0].index].buffers)
            location = self._locations.get(index)
            if location is None:
                raise StorageError(f"record {index} is not held, or not of an indexed kind", self._directory)
            codec = self._codecs[location.segment]
        path = join(self._directory, segment_name(location.segment))
        data = self._storage.read(path, location.offset, HEADER_BYTES + location.length)
        header = codec.decode_header(data)
        payload = data[HEADER_BYTES:]
        if (
            header is None
            or (header.index, header.length, header.check) != (index, location.length, location.check)
            or not codec.verify(header, digest_of((payload,)))
        ):
            raise CorruptLog(f"record {index} in segment {path} at offset {location.offset} is damaged", path)
        return payload

    def records(self, from_index: int = 1) -> Iterator[Record]:
        """Yield the durable records from `from_index` on, each verified, one in memory at a time.

        Those that become durable after the first is asked for are not included. Raises `CorruptLog` at a damaged
        record. Not to be used across a `trim`.
        """
        self._check()
        last = self._durable_index
        with self._memory:
            firsts = sorted(self._segments)
        for position, first in enumerate(firsts):
            if first > last or (position + 1 < len(firsts) and firsts[position + 1] <= from_index):
                continue
            reader = SegmentReader(self._storage, self._directory, first, self._identity)
            end = min(last, firsts[position + 1] - 1 if position + 1 < len(firsts) else last)
            for scanned in reader.walk():
                header = scanned.header
                if header.index >= from_index and scanned.payload is not None:
                    yield Record(header.index, header.kind, header.epoch, scanned.payload)
                if header.index == end:
                    break
            if reader.next_index <= end:
                raise corruption(reader, "it was read well before, or a later record exists")

    def trim(self, below_index: int) -> None:
        """Remove the segments that hold only records below `below_index`; the newest one always stays.

        The low-water mark is durable, in both slots, before the first file goes.
        """
        with self._io:
            self._check()
            firsts = sorted(self._segments)
            # A segment is needless when the next one starts at or below the bound.
            keep = max((first for first in firsts if first <= below_index), default=firsts[0])
            stale = [first for first in firsts if first < keep]
            if not stale:
                return
            try:
                self._set_mark(Mark(keep, self._durable_index, self._tail), both=True)
                remove_segments(self._storage, self._directory, stale)
            except StorageFull:
                raise
            except BaseException as error:
                self._fail(error)
                raise
            with self._memory:
                for first in stale:
                    del self._segments[first], self._codecs[first]
                self._locations = {index: at for index, at in self._locations.items() if index >= keep}

    def close(self) -> None:
        """Flush, record in the mark that all is durable, and unlock. Closing twice does nothing.

        The lock is given up even when flushing fails; the error is raised then.
        """
        with self._io:
            if self._closed:
                return
            try:
                if not self._failure:
                    self._flush()
                    if self._mark.durable_index != self._durable_index:
                        self._set_mark(self._mark._replace(durable_index=self._durable_index))
            finally:
                self._closed = True
                self._failure = self._failure or "it is closed"
                self._file.close()
                self._file_lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _tail(self) -> int:
        return self._mark.newest_segment

    def _check(self) -> None:
        if self._failure:
            raise StorageError(f"the log in {self._directory!r} cannot be used: {self._failure}", self._directory)

    def _fail(self, error: BaseException) -> None:
        self._failure = f"an earlier operation failed ({error})"

    def _set_mark(self, mark: Mark, *, both: bool = False) -> None:
        if both:
            self._slot.write_both(mark.encode())
        else:
            self._slot.write(mark.encode())
        self._mark = mark

    def _roll(self) -> None:
        """Start a new segment; everything in the old one is durable."""
        first = self._durable_index + 1
        segment = create_segment(self._storage, self._directory, self._identity, first, self._chain)
        file = self._storage.open_append(join(self._directory, segment_name(first)))
        self._file.close()
        self._file = file
        with self._memory:
            self._segments[first] = segment
            self._codecs[first] = RecordCodec(segment.header.salt)
        mark = self._mark._replace(durable_index=self._durable_index, newest_segment=first)
        # The new segment is in use from here on, even if the disk has no room left to note it.
        self._mark = mark
        self._slot.write(mark.encode())

    def _flush(self) -> int:
        with self._memory:
            self._check()
            self._flushing += self._queued
            self._queued = []
            batch = self._flushing
        if not batch:
            return self._durable_index
        try:
            if self._segments[self._tail].size >= self._segment_bytes:
                self._roll()
            self._write(batch)
        except StorageFull:
            raise
        except BaseException as error:
            self._fail(error)
            raise
        return self._durable_index

    def _write(self, batch: list[_Queued]) -> None:
        """Write and sync a batch at the end of the tail segment, and publish it."""
        tail = self._segments[self._tail]
        encoded, locations, chain, size = self._encode(batch, tail.size)
        try:
            self._file.write(encoded)
        except StorageFull:
            # What was written of the batch must not stay: the next attempt starts at the same offset.
            try:
                self._file.truncate(tail.size)
            except BaseException as error:
                self._fail(error)
                raise
            raise
        self._file.sync()
        with self._memory:
            self._chain = chain
            self._segments[self._tail] = Segment(tail.header, size)
            self._locations.update(locations)
            self._durable_index = batch[-1].index
            self._buffered -= sum([queued.length for queued in batch])
            self._flushing = []

    def _encode(self, batch: list[_Queued], offset: int) -> tuple[list[Buffer], dict[int, Location], bytes, int]:
        """Return the buffers to write, the locations of indexed records, the chain behind them and the end offset."""
        encode_header = self._codecs[self._tail].encode_header
        durable, chain, kinds, segment = self._durable_index, self._chain, self._indexed_kinds, self._tail
        result: list[Buffer] = []
        small: list[Buffer] = []
        locations: dict[int, Location] = {}
        for queued in batch:
            length, buffers = queued.length, queued.buffers
            digest = queued.payload_digest if queued.payload_digest is not None else digest_of(buffers)
            header, chain = encode_header(queued.kind, queued.epoch, queued.index, durable, chain, length, digest)
            if queued.kind in kinds:
                locations[queued.index] = Location(segment, offset, length, chain)
            offset += HEADER_BYTES + length
            small.append(header)
            if length < JOIN_BELOW_BYTES:
                small += buffers
            else:
                result.append(b"".join(small))
                result += buffers
                small = []
        result.append(b"".join(small))
        return result, locations, chain, offset
