"""The narrow view of a file system that everything durable is written through.

Paths are strings relative to the storage's root, with ``/`` between their parts and no ``..``; the empty string is
the root. Each call says what a crash right after it may do. "Crash" means loss of power: a killed process alone loses
nothing that a call has accepted, but nobody can tell the two apart afterwards.

Every failure is a `StorageError` (or one of its subclasses); no `OSError` escapes from an implementation.
"""

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | memoryview
"""What may be written: bytes, or a contiguous view of bytes that nobody changes until the write returns."""


class AppendFile(Protocol):
    """A file that is open for writing at its end."""

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all buffers, in order.

        Crash: any part of what was written since the last `sync` may be missing, torn at any byte, zeroed, or present
        without what came before it. On `StorageFull` the file holds an unspecified prefix of the buffers; the caller
        truncates it before going on.
        """

    def sync(self) -> None:
        """Make the content and the length durable (fdatasync).

        Crash: everything written before a `sync` that returned is there. A failed `sync` says nothing about what is on
        the disk, and trying again proves nothing either (the system may have marked the pages clean): it poisons the
        file, and every later call on it but `close` raises.
        """

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes. Crash: the cut may be undone unless a `sync` followed."""

    def close(self) -> None:
        """Release the file without making anything durable. Closing twice does nothing."""


class Lock(Protocol):
    """An exclusive claim, held until released or until its process ends."""

    def release(self) -> None:
        """Give the claim up. Releasing twice does nothing."""


class Storage(Protocol):
    """A directory tree with explicit durability."""

    def open_append(self, path: str) -> AppendFile:
        """Open a file for appending, made empty if it is not there.

        Crash: a new file's name may be missing until `sync_directory` on its directory.
        """

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`: fewer at the end of the file, none beyond it."""

    def size(self, path: str) -> int:
        """Return the file's length in bytes."""

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name in the same directory, replacing what had it.

        Crash: atomic, so the destination is the old file or the new one, never neither; which one is open until
        `sync_directory`. The content is not made durable by it: `sync` it first.
        """

    def remove(self, path: str) -> None:
        """Remove a file's name. Crash: the name may be back until `sync_directory`."""

    def make_directory(self, path: str) -> None:
        """Create a directory unless it exists; its parent must exist.

        Crash: it may be missing, with all that is in it, until `sync_directory` on its parent.
        """

    def sync_directory(self, path: str) -> None:
        """Make durable the names that were created, renamed and removed in this directory."""

    def lock(self, path: str) -> Lock:
        """Claim the file at `path`, created if missing; raise `StorageLocked` when somebody holds it. Never waits."""

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that no remote party can predict (salts); a simulated storage draws them from its seed."""
