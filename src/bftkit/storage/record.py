"""One record of the log: 72 bytes of header, then the payload.

::

    marker 4 | payload length 4 | kind 1 | zero 3 | epoch 8 | index 8 | durable 8 | previous 16 | check 16 | crc 4

`check` is the first half of SHA-256(salt, all fields before it, SHA-256(payload)). It is the checksum of the record
and the link of the chain at once: the next record carries it as `previous`. So a record names its place (index), its
past (previous) and its file (salt) inside its own checksum, and a misdirected or stale one shows. The payload enters
by its digest, so one whose SHA-256 is known already is not hashed again when it is written.

`crc` is a CRC-32 of the header alone, started from the salt. It makes lengths trustworthy before the payload is read,
and lets a scan recognise a header amid garbage. The salt is drawn for each segment and never leaves the machine, so
nobody can send a payload that contains a valid header.

`durable` is the highest index that was durable when the record was written: proof, in case an earlier record is found
damaged, that it had once been whole.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable

import msgspec

from bftkit.storage.interface import Buffer

MARKER = b"\xb5rec"
CHECK_BYTES = 16
SALT_BYTES = 16
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024

_FIELDS = struct.Struct(">4sIB3xQQQ16s")
_HEADER = struct.Struct(">4sIB3xQQQ16s16sI")
_CRC = struct.Struct(">I")
HEADER_BYTES = _HEADER.size
_CRC_OFFSET = HEADER_BYTES - _CRC.size


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as its writer meant it."""

    index: int
    """Place in the log; the first ever is 1."""
    kind: int
    """0 to 255, the writer's own."""
    epoch: int
    """The configuration that it was written under."""
    payload: bytes
    """Opaque content."""


class RecordHeader(msgspec.Struct, frozen=True, gc=False):
    """What a header on the disk says, its CRC being right."""

    length: int
    kind: int
    epoch: int
    index: int
    durable: int
    previous: bytes
    check: bytes


class RecordCodec:
    """Encodes and verifies the records of one segment, under its salt."""

    __slots__ = ("_crc_start", "_salt")

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._crc_start = zlib.crc32(salt)

    def encode_header(
        self, kind: int, epoch: int, index: int, durable: int, previous: bytes, length: int, payload_digest: bytes
    ) -> tuple[bytes, bytes]:
        """Return the header's bytes and the record's check."""
        fields = _FIELDS.pack(MARKER, length, kind, epoch, index, durable, previous)
        check = hashlib.sha256(self._salt + fields + payload_digest).digest()[:CHECK_BYTES]
        head = fields + check
        return head + _CRC.pack(zlib.crc32(head, self._crc_start)), check

    def decode_header(self, data: bytes, offset: int = 0) -> RecordHeader | None:
        """Return the header at `offset`, or None if none is intact there."""
        if len(data) - offset < HEADER_BYTES:
            return None
        marker, length, kind, epoch, index, durable, previous, check, crc = _HEADER.unpack_from(data, offset)
        if marker != MARKER or crc != zlib.crc32(data[offset : offset + _CRC_OFFSET], self._crc_start):
            return None
        return RecordHeader(length, kind, epoch, index, durable, previous, check)

    def verify(self, header: RecordHeader, payload_digest: bytes) -> bool:
        """Say whether the header's check covers a payload with this SHA-256 digest."""
        fields = _FIELDS.pack(
            MARKER, header.length, header.kind, header.epoch, header.index, header.durable, header.previous
        )
        return hashlib.sha256(self._salt + fields + payload_digest).digest()[:CHECK_BYTES] == header.check


def digest_of(buffers: Iterable[Buffer]) -> bytes:
    """Return the SHA-256 digest of the buffers' concatenation."""
    state = hashlib.sha256()
    for buffer in buffers:
        state.update(buffer)
    return state.digest()
