"""What a simulated disk holds: files with the writes that no sync covered, names, and what a crash leaves of both."""

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, TypeVar

from bftkit.errors import BftkitError, StorageError
from bftkit.storage.interface import Buffer
from bftkit.storage.replacement import parent

if TYPE_CHECKING:
    pass

T = TypeVar("T")

SECTOR_BYTES = 512
"""What a real disk writes at once: reordering, loss and misdirection happen in these."""


class SimulatedCrash(BftkitError):
    """The power goes, here and now."""


class CrashMode(Enum):
    """What a crash leaves of writes that no sync covered."""

    KILL = "kill"
    """All: only the process died. The page cache stays, and with it what a failed sync claimed to have written."""
    NOTHING = "nothing"
    """Nothing."""
    PREFIX = "prefix"
    """The first few of them, whole."""
    TORN = "torn"
    """The first few, then one up to some byte, perhaps followed by zeros or garbage."""
    REORDERED = "reordered"
    """Any of their sectors, with zeros in place of the others."""


class _State(Enum):
    PENDING = 0
    SYNCED = 1
    LOST = 2
    """A failed sync marked it clean: it reads well, and will never reach the disk."""


class _Operation:
    """A change of a file, with what undoes it."""

    __slots__ = ("data", "offset", "state", "truncation")

    def __init__(self, offset: int, truncation: bool, data: bytes) -> None:
        self.offset = offset
        """Where a write began, or the size that a truncation left."""
        self.truncation = truncation
        self.data = data
        """What a truncation removed; for a write, filled in when it is undone."""
        self.state = _State.PENDING


class FileOnDisk:
    """Content as it reads now, and the operations since the disk last held all of it."""

    __slots__ = ("_has_lost", "_operations", "content")

    def __init__(self) -> None:
        self.content = bytearray()
        """Changed directly only by what happens behind everybody's back, as rot does."""
        self._operations: list[_Operation] = []
        self._has_lost = False

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write at the end, and return where that was."""
        content = self.content
        start = len(content)
        self._operations.append(_Operation(start, False, b""))
        for buffer in buffers:
            content += buffer
        return start

    def truncate(self, size: int) -> None:
        """Cut the content to `size` bytes."""
        if size < len(self.content):
            self._operations.append(_Operation(size, True, bytes(self.content[size:])))
            del self.content[size:]

    def synced(self) -> None:
        """Let the disk hold what reads now, but for what an earlier failed sync lost."""
        if not self._has_lost:
            self._operations.clear()
            return
        for operation in self._operations:
            if operation.state is _State.PENDING:
                operation.state = _State.SYNCED

    def sync_failed(self) -> None:
        """Mark what was not synced clean: it reads well, and never reaches the disk."""
        for operation in self._operations:
            if operation.state is _State.PENDING:
                operation.state = _State.LOST
                self._has_lost = True

    def crash(self, mode: CrashMode, random: Random) -> bool:
        """Become what the disk holds after a crash; say whether it did not hold everything."""
        if not self._operations:
            return False
        undone = self._undo_all()
        pending = sum(operation.state is _State.PENDING for operation in undone)
        whole = 0 if mode is CrashMode.NOTHING else random.randint(0, pending)
        seen = 0
        for operation in undone:
            if operation.state is _State.LOST:
                continue
            if operation.state is _State.SYNCED:
                self._redo(operation)
                continue
            seen += 1
            if mode is CrashMode.REORDERED:
                self._redo_sectors(operation, random)
            elif seen <= whole:
                self._redo(operation)
            elif seen == whole + 1 and mode is CrashMode.TORN:
                self._redo_torn(operation, random)
        return True

    def _undo_all(self) -> list[_Operation]:
        """Go back to what the disk held; return the operations in order, ready to be done again."""
        for operation in reversed(self._operations):
            if operation.truncation:
                self.content += operation.data
            else:
                operation.data = bytes(self.content[operation.offset :])
                del self.content[operation.offset :]
        undone, self._operations, self._has_lost = self._operations, [], False
        return undone

    def _put(self, offset: int, data: bytes) -> None:
        """Write at an offset, with zeros in a gap before it."""
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data

    def _redo(self, operation: _Operation) -> None:
        if operation.truncation:
            del self.content[operation.offset :]
        else:
            self._put(operation.offset, operation.data)

    def _redo_torn(self, operation: _Operation, random: Random) -> None:
        if operation.truncation:
            return
        cut = random.randint(0, len(operation.data))
        rest = len(operation.data) - cut
        tail = random.choice((b"", bytes(rest), random.randbytes(rest)))
        self._put(operation.offset, operation.data[:cut] + tail)

    def _redo_sectors(self, operation: _Operation, random: Random) -> None:
        if operation.truncation:
            if random.random() < 0.5:
                del self.content[operation.offset :]
            return
        start, end = operation.offset, operation.offset + len(operation.data)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if random.random() < 0.5:
                self._put(start, operation.data[start - operation.offset : stop - operation.offset])
            start = stop


class _NameChange:
    """A change of the names in a directory: create, rename or remove; for a directory, create."""

    __slots__ = ("file", "name", "source")

    def __init__(self, name: str, file: FileOnDisk | None, source: str | None = None) -> None:
        self.name = name
        """The path that changes."""
        self.file = file
        """What it stands for afterwards; None when it is removed."""
        self.source = source
        """The path that a rename takes away."""

    def apply(self, names: dict[str, FileOnDisk]) -> None:
        if self.source is not None and names.get(self.source) is self.file:
            del names[self.source]
        if self.file is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.file


class DirectoryTree:
    """The names of files and directories as they read now, and those that the disk holds."""

    def __init__(self) -> None:
        self.files: dict[str, FileOnDisk] = {}
        """By path; changed through the methods only."""
        self._directories: dict[str, None] = {"": None}
        self._durable_files: dict[str, FileOnDisk] = {}
        self._durable_directories: dict[str, None] = {"": None}
        self._changes: dict[str, list[_NameChange]] = {}
        self._new_directories: dict[str, list[str]] = {}

    def require(self, path: str) -> FileOnDisk:
        """Return a file; StorageError where there is none."""
        file = self.files.get(path)
        if file is None:
            raise StorageError(f"there is no file {path!r}", path)
        return file

    def require_parent(self, path: str) -> str:
        """Return the directory of a path; StorageError where it is missing."""
        directory = parent(path)
        if directory not in self._directories:
            raise StorageError(f"there is no directory {directory!r}", path)
        return directory

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        return path in self.files or path in self._directories

    def has_directory(self, path: str) -> bool:
        """Say whether this is a directory."""
        return path in self._directories

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""
        if directory not in self._directories:
            raise StorageError(f"cannot list {directory!r}: there is no such directory", directory)
        paths = [path for path in (*self.files, *self._directories) if path and parent(path) == directory]
        return sorted(path.rpartition("/")[2] for path in paths)

    def create(self, path: str) -> FileOnDisk:
        """Make an empty file."""
        directory = self.require_parent(path)
        file = self.files[path] = FileOnDisk()
        self._changes.setdefault(directory, []).append(_NameChange(path, file))
        return file

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name in the same directory."""
        if parent(source) != parent(destination):
            raise StorageError(f"cannot rename {source!r} into another directory", source)
        self._change(_NameChange(destination, self.require(source), source))

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        self.require(path)
        self._change(_NameChange(path, None))

    def _change(self, change: _NameChange) -> None:
        change.apply(self.files)
        self._changes.setdefault(parent(change.name), []).append(change)

    def make_directory(self, path: str) -> None:
        """Create a directory that does not exist."""
        directory = self.require_parent(path)
        self._directories[path] = None
        self._new_directories.setdefault(directory, []).append(path)

    def sync(self, directory: str) -> None:
        """Let the disk hold the names in a directory."""
        for change in self._changes.pop(directory, ()):
            change.apply(self._durable_files)
        for created in self._new_directories.pop(directory, ()):
            self._durable_directories[created] = None

    def crash(self, mode: CrashMode, random: Random) -> bool:
        """Become what a loss of power leaves, names first, then the content of each file.

        Say whether there was anything to lose.
        """
        unsynced = bool(self._changes or self._new_directories)
        self._crash_names(mode, random)
        seen: dict[int, FileOnDisk] = {}
        for path in sorted(self.files):
            seen.setdefault(id(self.files[path]), self.files[path])
        for file in seen.values():
            unsynced |= file.crash(mode, random)
        return unsynced

    def _crash_names(self, mode: CrashMode, random: Random) -> None:
        files, directories = dict(self._durable_files), dict(self._durable_directories)
        for directory in sorted(self._new_directories):
            for created in _survivors(self._new_directories[directory], mode, random):
                directories[created] = None
        for directory in sorted(self._changes):
            for change in _survivors(self._changes[directory], mode, random):
                change.apply(files)
        # Whatever lies in a directory that was lost is lost with it.
        for path in sorted(directories):
            if path and parent(path) not in directories:
                del directories[path]
        files = {path: files[path] for path in sorted(files) if parent(path) in directories}
        self.files, self._directories = files, directories
        self._durable_files, self._durable_directories = dict(files), dict(directories)
        self._changes.clear()
        self._new_directories.clear()


def _survivors(changes: Sequence[T], mode: CrashMode, random: Random) -> Sequence[T]:
    if mode is CrashMode.NOTHING:
        return ()
    if mode is CrashMode.REORDERED:
        return [change for change in changes if random.random() < 0.5]
    return changes[: random.randint(0, len(changes))]


class SimulatedLock:
    """A claim on a path of a simulated disk."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.release = release
        """Give the claim up."""
