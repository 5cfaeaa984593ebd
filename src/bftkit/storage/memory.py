"""A storage that lives in memory: for clusters inside one program, and gone with it."""

import secrets
from collections.abc import Sequence

from bftkit.errors import StorageError, StorageLocked
from bftkit.storage.interface import Buffer


class MemoryStorage:
    """Files as byte arrays; everything written is as durable as the process."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}
        self._directories: set[str] = {""}
        self._locked: set[str] = set()

    def open_append(self, path: str) -> "MemoryFile":
        """Open a file for appending, made empty if it is not there."""
        return MemoryFile(self._files.setdefault(path, bytearray()))

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        return bytes(self._content(path)[offset : offset + length])

    def size(self, path: str) -> int:
        """Return the file's length in bytes."""
        return len(self._content(path))

    def _content(self, path: str) -> bytearray:
        content = self._files.get(path)
        if content is None:
            raise StorageError(f"there is no file {path}", path)
        return content

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""
        prefix = f"{directory}/" if directory else ""
        paths = [*self._files, *self._directories]
        inside = {path[len(prefix) :] for path in paths if path.startswith(prefix) and path != directory}
        return sorted(name for name in inside if name and "/" not in name)

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        return path in self._files or path in self._directories

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name, replacing what had it."""
        self._files[destination] = self._content(source)
        del self._files[source]

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        self._content(path)
        del self._files[path]

    def make_directory(self, path: str) -> None:
        """Create a directory unless it exists."""
        self._directories.add(path)

    def sync_directory(self, path: str) -> None:
        """Do nothing: names in memory are as durable as they get."""

    def lock(self, path: str) -> "MemoryLock":
        """Claim a path; StorageLocked when somebody holds it."""
        if path in self._locked:
            raise StorageLocked(f"{path} is in use", path)
        self._locked.add(path)
        return MemoryLock(self._locked, path)

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that nobody can predict."""
        return secrets.token_bytes(count)


class MemoryFile:
    """A file that is open for writing at its end."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all buffers, in order."""
        for buffer in buffers:
            self._content += buffer

    def sync(self) -> None:
        """Do nothing: there is no disk."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        del self._content[size:]

    def close(self) -> None:
        """Do nothing: the content stays with the storage."""


class MemoryLock:
    """An exclusive claim inside one program."""

    def __init__(self, locked: set[str], path: str) -> None:
        self._locked = locked
        self._path = path
        self._released = False

    def release(self) -> None:
        """Give the claim up; twice does nothing, whoever holds it by then."""
        if not self._released:
            self._released = True
            self._locked.discard(self._path)
