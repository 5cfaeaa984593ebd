"""Snapshots: one file each, whole or not there, verified before it is trusted and again as it is read.

::

    preamble | data in chunks of 256 KiB | manifest | chunk digests (32 each) | trailer 88

The trailer, last because the data is written as it comes, says the height, the lengths and the SHA-256 of all data,
and has a SHA-256 over manifest, chunk digests and itself. A file gets its name only when all of it is durable, so a
crash leaves the snapshots that were there or one more, and never a mix.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator

import msgspec

from bftkit.errors import StorageError
from bftkit.storage.interface import Buffer, Storage
from bftkit.storage.preamble import PREAMBLE_BYTES, check_preamble, encode_preamble
from bftkit.storage.replacement import join, make_durable_directory, remove_leftovers, replace_file, settle_names

MAGIC = b"bftsnap\0"
VERSION = 1
SUFFIX = ".snapshot"
CHUNK_BYTES = 256 * 1024
DIGEST_BYTES = 32

_TRAILER = struct.Struct(">QQII32s")
_TRAILER_BYTES = _TRAILER.size + DIGEST_BYTES


class SnapshotInfo(msgspec.Struct, frozen=True):
    """What a verified snapshot holds."""

    height: int
    """How many batches had been executed."""
    manifest: bytes
    """The writer's own words about it (digest, certificate); opaque here."""
    total_bytes: int
    """Length of the data."""
    digest: bytes
    """SHA-256 of the data."""
    chunk_digests: tuple[bytes, ...]
    """SHA-256 of each chunk of `CHUNK_BYTES`; the last one may be shorter."""


class DamagedSnapshot(msgspec.Struct, frozen=True):
    """A snapshot that cannot be used."""

    height: int
    path: str
    reason: str


class SnapshotStore:
    """The snapshots in one directory; leftovers of a crash are removed when it is opened.

    A snapshot is verified wholly when it is first asked for, and chunk by chunk whenever it is read. Used by one
    thread at a time.
    """

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._directory = directory
        self._verified: dict[int, SnapshotInfo] = {}
        self.damaged: dict[int, DamagedSnapshot] = {}
        """Snapshots that were found damaged, by height, for the operator; they are never used."""
        make_durable_directory(storage, directory)
        remove_leftovers(storage, directory)
        settle_names(storage, directory)

    def heights(self) -> list[int]:
        """Return the heights that have a snapshot, damaged or not, ascending."""
        names = [name.removesuffix(SUFFIX) for name in self._storage.list(self._directory) if name.endswith(SUFFIX)]
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, height: int, parts: Iterable[Buffer], manifest: bytes) -> SnapshotInfo:
        """Write a snapshot from the parts of its data, durably, holding one chunk in memory.

        Replaces one of the same height. Raises `StorageFull` with nothing left behind.
        """
        writer = _Writer(height, manifest)
        replace_file(self._storage, self._path(height), writer.content(parts))
        info = writer.info()
        self._verified[height] = info
        self.damaged.pop(height, None)
        return info

    def newest(self) -> SnapshotInfo | None:
        """Return the newest snapshot that is intact, or None; newer damaged ones are listed in `damaged`.

        Raises `UnsupportedFormat` if another version wrote it.
        """
        for height in reversed(self.heights()):
            info = self.get(height)
            if info is not None:
                return info
        return None

    def get(self, height: int) -> SnapshotInfo | None:
        """Return the snapshot of a height, or None if there is none or it is damaged."""
        if height in self._verified:
            return self._verified[height]
        path = self._path(height)
        if height in self.damaged or not self._storage.exists(path):
            return None
        info, reason = self._load(height, path)
        if info is None:
            self._report(height, reason)
        else:
            self._verified[height] = info
        return info

    def read(self, height: int, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a snapshot's data from `offset`: fewer at its end.

        Raises `StorageError` if it is missing or damaged; what was found damaged is listed and not used again.
        """
        info = self.get(height)
        if info is None:
            raise StorageError(f"there is no intact snapshot of height {height}", self._path(height))
        end = min(offset + length, info.total_bytes)
        if offset < 0 or offset >= end:
            return b""
        first = offset // CHUNK_BYTES
        chunks = [self._chunk(info, number) for number in range(first, (end - 1) // CHUNK_BYTES + 1)]
        start = offset - first * CHUNK_BYTES
        return b"".join(chunks)[start : start + end - offset]

    def parts(self, height: int) -> Iterator[bytes]:
        """Yield a snapshot's data chunk by chunk, each verified; raises as `read` does."""
        info = self.get(height)
        if info is None:
            raise StorageError(f"there is no intact snapshot of height {height}", self._path(height))
        for number in range(len(info.chunk_digests)):
            yield self._chunk(info, number)

    def prune(self, keep: int = 2) -> list[int]:
        """Remove all but the `keep` newest intact snapshots and return the heights removed.

        Nothing goes unless one intact snapshot stays.
        """
        kept: list[int] = []
        removed: list[int] = []
        for height in reversed(self.heights()):
            if len(kept) < max(keep, 1) and self.get(height) is not None:
                kept.append(height)
            else:
                removed.append(height)
        if not kept or not removed:
            return []
        for height in removed:
            self._storage.remove(self._path(height))
            self._verified.pop(height, None)
            self.damaged.pop(height, None)
        self._storage.sync_directory(self._directory)
        return removed

    def _path(self, height: int) -> str:
        return join(self._directory, f"{height:020d}{SUFFIX}")

    def _report(self, height: int, reason: str) -> None:
        self._verified.pop(height, None)
        self.damaged[height] = DamagedSnapshot(height, self._path(height), reason)

    def _chunk(self, info: SnapshotInfo, number: int) -> bytes:
        start = number * CHUNK_BYTES
        length = min(CHUNK_BYTES, info.total_bytes - start)
        path = self._path(info.height)
        data = self._storage.read(path, PREAMBLE_BYTES + start, length)
        if hashlib.sha256(data).digest() != info.chunk_digests[number]:
            self._report(info.height, f"chunk {number} is damaged")
            raise StorageError(f"chunk {number} of snapshot {path} is damaged", path)
        return data

    def _load(self, height: int, path: str) -> tuple[SnapshotInfo | None, str]:
        """Verify a whole file; return what it holds, or None and what is wrong."""
        size = self._storage.size(path)
        preamble = self._storage.read(path, 0, PREAMBLE_BYTES)
        # A disk may give what stands in another file: that is damage, and no other format of a snapshot.
        if not preamble.startswith(MAGIC) or not check_preamble(preamble, MAGIC, VERSION, path):
            return None, "its preamble is damaged"
        trailer = self._storage.read(path, max(size - _TRAILER_BYTES, 0), _TRAILER_BYTES)
        if len(trailer) < _TRAILER_BYTES:
            return None, "it is cut short"
        found, total_bytes, manifest_bytes, chunks, digest = _TRAILER.unpack_from(trailer)
        meta_bytes = manifest_bytes + chunks * DIGEST_BYTES
        if PREAMBLE_BYTES + total_bytes + meta_bytes + _TRAILER_BYTES != size or found != height:
            return None, "its trailer is damaged"
        meta = self._storage.read(path, PREAMBLE_BYTES + total_bytes, meta_bytes)
        if hashlib.sha256(meta + trailer[: _TRAILER.size]).digest() != trailer[_TRAILER.size :]:
            return None, "its manifest, chunk digests or trailer are damaged"
        digests = tuple(meta[at : at + DIGEST_BYTES] for at in range(manifest_bytes, meta_bytes, DIGEST_BYTES))
        whole = hashlib.sha256()
        for number, expected in enumerate(digests):
            start = number * CHUNK_BYTES
            data = self._storage.read(path, PREAMBLE_BYTES + start, min(CHUNK_BYTES, total_bytes - start))
            if hashlib.sha256(data).digest() != expected:
                return None, f"chunk {number} is damaged"
            whole.update(data)
        if whole.digest() != digest:
            return None, "its data is damaged"
        return SnapshotInfo(height, meta[:manifest_bytes], total_bytes, digest, digests), ""


class _Writer:
    """Turns parts of any size into the content of a snapshot file."""

    def __init__(self, height: int, manifest: bytes) -> None:
        self._height = height
        self._manifest = manifest
        self._whole = hashlib.sha256()
        self._digests: list[bytes] = []
        self._total = 0

    def content(self, parts: Iterable[Buffer]) -> Iterator[bytes]:
        """Yield the file's content."""
        yield encode_preamble(MAGIC, VERSION)
        pending = bytearray()
        for part in parts:
            view = memoryview(part)
            while view:
                taken = view[: CHUNK_BYTES - len(pending)]
                pending += taken
                view = view[len(taken) :]
                if len(pending) == CHUNK_BYTES:
                    yield self._chunk(bytes(pending))
                    pending.clear()
        if pending:
            yield self._chunk(bytes(pending))
        fields = (self._height, self._total, len(self._manifest), len(self._digests), self._whole.digest())
        meta = self._manifest + b"".join(self._digests) + _TRAILER.pack(*fields)
        yield meta + hashlib.sha256(meta).digest()

    def info(self) -> SnapshotInfo:
        """Return what was written."""
        return SnapshotInfo(self._height, self._manifest, self._total, self._whole.digest(), tuple(self._digests))

    def _chunk(self, data: bytes) -> bytes:
        self._whole.update(data)
        self._digests.append(hashlib.sha256(data).digest())
        self._total += len(data)
        return data
