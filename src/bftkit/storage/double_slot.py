"""A small value that is replaced in place and survives the tearing of any single write.

Two slots (files ``<name>.0`` and ``<name>.1``) are written in turn, each with a sequence number and a checksum; the
newest valid one is the value. A torn write leaves the other slot, which holds the value before it. Both damaged is no
state that a crash can produce: it is refused as `CorruptLog`.

A slot: preamble | identity (32) | sequence (8) | length (4) | payload | SHA-256 of all before it.
"""

import hashlib
import struct

from bftkit.errors import CorruptLog, StorageError
from bftkit.storage.interface import Storage
from bftkit.storage.preamble import PREAMBLE_BYTES, check_preamble, encode_preamble
from bftkit.storage.replacement import join, replace_file

MAGIC = b"bftslot\0"
VERSION = 1
MAX_PAYLOAD_BYTES = 64 * 1024

_FIELDS = struct.Struct(">32sQI")
_HEAD_BYTES = PREAMBLE_BYTES + _FIELDS.size
_DIGEST_BYTES = 32


class DoubleSlot:
    """The value of two slot files, read once at construction.

    Raises `CorruptLog` when slots exist and none is valid, `StorageError` when they belong to another identity,
    `UnsupportedFormat` when another version wrote them.
    """

    def __init__(self, storage: Storage, directory: str, name: str, identity: bytes) -> None:
        self._storage = storage
        self._paths = tuple(join(directory, f"{name}.{slot}") for slot in range(2))
        self._identity = identity
        self.value: bytes | None = None
        """What was written last; None when nothing ever was."""
        self._sequence = 0
        self._newest = 1
        present = [slot for slot in range(2) if storage.exists(self._paths[slot])]
        valid = [(*found, slot) for slot in present if (found := self._load(self._paths[slot])) is not None]
        if valid:
            self._sequence, self.value, self._newest = max(valid)
        elif present:
            raise CorruptLog(f"both slots of {join(directory, name)} are damaged", self._paths[0])
        self.damaged = len(present) - len(valid)
        """How many slots were found torn or damaged (0 or 1)."""

    def write(self, payload: bytes) -> None:
        """Replace the value durably; it is the old one or this one after a crash."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise StorageError(f"a slot holds at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}", self._paths[0])
        slot = 1 - self._newest
        content = self._encode(self._sequence + 1, payload)
        if self._storage.exists(self._paths[slot]):
            file = self._storage.open_append(self._paths[slot])
            try:
                file.truncate(0)
                file.write((content,))
                file.sync()
            finally:
                file.close()
        else:
            # A slot appears whole or not at all: a crash at birth is not to look like damage.
            replace_file(self._storage, self._paths[slot], (content,))
        self._newest, self._sequence, self.value = slot, self._sequence + 1, payload

    def write_both(self, payload: bytes) -> None:
        """Replace the value in both slots, for when no older one may ever be read again."""
        self.write(payload)
        self.write(payload)

    def _encode(self, sequence: int, payload: bytes) -> bytes:
        content = encode_preamble(MAGIC, VERSION) + _FIELDS.pack(self._identity, sequence, len(payload)) + payload
        return content + hashlib.sha256(content).digest()

    def _load(self, path: str) -> tuple[int, bytes] | None:
        data = self._storage.read(path, 0, _HEAD_BYTES + MAX_PAYLOAD_BYTES + _DIGEST_BYTES)
        if not check_preamble(data, MAGIC, VERSION, path) or len(data) < _HEAD_BYTES + _DIGEST_BYTES:
            return None
        if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
            return None
        identity, sequence, length = _FIELDS.unpack_from(data, PREAMBLE_BYTES)
        payload = data[_HEAD_BYTES:-_DIGEST_BYTES]
        if len(payload) != length:
            return None
        if identity != self._identity:
            raise StorageError(f"{path} belongs to another node or cluster", path)
        return sequence, payload
