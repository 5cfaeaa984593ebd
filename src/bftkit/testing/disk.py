"""A disk in memory that forgets, tears, reorders, fills up and rots, all from one seed.

What was written reads back at once, as through a page cache; what a crash leaves of it is drawn from the random
stream. Without a fault the cost of an append is one copy and one tuple, for thousands of simulated runs share it.

A *hook* sees every operation before it happens and may raise `SimulatedCrash`; from then on the disk refuses
everything until `SimulatedDisk.crash` has decided what is left, so that no cleaning up of the dying code can touch it.
"""

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

from bftkit.errors import BftkitError, StorageError, StorageFull, StorageLocked
from bftkit.storage.interface import Buffer

T = TypeVar("T")

SECTOR_BYTES = 512
"""What a real disk writes at once: reordering and loss happen in these."""


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


class _File:
    """Content as it reads now, and the operations since the disk last held all of it."""

    __slots__ = ("content", "has_lost", "operations")

    def __init__(self) -> None:
        self.content = bytearray()
        self.operations: list[_Operation] = []
        self.has_lost = False

    def synced(self) -> None:
        if not self.has_lost:
            self.operations.clear()
            return
        for operation in self.operations:
            if operation.state is _State.PENDING:
                operation.state = _State.SYNCED

    def sync_failed(self) -> None:
        for operation in self.operations:
            if operation.state is _State.PENDING:
                operation.state = _State.LOST
                self.has_lost = True

    def undo_all(self) -> list[_Operation]:
        """Go back to what the disk held; return the operations in order, ready to be done again."""
        for operation in reversed(self.operations):
            if operation.truncation:
                self.content += operation.data
            else:
                operation.data = bytes(self.content[operation.offset :])
                del self.content[operation.offset :]
        undone, self.operations, self.has_lost = self.operations, [], False
        return undone

    def put(self, offset: int, data: bytes) -> None:
        """Write at an offset, with zeros in a gap before it."""
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data


class _NameChange:
    """A change of the names in a directory: create, rename or remove; for a directory, create."""

    __slots__ = ("file", "name", "source")

    def __init__(self, name: str, file: _File | None, source: str | None = None) -> None:
        self.name = name
        """The path that changes."""
        self.file = file
        """What it stands for afterwards; None when it is removed."""
        self.source = source
        """The path that a rename takes away."""

    def apply(self, names: dict[str, _File]) -> None:
        if self.source is not None and names.get(self.source) is self.file:
            del names[self.source]
        if self.file is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.file


class SimulatedDisk:
    """A `Storage` whose faults are calls: `crash`, `fail`, `overwrite`, `flip_bit`, `capacity_bytes`, `before`."""

    def __init__(self, stream: random.Random) -> None:
        self._random = stream
        self._names: dict[str, _File] = {}
        self._directories: dict[str, None] = {"": None}
        self._durable_names: dict[str, _File] = {}
        self._durable_directories: dict[str, None] = {"": None}
        self._changes: dict[str, list[_NameChange]] = {}
        self._new_directories: dict[str, list[str]] = {}
        self._locked: set[str] = set()
        self._failures: list[tuple[str, str | None]] = []
        self._crash_countdown = -1
        self._dead = False
        self.generation = 0
        """How many crashes there were; handles of an earlier one are refused."""
        self.operations = 0
        """How many operations there were, for choosing crash points."""
        self.before: Callable[[str, str], None] | None = None
        """Called with the operation's name and the path before each one; may raise."""
        self.capacity_bytes: int | None = None
        """How much all files together may hold; None for no limit."""

    # The Storage protocol.

    def open_append(self, path: str) -> "SimulatedFile":
        """Open a file for appending, made empty if missing."""
        self.enter("open_append", path)
        file = self._names.get(path)
        if file is None:
            directory = self._require_parent(path)
            file = self._names[path] = _File()
            self._changes.setdefault(directory, []).append(_NameChange(path, file))
        return SimulatedFile(self, path, file)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        self.enter("read", path)
        return bytes(self._require(path).content[offset : offset + length])

    def size(self, path: str) -> int:
        """Return the file's length in bytes."""
        self.enter("size", path)
        return len(self._require(path).content)

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""
        self.enter("list", directory)
        if directory not in self._directories:
            raise StorageError(f"cannot list {directory!r}: there is no such directory", directory)
        paths = [path for path in (*self._names, *self._directories) if path and _parent(path) == directory]
        return sorted(path.rpartition("/")[2] for path in paths)

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        self.enter("exists", path)
        return path in self._names or path in self._directories

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name in the same directory."""
        self.enter("rename", source)
        if _parent(source) != _parent(destination):
            raise StorageError(f"cannot rename {source!r} into another directory", source)
        change = _NameChange(destination, self._require(source), source)
        change.apply(self._names)
        self._changes.setdefault(_parent(source), []).append(change)

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        self.enter("remove", path)
        self._require(path)
        change = _NameChange(path, None)
        change.apply(self._names)
        self._changes.setdefault(_parent(path), []).append(change)

    def make_directory(self, path: str) -> None:
        """Create a directory unless it exists."""
        self.enter("make_directory", path)
        if path not in self._directories:
            directory = self._require_parent(path)
            self._directories[path] = None
            self._new_directories.setdefault(directory, []).append(path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        self.enter("sync_directory", path)
        for change in self._changes.pop(path, ()):
            change.apply(self._durable_names)
        for created in self._new_directories.pop(path, ()):
            self._durable_directories[created] = None

    def lock(self, path: str) -> "SimulatedLock":
        """Claim a path until released or until the crash."""
        self.enter("lock", path)
        self._require_parent(path)
        if path in self._locked:
            raise StorageLocked(f"{path!r} is locked", path)
        self._locked.add(path)
        return SimulatedLock(self, path)

    def random_bytes(self, count: int) -> bytes:
        """Return bytes of the seed's stream."""
        return self._random.randbytes(count)

    # Faults.

    def crash(self, mode: CrashMode = CrashMode.NOTHING) -> None:
        """Lose what this mode loses, close all handles, release all locks, and be ready for a restart.

        Names that no `sync_directory` covered are lost likewise: all, a random number from the end, or (reordered) any.
        """
        if mode is not CrashMode.KILL:
            self._crash_names(mode)
            seen: dict[int, _File] = {}
            for path in sorted(self._names):
                seen.setdefault(id(self._names[path]), self._names[path])
            for file in seen.values():
                self._crash_file(file, mode)
        self._locked.clear()
        self._failures.clear()
        self._crash_countdown = -1
        self._dead = False
        self.generation += 1

    def crash_after(self, operations: int) -> None:
        """Raise `SimulatedCrash` in place of the operation that follows this many others."""
        self._crash_countdown = operations

    def fail(self, operation: str, count: int = 1, path: str | None = None) -> None:
        """Let the next `count` calls of an operation fail, of any path or of those that contain `path`.

        A failing "sync" marks the pages clean, as Linux does: they read well, the next sync succeeds, and a loss of
        power shows that they never reached the disk.
        """
        self._failures += [(operation, path)] * count

    def no_more_faults(self) -> None:
        """Forget the failures and the crash that were to come."""
        self._failures.clear()
        self._crash_countdown = -1

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """Change what is on the disk behind everybody's back, as rot and misdirected writes do."""
        file = self._require(path)
        if offset + len(data) > len(file.content):
            raise StorageError(f"{path!r} is shorter than what is to be overwritten", path)
        file.content[offset : offset + len(data)] = data

    def flip_bit(self, path: str, offset: int | None = None) -> int:
        """Flip one bit, of the byte at `offset` or of a random one, and return the offset."""
        content = self._require(path).content
        if not content:
            raise StorageError(f"{path!r} is empty", path)
        at = self._random.randrange(len(content)) if offset is None else offset
        content[at] ^= 1 << self._random.randrange(8)
        return at

    def used_bytes(self) -> int:
        """Return the length of all files together."""
        return sum(len(file.content) for file in self._names.values())

    def contents(self) -> dict[str, bytes]:
        """Return what every file holds, by path, sorted."""
        return {path: bytes(self._names[path].content) for path in sorted(self._names)}

    # Shared with the handles.

    def enter(self, operation: str, path: str) -> None:
        """Count an operation and let the faults that wait for it happen."""
        self.operations += 1
        if self._dead:
            raise SimulatedCrash("the power is off")
        if self._crash_countdown >= 0:
            self._crash_countdown -= 1
            if self._crash_countdown < 0:
                self._dead = True
                raise SimulatedCrash(f"before {operation} of {path!r}")
        if self.before is not None:
            try:
                self.before(operation, path)
            except SimulatedCrash:
                self._dead = True
                raise
        if self._failures and operation != "sync":
            self.take_failure(operation, path)

    def take_failure(self, operation: str, path: str) -> None:
        """Raise the injected failure of this operation, if one waits."""
        for position, (wanted, part) in enumerate(self._failures):
            if wanted == operation and (part is None or part in path):
                del self._failures[position]
                raise StorageError(f"cannot {operation} {path!r}: injected I/O error", path)

    def has_failures(self) -> bool:
        """Say whether injected failures wait."""
        return bool(self._failures)

    def unlock(self, path: str, generation: int) -> None:
        """Release a lock of this generation."""
        if generation == self.generation:
            self._locked.discard(path)

    def _require(self, path: str) -> _File:
        file = self._names.get(path)
        if file is None:
            raise StorageError(f"there is no file {path!r}", path)
        return file

    def _require_parent(self, path: str) -> str:
        directory = _parent(path)
        if directory not in self._directories:
            raise StorageError(f"there is no directory {directory!r}", path)
        return directory

    def _crash_names(self, mode: CrashMode) -> None:
        names, directories = dict(self._durable_names), dict(self._durable_directories)
        for parent in sorted(self._new_directories):
            for created in self._survivors(self._new_directories[parent], mode):
                directories[created] = None
        for parent in sorted(self._changes):
            for change in self._survivors(self._changes[parent], mode):
                change.apply(names)
        # Whatever lies in a directory that was lost is lost with it.
        for path in sorted(directories):
            if path and _parent(path) not in directories:
                del directories[path]
        names = {path: names[path] for path in sorted(names) if _parent(path) in directories}
        self._names, self._directories = names, directories
        self._durable_names, self._durable_directories = dict(names), dict(directories)
        self._changes.clear()
        self._new_directories.clear()

    def _survivors(self, changes: Sequence[T], mode: CrashMode) -> Sequence[T]:
        if mode is CrashMode.NOTHING:
            return ()
        if mode is CrashMode.REORDERED:
            return [change for change in changes if self._random.random() < 0.5]
        return changes[: self._random.randint(0, len(changes))]

    def _crash_file(self, file: _File, mode: CrashMode) -> None:
        """Bring a file to what the disk holds after the crash."""
        if not file.operations:
            return
        undone = file.undo_all()
        pending = sum(operation.state is _State.PENDING for operation in undone)
        whole = 0 if mode is CrashMode.NOTHING else self._random.randint(0, pending)
        seen = 0
        for operation in undone:
            if operation.state is _State.LOST:
                continue
            if operation.state is _State.SYNCED:
                self._redo(file, operation)
                continue
            seen += 1
            if mode is CrashMode.REORDERED:
                self._redo_sectors(file, operation)
            elif seen <= whole:
                self._redo(file, operation)
            elif seen == whole + 1 and mode is CrashMode.TORN:
                self._redo_torn(file, operation)

    def _redo(self, file: _File, operation: _Operation) -> None:
        if operation.truncation:
            del file.content[operation.offset :]
        else:
            file.put(operation.offset, operation.data)

    def _redo_torn(self, file: _File, operation: _Operation) -> None:
        if operation.truncation:
            return
        cut = self._random.randint(0, len(operation.data))
        rest = len(operation.data) - cut
        tail = self._random.choice((b"", bytes(rest), self._random.randbytes(rest)))
        file.put(operation.offset, operation.data[:cut] + tail)

    def _redo_sectors(self, file: _File, operation: _Operation) -> None:
        if operation.truncation:
            if self._random.random() < 0.5:
                del file.content[operation.offset :]
            return
        start, end = operation.offset, operation.offset + len(operation.data)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if self._random.random() < 0.5:
                file.put(start, operation.data[start - operation.offset : stop - operation.offset])
            start = stop


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    __slots__ = ("_closed", "_disk", "_file", "_generation", "_path", "_poisoned")

    def __init__(self, disk: SimulatedDisk, path: str, file: _File) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self._generation = disk.generation
        self._poisoned = False
        self._closed = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all buffers; on a full disk, as much of them as fits."""
        self._enter("write")
        content = self._file.content
        start = len(content)
        self._file.operations.append(_Operation(start, False, b""))
        for buffer in buffers:
            content += buffer
        if self._disk.capacity_bytes is not None:
            excess = self._disk.used_bytes() - self._disk.capacity_bytes
            if excess > 0:
                del content[max(start, len(content) - excess) :]
                raise StorageFull(f"cannot write {self._path!r}: no space left", self._path)

    def sync(self) -> None:
        """Make the content durable; an injected failure poisons the file and loses what was written."""
        self._enter("sync")
        if self._disk.has_failures():
            try:
                self._disk.take_failure("sync", self._path)
            except StorageError:
                self._poisoned = True
                self._file.sync_failed()
                raise
        self._file.synced()

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._enter("truncate")
        content = self._file.content
        if size < len(content):
            self._file.operations.append(_Operation(size, True, bytes(content[size:])))
            del content[size:]

    def close(self) -> None:
        """Release the handle."""
        self._closed = True

    def _enter(self, operation: str) -> None:
        if self._generation != self._disk.generation:
            raise SimulatedCrash("this handle was opened before a crash")
        self._disk.enter(operation, self._path)
        if self._poisoned or self._closed:
            reason = "an earlier sync of it failed" if self._poisoned else "it is closed"
            raise StorageError(f"cannot use {self._path!r}: {reason}", self._path)


class SimulatedLock:
    """A claim on a path of a `SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._generation = disk.generation

    def release(self) -> None:
        """Give the claim up."""
        self._disk.unlock(self._path, self._generation)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
