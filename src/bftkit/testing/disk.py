"""A disk in memory that forgets, tears, reorders, misplaces, fills up, rots and dawdles, all from one seed.

What was written reads back at once, as through a page cache; what a crash leaves of it is drawn from a random
stream. Without a fault the cost of an append is one copy and one tuple, for thousands of simulated runs share it.

A *hook* sees every operation before or after it happens and may raise `SimulatedCrash`; from then on the disk refuses
everything until `SimulatedDisk.crash` has decided what is left, so that no cleaning up of the dying code can touch it.

A disk takes no time: how long its operations would have taken stands in `SimulatedDisk.latency_us`, for whoever owns
the clock.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import NoReturn

from bftkit.errors import StorageError, StorageFull, StorageLocked
from bftkit.storage.interface import Buffer
from bftkit.testing.disk_faults import DiskFaults, FlippedBit, Mishap, Pending, Place, misdirect
from bftkit.testing.disk_files import SECTOR_BYTES, CrashMode, DirectoryTree, FileOnDisk, SimulatedCrash, SimulatedLock

__all__ = ["SECTOR_BYTES", "CrashMode", "SimulatedCrash", "SimulatedDisk", "SimulatedFile", "SimulatedLock"]

Hook = Callable[[str, str], None]
"""Told the name of an operation and the path; may raise."""

Then = Callable[[], None]
"""Called when a fault that was asked for happens: many never do."""


class SimulatedDisk:
    """A `Storage` whose faults are calls.

    At once: `crash`, `overwrite`, `flip_bit`. To an operation that comes: `crash_after`, `fail`, `short_write`,
    `misdirect_read`, `misdirect_write`, `before`, `after`. For a while: `capacity_bytes` (`fill`, `make_room`), `slow`.
    """

    def __init__(self, stream: Random) -> None:
        self._random = stream
        self._tree = DirectoryTree()
        self._locked: set[str] = set()
        self._faults = DiskFaults()
        self._crash_countdown = -1
        self._at_crash: Then | None = None
        self._at_refusal: Then | None = None
        self._dead = False
        self._before: Hook | None = None
        self._after: Hook | None = None
        self.generation = 0
        """How many crashes there were; handles of an earlier one are refused."""
        self.operations = 0
        """How many operations there were, for choosing crash points."""
        self.watched = False
        """Whether anything may happen to an operation; the one question that an operation asks when nothing does."""
        self.misdirected = 0
        """How many operations went astray."""
        self.latency_us = 0
        """How long the operations since the last `take_latency_us` took, in microseconds."""
        self.failed = False
        """Whether an operation has failed since the last crash because somebody asked for it."""
        self.capacity_bytes: int | None = None
        """How much all files together may hold; None for no limit. Nothing new is created on a disk that is full."""

    # The Storage protocol.

    def open_append(self, path: str) -> "SimulatedFile":
        """Open a file for appending, made empty if missing."""
        self.enter("open_append", path)
        file = self._tree.files.get(path)
        if file is None:
            self._require_room(path)
            file = self._tree.create(path)
        return SimulatedFile(self, path, file)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        self.enter("read", path)
        file = self._tree.require(path)
        data = bytes(file.content[offset : offset + length])
        if not (self.watched and data):
            return data
        self._faults.meet(file, offset, length)
        return self._astray(path, offset, data)

    def size(self, path: str) -> int:
        """Return the file's length in bytes."""
        self.enter("size", path)
        return len(self._tree.require(path).content)

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""
        self.enter("list", directory)
        return self._tree.list(directory)

    def exists(self, path: str) -> bool:
        """Say whether a file or directory has this name."""
        self.enter("exists", path)
        return self._tree.exists(path)

    def rename(self, source: str, destination: str) -> None:
        """Give a file another name in the same directory."""
        self.enter("rename", source)
        self._tree.rename(source, destination)
        if self.watched:
            self.done("rename", source)

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        self.enter("remove", path)
        self._tree.remove(path)
        if self.watched:
            self.done("remove", path)

    def make_directory(self, path: str) -> None:
        """Create a directory unless it exists."""
        self.enter("make_directory", path)
        if not self._tree.has_directory(path):
            self._require_room(path)
            self._tree.make_directory(path)
        if self.watched:
            self.done("make_directory", path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        self.enter("sync_directory", path)
        self._tree.sync(path)
        if self.watched:
            self.done("sync_directory", path)

    def lock(self, path: str) -> SimulatedLock:
        """Claim a path until released or until the crash."""
        self.enter("lock", path)
        self._tree.require_parent(path)
        if path in self._locked:
            raise StorageLocked(f"{path!r} is locked", path)
        self._locked.add(path)
        return SimulatedLock(partial(self.unlock, path, self.generation))

    def random_bytes(self, count: int) -> bytes:
        """Return bytes of the seed's stream."""
        return self._random.randbytes(count)

    # Faults that happen at once.

    def crash(self, mode: CrashMode = CrashMode.NOTHING, random: Random | None = None) -> bool:
        """Lose what this mode loses, close all handles, release all locks, and be ready for a restart.

        Say whether there was anything that a sync had not covered, and the mode cares.

        Names that no `sync_directory` covered are lost likewise: all, a random number from the end, or (reordered) any.
        What is drawn comes from `random`, so that it does not depend on what was drawn before; without, from the
        disk's stream. Failures that were to come are forgotten; misdirections and slowness are the disk's, and stay.
        """
        unsynced = mode is not CrashMode.KILL and self._tree.crash(mode, random or self._random)
        self._locked.clear()
        self._faults.process_died()
        self._crash_countdown = -1
        self._dead = False
        self.failed = False
        self.latency_us = 0
        self.generation += 1
        return unsynced

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """Change what is on the disk behind everybody's back, as rot does."""
        file = self._tree.require(path)
        if offset + len(data) > len(file.content):
            raise StorageError(f"{path!r} is shorter than what is to be overwritten", path)
        file.content[offset : offset + len(data)] = data

    def flip_bit(
        self, path: str, offset: int | None = None, random: Random | None = None, *, then: Then | None = None
    ) -> int:
        """Flip one bit, of the byte at `offset` or of a random one, and return the offset; `then` the first read of it.

        What the file loses, or what is written in its place, before anybody reads it, did no harm.
        """
        random = self._random if random is None else random
        file = self._tree.require(path)
        content = file.content
        if not content:
            raise StorageError(f"{path!r} is empty", path)
        at = random.randrange(len(content)) if offset is None else offset
        content[at] ^= 1 << random.randrange(8)
        if then is not None:
            self._faults.flipped.append(FlippedBit(file, at, content[at], then))
            self.watched = True
        return at

    # Faults of operations that come. Each hits any path, or those that contain `path`; `then` is called each time.

    def crash_after(self, operations: int, then: Then | None = None) -> None:
        """Raise `SimulatedCrash` in place of the operation that follows this many others."""
        self._crash_countdown, self._at_crash = operations, then
        self.watched = True

    def fail(self, operation: str, count: int = 1, path: str | None = None, *, then: Then | None = None) -> None:
        """Let the next `count` calls of an operation fail.

        A failing "sync" marks the pages clean, as Linux does: they read well, the next sync succeeds, and a loss of
        power shows that they never reached the disk.
        """
        self._expect(operation, Mishap.ERROR, count, path, then=then)

    def short_write(
        self, count: int = 1, path: str | None = None, random: Random | None = None, *, then: Then | None = None
    ) -> None:
        """Let the next `count` writes fail when a part of them is in the file."""
        self._expect("write", Mishap.SHORT, count, path, random, then=then)

    def misdirect_read(
        self,
        path: str | None = None,
        count: int = 1,
        *,
        place: Place | None = None,
        random: Random | None = None,
        then: Then | None = None,
    ) -> None:
        """Let the next `count` reads return, wholly or for one sector, what stands in another place.

        The place is drawn among all of the disk that are long enough, unless it is given: a path and an offset. A read
        for which there is none comes true, and the next one is tried.
        """
        self._expect("read", Mishap.MISDIRECTED, count, path, random, place, then)

    def misdirect_write(
        self,
        path: str | None = None,
        count: int = 1,
        *,
        place: Place | None = None,
        random: Random | None = None,
        then: Then | None = None,
    ) -> None:
        """Let the next `count` writes, wholly or for one sector, overwrite another place; their own gets zeros.

        The place is chosen as by `misdirect_read`. The damage shows at once and is durable.
        """
        self._expect("write", Mishap.MISDIRECTED, count, path, random, place, then)

    @property
    def before(self) -> Hook | None:
        """Called with the operation's name and the path before each one; may raise."""
        return self._before

    @before.setter
    def before(self, hook: Hook | None) -> None:
        self._before = hook
        self.watched = True

    @property
    def after(self) -> Hook | None:
        """Called with name and path after each operation that succeeded and has changed something; may raise."""
        return self._after

    @after.setter
    def after(self, hook: Hook | None) -> None:
        self._after = hook
        self.watched = True

    def power_off(self, reason: str) -> NoReturn:
        """Crash here and now, for whoever does so outside of a hook: raise `SimulatedCrash`, and refuse all else."""
        self._dead = self.watched = True
        raise SimulatedCrash(reason)

    # Faults that last.

    def slow(self, operation: str, latency_us: int, path: str | None = None) -> None:
        """Let each call of an operation add so many microseconds to `latency_us` from now on; 0 ends it."""
        self._faults.slow(operation, path, latency_us)
        self.watched = True

    def take_latency_us(self) -> int:
        """Return how long the operations took since this was asked last."""
        taken, self.latency_us = self.latency_us, 0
        return taken

    def fill(self, free_bytes: int = 0, *, then: Then | None = None) -> None:
        """Leave only so much space; `then` is called when something finds too little, the first time."""
        self.capacity_bytes = self.used_bytes() + free_bytes
        self._at_refusal = then

    def make_room(self) -> None:
        """End the lack of space."""
        self.capacity_bytes = None

    def no_more_faults(self) -> None:
        """End what lasts, and forget what was to come."""
        self._faults.clear()
        self._crash_countdown = -1
        self.capacity_bytes = None

    # Looking at it, unhindered by faults.

    def used_bytes(self) -> int:
        """Return the length of all files together."""
        return sum(len(file.content) for file in self._tree.files.values())

    def contents(self) -> dict[str, bytes]:
        """Return what every file holds, by path, sorted."""
        return {path: bytes(self._tree.files[path].content) for path in sorted(self._tree.files)}

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of all files, in no order that means anything; looking at them is no operation of the disk."""
        return tuple(self._tree.files)

    # Shared with the handles.

    def enter(self, operation: str, path: str) -> None:
        """Count an operation and let the faults that wait for it happen."""
        self.operations += 1
        if self.watched:
            self._meet(operation, path)

    def _meet(self, operation: str, path: str) -> None:
        if self._dead:
            raise SimulatedCrash("the power is off")
        if self._crash_countdown >= 0:
            self._crash_countdown -= 1
            if self._crash_countdown < 0:
                self._dead = True
                if self._at_crash is not None:
                    self._at_crash()
                raise SimulatedCrash(f"before {operation} of {path!r}")
        if self._before is not None:
            self._call(self._before, operation, path)
        if self._faults:
            self.latency_us += self._faults.latency_us(operation, path)
            if operation != "sync":
                self._fail_if_wanted(operation, path)
        elif self._crash_countdown < 0 and self._before is None and self._after is None:
            self.watched = False

    def done(self, operation: str, path: str) -> None:
        """Tell the hook of an operation that has happened."""
        if self._after is not None:
            self._call(self._after, operation, path)

    def _call(self, hook: Hook, operation: str, path: str) -> None:
        try:
            hook(operation, path)
        except SimulatedCrash:
            self._dead = True
            raise

    def _fail_if_wanted(self, operation: str, path: str) -> None:
        pending = self._faults.take(operation, path, Mishap.ERROR)
        if pending is not None:
            self.failed = True
            pending.happens()
            raise StorageError(f"cannot {operation} {path!r}: injected I/O error", path)

    def written(self, path: str, file: FileOnDisk, start: int) -> None:
        """Let happen to a write, which is in the file from `start` on, what the lack of space and the faults want."""
        content = file.content
        if self.capacity_bytes is not None:
            excess = self.used_bytes() - self.capacity_bytes
            if excess > 0:
                del content[max(start, len(content) - excess) :]
                self._refuse(f"cannot write {path!r}: no space left", path)
        if not self._faults or len(content) == start:
            return
        short = self._faults.take("write", path, Mishap.SHORT)
        if short is not None:
            del content[short.random.randrange(start, len(content)) :]
            self.failed = True
            short.happens()
            raise StorageError(f"cannot write {path!r}: injected I/O error after a part of it", path)
        pending = self._faults.take("write", path, Mishap.MISDIRECTED)
        if pending is not None:
            self._write_astray(path, content, start, pending)

    def syncing(self, path: str) -> None:
        """Raise the injected failure of a sync, if one waits."""
        if self._faults:
            self._fail_if_wanted("sync", path)

    def unlock(self, path: str, generation: int) -> None:
        """Release a lock of this generation."""
        if generation == self.generation:
            self._locked.discard(path)

    def _expect(
        self,
        operation: str,
        mishap: Mishap,
        count: int,
        path: str | None,
        random: Random | None = None,
        place: Place | None = None,
        then: Then | None = None,
    ) -> None:
        # Errors draw nothing, and may not move the stream that everything else is drawn from.
        if random is None:
            random = self._random if mishap is Mishap.ERROR else Random(self._random.getrandbits(64))
        self._faults.add(Pending(operation, mishap, path, random, place, then), count)
        self.watched = True

    def _astray(self, path: str, offset: int, data: bytes) -> bytes:
        pending = self._faults.take("read", path, Mishap.MISDIRECTED)
        if pending is None:
            return data
        chosen = misdirect(self._tree.files, path, offset, len(data), pending)
        if chosen is None:
            self._faults.put_back(pending)
            return data
        self.misdirected += 1
        pending.happens()
        begin, end = chosen.begin - offset, chosen.begin - offset + chosen.length
        other = self._tree.files[chosen.path].content
        return data[:begin] + bytes(other[chosen.offset : chosen.offset + chosen.length]) + data[end:]

    def _write_astray(self, path: str, content: bytearray, start: int, pending: Pending) -> None:
        chosen = misdirect(self._tree.files, path, start, len(content) - start, pending)
        if chosen is None:
            self._faults.put_back(pending)
            return
        self.misdirected += 1
        pending.happens()
        begin, end = chosen.begin, chosen.begin + chosen.length
        data = bytes(content[begin:end])
        content[begin:end] = bytes(chosen.length)
        self._tree.files[chosen.path].content[chosen.offset : chosen.offset + chosen.length] = data

    def _require_room(self, path: str) -> None:
        """Refuse a new name on a full disk: its entry would need a block."""
        if self.capacity_bytes is not None and self.used_bytes() >= self.capacity_bytes:
            self._refuse(f"cannot create {path!r}: no space left", path)

    def _refuse(self, problem: str, path: str) -> NoReturn:
        then, self._at_refusal = self._at_refusal, None
        if then is not None:
            then()
        raise StorageFull(problem, path)


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    __slots__ = ("_closed", "_disk", "_file", "_generation", "_path", "_poisoned")

    def __init__(self, disk: SimulatedDisk, path: str, file: FileOnDisk) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self._generation = disk.generation
        self._poisoned = False
        self._closed = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all buffers; on a full disk, as much of them as fits."""
        self._enter("write")
        start = self._file.append(buffers)
        disk = self._disk
        if disk.watched or disk.capacity_bytes is not None:
            disk.written(self._path, self._file, start)
            disk.done("write", self._path)

    def sync(self) -> None:
        """Make the content durable; an injected failure poisons the file and loses what was written."""
        if not self._disk.watched:
            self._enter("sync")
            self._file.synced()
            return
        try:
            self._enter("sync")
            self._disk.syncing(self._path)
            self._file.synced()
            self._disk.done("sync", self._path)
        except StorageError:
            # A handle that is of no use says nothing of what others have written to the file.
            if not (self._poisoned or self._closed):
                self._poisoned = True
                self._file.sync_failed()
            raise

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._enter("truncate")
        self._file.truncate(size)
        if self._disk.watched:
            self._disk.done("truncate", self._path)

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
