"""The real storage: a directory on a POSIX file system."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bftkit.errors import StorageError, StorageFull, StorageLocked
from bftkit.storage.interface import Buffer

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
BUFFERS_PER_WRITE = 1024
"""The system's limit on buffers in one writev (IOV_MAX on Linux)."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def _translated(doing: str, path: str) -> Iterator[None]:
    """Turn an `OSError` into the typed error that names what was done to which path."""
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in _FULL else StorageError
        raise kind(f"cannot {doing} {path!r}: {error.strerror} (errno {error.errno})", path) from error


class FileStorage:
    """Keeps everything beneath one root directory, readable by its owner only."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Use `root`, created with its parents if missing."""
        self.root = os.path.abspath(os.fspath(root))
        """Absolute path of the directory."""
        self._poisoned: set[str] = set()
        with _translated("create", self.root):
            if not os.path.isdir(self.root):
                os.makedirs(self.root, mode=DIRECTORY_MODE, exist_ok=True)
                _sync_directory(os.path.dirname(self.root))

    def open_append(self, path: str) -> "PosixAppendFile":
        """Open a file for appending; refused for a file whose sync has failed in this process."""
        full = self._resolve(path)
        if full in self._poisoned:
            raise StorageError(f"cannot open {path!r}: an earlier sync of it failed", path)
        with _translated("open", path):
            descriptor = os.open(full, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _OPEN_FLAGS, FILE_MODE)
        return PosixAppendFile(descriptor, path, on_poison=lambda: self._poisoned.add(full))

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        full = self._resolve(path)
        with _translated("read", path):
            descriptor = os.open(full, os.O_RDONLY | _OPEN_FLAGS)
            try:
                data = os.pread(descriptor, length, offset)
                # A signal may cut a read short; an empty one is the end of the file.
                while data and len(data) < length:
                    more = os.pread(descriptor, length - len(data), offset + len(data))
                    if not more:
                        break
                    data += more
            finally:
                os.close(descriptor)
        return data

    def size(self, path: str) -> int:
        """Return the file's length in bytes."""
        with _translated("examine", path):
            return os.stat(self._resolve(path), follow_symlinks=False).st_size

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""
        with _translated("list", directory):
            return sorted(os.listdir(self._resolve(directory)))

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        return os.path.lexists(self._resolve(path))

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name, replacing what had it."""
        new = self._resolve(destination)
        with _translated("rename", source):
            os.rename(self._resolve(source), new)
        # The name now stands for another file, of which no sync has failed.
        self._poisoned.discard(new)

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        full = self._resolve(path)
        with _translated("remove", path):
            os.unlink(full)
        self._poisoned.discard(full)

    def make_directory(self, path: str) -> None:
        """Create a directory unless it exists."""
        full = self._resolve(path)
        with _translated("create", path):
            if not os.path.isdir(full):
                os.mkdir(full, DIRECTORY_MODE)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        with _translated("sync", path or self.root):
            _sync_directory(self._resolve(path))

    def lock(self, path: str) -> "PosixLock":
        """Claim the file at `path` with flock, which the system gives up when the process ends, however it ends."""
        full = self._resolve(path)
        with _translated("open", path):
            descriptor = os.open(full, os.O_RDWR | os.O_CREAT | _OPEN_FLAGS, FILE_MODE)
        try:
            with _translated("lock", path):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except StorageError as error:
            os.close(descriptor)
            if isinstance(error.__cause__, BlockingIOError):
                raise StorageLocked(f"{path!r} beneath {self.root!r} is locked: another node uses it", path) from error
            raise
        return PosixLock(descriptor)

    def random_bytes(self, count: int) -> bytes:
        """Return bytes from the system's generator."""
        return os.urandom(count)

    def _resolve(self, path: str) -> str:
        if path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise StorageError(f"{path!r} is not a path beneath the storage root", path)
        return os.path.join(self.root, path) if path else self.root


class PosixAppendFile:
    """A descriptor opened with O_APPEND."""

    def __init__(self, descriptor: int, path: str, on_poison: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._path = path
        self._on_poison = on_poison
        self._poisoned = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all buffers with as few system calls as the limit on their number allows."""
        self._check()
        with _translated("write", self._path):
            for start in range(0, len(buffers), BUFFERS_PER_WRITE):
                self._write_group(buffers[start : start + BUFFERS_PER_WRITE])

    def _write_group(self, group: Sequence[Buffer]) -> None:
        written = os.writev(self._descriptor, group)
        remaining = [memoryview(buffer) for buffer in group if len(buffer)]
        while True:
            while remaining and written >= remaining[0].nbytes:
                written -= remaining.pop(0).nbytes
            if not remaining:
                return
            remaining[0] = remaining[0][written:]
            written = os.writev(self._descriptor, remaining)

    def sync(self) -> None:
        """Call fdatasync; a failure, whatever its reason, poisons the file."""
        self._check()
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # Even "no space" is final here: the pages may be marked clean without being on the disk.
            self._poisoned = True
            self._on_poison()
            message = f"cannot sync {self._path!r}: {error.strerror} (errno {error.errno})"
            raise StorageError(message, self._path) from error

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._check()
        with _translated("truncate", self._path):
            os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Release the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _translated("close", self._path):
                os.close(descriptor)

    def _check(self) -> None:
        if self._poisoned:
            raise StorageError(f"cannot use {self._path!r}: an earlier sync of it failed", self._path)
        if self._descriptor < 0:
            raise StorageError(f"cannot use {self._path!r}: it is closed", self._path)


class PosixLock:
    """A descriptor that holds a flock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the claim up."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _sync_directory(full: str) -> None:
    descriptor = os.open(full, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
