"""One file of the log: a header that binds it to its node and to what came before, then records end to end."""

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from bftkit.errors import CorruptLog, StorageError
from bftkit.storage.interface import Storage
from bftkit.storage.preamble import PREAMBLE_BYTES, check_preamble, encode_preamble
from bftkit.storage.record import (
    CHECK_BYTES,
    HEADER_BYTES,
    MARKER,
    MAX_PAYLOAD_BYTES,
    SALT_BYTES,
    RecordCodec,
    RecordHeader,
    digest_of,
)
from bftkit.storage.replacement import join

MAGIC = b"bftwal\0\0"
VERSION = 1
SUFFIX = ".log"
WINDOW_BYTES = 64 * 1024
"""How much a scan reads at once; a longer payload is read by itself."""

_FIELDS = struct.Struct(f">32s{SALT_BYTES}sQ{CHECK_BYTES}s")
_HEAD_BYTES = PREAMBLE_BYTES + _FIELDS.size
SEGMENT_HEADER_BYTES = _HEAD_BYTES + CHECK_BYTES
"""Preamble | identity (32) | salt (16) | first index (8) | previous check (16) | half of SHA-256 of all before it
(16)."""


class SegmentHeader(NamedTuple):
    """What a segment says of itself."""

    identity: bytes
    salt: bytes
    first_index: int
    previous: bytes
    """The check of the record before its first one."""


class Scanned(NamedTuple):
    """A record that a scan passed."""

    offset: int
    header: RecordHeader
    payload: bytes | None
    """Verified content; None when the scan skips payloads."""

    @property
    def end(self) -> int:
        """Return the offset behind the record."""
        return self.offset + HEADER_BYTES + self.header.length


def segment_name(first_index: int) -> str:
    """Return the file name of the segment that starts at this index."""
    return f"{first_index:020d}{SUFFIX}"


def list_segments(storage: Storage, directory: str) -> list[int]:
    """Return the first indexes of the segments in a directory, ascending."""
    names = [name.removesuffix(SUFFIX) for name in storage.list(directory) if name.endswith(SUFFIX)]
    return sorted(int(name) for name in names if name.isdecimal())


def chain_start(identity: bytes) -> bytes:
    """Return the check that stands before the first record of a node's log."""
    return hashlib.sha256(b"bftkit log|" + identity).digest()[:CHECK_BYTES]


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the bytes that a segment starts with."""
    head = encode_preamble(MAGIC, VERSION) + _FIELDS.pack(*header)
    return head + hashlib.sha256(head).digest()[:CHECK_BYTES]


def read_segment_header(storage: Storage, path: str, identity: bytes) -> SegmentHeader:
    """Return a segment's header.

    Raises `CorruptLog` if it is damaged, `UnsupportedFormat` if another version wrote it, `StorageError` if it
    belongs to another node or cluster.
    """
    data = storage.read(path, 0, SEGMENT_HEADER_BYTES)
    intact = check_preamble(data, MAGIC, VERSION, path) and len(data) == SEGMENT_HEADER_BYTES
    if not intact or hashlib.sha256(data[:_HEAD_BYTES]).digest()[:CHECK_BYTES] != data[_HEAD_BYTES:]:
        raise CorruptLog(f"the header of segment {path} is damaged", path)
    header = SegmentHeader(*_FIELDS.unpack_from(data, PREAMBLE_BYTES))
    if header.identity != identity:
        raise StorageError(f"segment {path} belongs to another node or cluster", path)
    return header


class SegmentReader:
    """Walks through a segment's records with a window of bounded size."""

    def __init__(self, storage: Storage, directory: str, first_index: int, identity: bytes) -> None:
        """Read the header; raises what `read_segment_header` raises, and `CorruptLog` for a wrong name."""
        self.path = join(directory, segment_name(first_index))
        self._storage = storage
        self.header = read_segment_header(storage, self.path, identity)
        if self.header.first_index != first_index:
            raise CorruptLog(f"segment {self.path} says that it starts at index {self.header.first_index}", self.path)
        self.codec = RecordCodec(self.header.salt)
        self.size = storage.size(self.path)
        """Length of the file in bytes when it was opened."""
        self.next_index = first_index
        """Index behind the last record that a walk accepted."""
        self.chain = self.header.previous
        """Check of the last record that a walk accepted."""
        self.end = SEGMENT_HEADER_BYTES
        """Offset behind the last record that a walk accepted."""
        self.fault = ""
        """Why the walk stopped before the end of the file; empty when it did not."""
        self._window = b""
        self._window_start = 0

    def walk(self, *, payloads: bool = True) -> Iterator[Scanned]:
        """Yield the records up to the end or the first bad one, for which `fault` then says what is wrong.

        With `payloads` false, only headers and the chain that links them are verified, and payloads are not read.
        """
        while self.end < self.size:
            header = self.codec.decode_header(self._bytes(self.end, HEADER_BYTES))
            if header is None:
                self.fault = "its header is damaged"
            elif header.index != self.next_index:
                self.fault = f"it says that its index is {header.index}"
            elif header.previous != self.chain:
                self.fault = "it does not follow from the record before it"
            elif header.length > MAX_PAYLOAD_BYTES or self.end + HEADER_BYTES + header.length > self.size:
                self.fault = "it is cut short"
            else:
                record = self._accept(header, payloads)
                if record is not None:
                    yield record
                    continue
                self.fault = "its payload is damaged"
            return

    def find_proof(self, index: int) -> RecordHeader | None:
        """Return a later record's header that proves that `index` was durable once, if the rest of the file has one.

        Looks at headers only, wherever a marker is found from `end` on, since neither lengths nor payloads can be
        trusted there.
        """
        offset = self.end
        while offset < self.size:
            data = self._storage.read(self.path, offset, WINDOW_BYTES + HEADER_BYTES)
            found = data.find(MARKER)
            while 0 <= found < WINDOW_BYTES:
                header = self.codec.decode_header(data, found)
                if header is not None and header.durable >= index:
                    return header
                found = data.find(MARKER, found + 1)
            offset += WINDOW_BYTES
        return None

    def content(self, end: int) -> Iterator[bytes]:
        """Yield the bytes from the start of the file to `end`, window by window."""
        for offset in range(0, end, WINDOW_BYTES):
            yield self._storage.read(self.path, offset, min(WINDOW_BYTES, end - offset))

    def _accept(self, header: RecordHeader, payloads: bool) -> Scanned | None:
        payload = None
        if payloads:
            payload = self._bytes(self.end + HEADER_BYTES, header.length)
            if len(payload) != header.length or not self.codec.verify(header, digest_of((payload,))):
                return None
        record = Scanned(self.end, header, payload)
        self.next_index, self.chain, self.end = header.index + 1, header.check, record.end
        return record

    def _bytes(self, offset: int, length: int) -> bytes:
        if length > WINDOW_BYTES:
            return self._storage.read(self.path, offset, length)
        start = offset - self._window_start
        if start < 0 or start + length > len(self._window):
            self._window = self._storage.read(self.path, offset, WINDOW_BYTES)
            self._window_start = offset
            start = 0
        return self._window[start : start + length]
