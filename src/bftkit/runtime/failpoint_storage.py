"""Failpoints of what is written to disk: operations and paths of a `Storage`, translated into names.

The parts of `bftkit.storage` know nothing of them. A node's storage is wrapped (`FailpointStorage`) when a failpoint is
armed, and only then; a simulated disk calls `StorageFailpoints` from its hooks.
"""

from collections.abc import Sequence

from bftkit.errors import StorageError
from bftkit.runtime.failpoint_names import registered
from bftkit.runtime.failpoints import Hit
from bftkit.storage.interface import AppendFile, Buffer, Lock, Storage
from bftkit.storage.recovery import MARK_NAME
from bftkit.storage.replacement import TEMPORARY_SUFFIX, parent
from bftkit.storage.segment import SUFFIX as SEGMENT_SUFFIX
from bftkit.storage.snapshots import SUFFIX as SNAPSHOT_SUFFIX

_WAL, _SEGMENT, _MARK, _SNAPSHOT, _DIRECTORY = "wal", "segment", "mark", "snapshot", "directory"

_WORDS = {
    "write": "write",
    "sync": "fsync",
    "rename": "rename",
    "remove": "remove",
    "sync_directory": "directory_fsync",
    "make_directory": "make",
    "read": "read",
}
"""What operations are called in names; opening, listing, measuring and locking have none."""


def _names(moment: str) -> dict[tuple[str, str], str]:
    """Return the names of one moment, by kind and operation."""
    kinds = (_WAL, _SEGMENT, _MARK, _SNAPSHOT, _DIRECTORY)
    named = {(kind, operation): f"{kind}.{moment}_{word}" for kind in kinds for operation, word in _WORDS.items()}
    named[_DIRECTORY, "sync_directory"] = f"{_DIRECTORY}.{moment}_fsync"
    known = {failpoint.name for failpoint in registered()}
    return {place: name for place, name in named.items() if name in known}


_BEFORE, _AFTER = _names("before"), _names("after")


class StorageFailpoints:
    """Says which failpoints an operation passes; `before` and `after` are told of each one in turn."""

    def __init__(self, hit: Hit) -> None:
        self._hit = hit
        self._changed: dict[str, str] = {}
        """For each directory, the kind of the name that changed last; a sync of the directory is about that."""

    def before(self, operation: str, path: str) -> None:
        """Pass the failpoint in front of an operation."""
        name = _BEFORE.get((self._kind(operation, path), operation))
        if name is not None:
            self._hit(name)

    def after(self, operation: str, path: str) -> None:
        """Pass the failpoint behind an operation that succeeded."""
        kind = self._kind(operation, path)
        if operation in ("rename", "remove", "make_directory"):
            self._changed[parent(path)] = kind
        name = _AFTER.get((kind, operation))
        if name is not None:
            self._hit(name)

    def _kind(self, operation: str, path: str) -> str:
        if operation == "sync_directory":
            return self._changed.get(path, _DIRECTORY)
        if operation == "make_directory":
            return _DIRECTORY
        return _kind_of_file(path, changing=operation in ("rename", "remove"))


def _kind_of_file(path: str, *, changing: bool) -> str:
    """Return what a file is; the newest segment is another thing than one that comes or goes."""
    name = path.rpartition("/")[2]
    whole = name.removesuffix(TEMPORARY_SUFFIX)
    if whole.startswith(f"{MARK_NAME}."):
        return _MARK
    if whole.endswith(SNAPSHOT_SUFFIX):
        return _SNAPSHOT
    if whole.endswith(SEGMENT_SUFFIX):
        return _SEGMENT if changing or whole != name else _WAL
    return ""


class FailpointStorage:
    """A storage that passes failpoints."""

    def __init__(self, storage: Storage, hit: Hit) -> None:
        self.storage = storage
        """The storage that does the work."""
        self._points = StorageFailpoints(hit)
        self._poisoned: set[str] = set()

    def open_append(self, path: str) -> AppendFile:
        """Open a file for appending; refused for one whose sync has failed at a failpoint."""
        if path in self._poisoned:
            raise StorageError(f"cannot open {path!r}: an earlier sync of it failed", path)
        return _FailpointFile(self.storage.open_append(path), path, self._points, self._poisoned)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        self._points.before("read", path)
        return self.storage.read(path, offset, length)

    def size(self, path: str) -> int:
        """Return the file's length in bytes."""
        return self.storage.size(path)

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return self.storage.list(directory)

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        return self.storage.exists(path)

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name."""
        self._points.before("rename", source)
        self.storage.rename(source, destination)
        self._poisoned.discard(destination)
        self._points.after("rename", source)

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        self._points.before("remove", path)
        self.storage.remove(path)
        self._poisoned.discard(path)
        self._points.after("remove", path)

    def make_directory(self, path: str) -> None:
        """Create a directory unless it exists."""
        self._points.before("make_directory", path)
        self.storage.make_directory(path)
        self._points.after("make_directory", path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        self._points.before("sync_directory", path)
        self.storage.sync_directory(path)
        self._points.after("sync_directory", path)

    def lock(self, path: str) -> Lock:
        """Claim the file at `path`."""
        return self.storage.lock(path)

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that nobody can predict."""
        return self.storage.random_bytes(count)


class _FailpointFile:
    """An open file of a `FailpointStorage`; an error at one of its syncs is final, as the interface says."""

    def __init__(self, file: AppendFile, path: str, points: StorageFailpoints, poisoned: set[str]) -> None:
        self._file = file
        self._path = path
        self._points = points
        self._poisoned_paths = poisoned
        self._poisoned = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all buffers."""
        self._check()
        self._points.before("write", self._path)
        self._file.write(buffers)
        self._points.after("write", self._path)

    def sync(self) -> None:
        """Make the content durable."""
        self._check()
        try:
            self._points.before("sync", self._path)
            self._file.sync()
            self._points.after("sync", self._path)
        except StorageError:
            self._poisoned = True
            self._poisoned_paths.add(self._path)
            raise

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._check()
        self._file.truncate(size)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _check(self) -> None:
        if self._poisoned:
            raise StorageError(f"cannot use {self._path!r}: an earlier sync of it failed", self._path)
