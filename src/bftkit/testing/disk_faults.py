"""What is to go wrong with the operations of a simulated disk, and where a misdirected one ends up."""

from collections.abc import Callable, Mapping
from enum import Enum
from random import Random
from typing import NamedTuple

import msgspec

from bftkit.testing.disk_files import SECTOR_BYTES, FileOnDisk

Place = tuple[str, int]
"""A path and an offset."""


class Mishap(Enum):
    """What becomes of an operation."""

    ERROR = "error"
    """It fails, and has done nothing."""
    SHORT = "short"
    """A write fails, and a part of it is there."""
    MISDIRECTED = "misdirected"
    """It reads or writes another place, and says that all is well."""


class Pending(msgspec.Struct, frozen=True):
    """A mishap that waits for its operation."""

    operation: str
    mishap: Mishap
    part: str | None
    """What the path must contain; None for any path."""
    random: Random
    """Decides what the operation's own sizes leave open."""
    place: Place | None = None
    """Where a misdirected operation ends up; None to draw it."""
    then: Callable[[], None] | None = None
    """Called when it happens."""

    def happens(self) -> None:
        """Tell whoever wants to know."""
        if self.then is not None:
            self.then()


class FlippedBit(NamedTuple):
    """A bit that is not what was written, until somebody reads it."""

    file: FileOnDisk
    offset: int
    byte: int
    """What the damaged byte is now."""
    then: Callable[[], None]

    def is_met(self, file: FileOnDisk, offset: int, length: int) -> bool:
        """Say whether a read returns it."""
        if file is not self.file or not offset <= self.offset < offset + length:
            return False
        return self.offset < len(file.content) and file.content[self.offset] == self.byte


class DiskFaults:
    """Mishaps in the order in which they were asked for, and operations that take their time."""

    def __init__(self) -> None:
        self._pending: list[Pending] = []
        self._slow: list[tuple[str, str | None, int]] = []
        self.flipped: list[FlippedBit] = []
        """Bits that nobody has read yet; they are on the disk, whatever becomes of the process or of other faults."""

    def __bool__(self) -> bool:
        return bool(self._pending or self._slow or self.flipped)

    def add(self, pending: Pending, count: int) -> None:
        """Let a mishap happen to the next `count` operations that it fits."""
        self._pending += [pending] * count

    def take(self, operation: str, path: str, mishap: Mishap) -> Pending | None:
        """Return the first mishap of this kind that waits for such an operation, and forget it."""
        for position, pending in enumerate(self._pending):
            if pending.operation == operation and pending.mishap is mishap and _fits(pending.part, path):
                del self._pending[position]
                return pending
        return None

    def meet(self, file: FileOnDisk, offset: int, length: int) -> None:
        """Tell of the flipped bits that a read returns."""
        if self.flipped:
            met = [bit for bit in self.flipped if bit.is_met(file, offset, length)]
            self.flipped = [bit for bit in self.flipped if bit not in met]
            for bit in met:
                bit.then()

    def put_back(self, pending: Pending) -> None:
        """Let a mishap wait again that could not happen."""
        self._pending.insert(0, pending)

    def slow(self, operation: str, part: str | None, latency_us: int) -> None:
        """Let an operation take so long from now on; 0 ends it."""
        self._slow = [entry for entry in self._slow if entry[:2] != (operation, part)]
        if latency_us:
            self._slow.append((operation, part, latency_us))

    def latency_us(self, operation: str, path: str) -> int:
        """Return how long an operation takes."""
        return sum([took for slow, part, took in self._slow if slow == operation and _fits(part, path)])

    def process_died(self) -> None:
        """Forget the failures that were meant for the process that is gone; what the disk itself does wrong stays."""
        self._pending = [pending for pending in self._pending if pending.mishap is Mishap.MISDIRECTED]

    def clear(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self._slow.clear()


class Misdirection(NamedTuple):
    """Which bytes of an operation go astray, and where they end up."""

    begin: int
    """Offset of the first of them in the file that was meant."""
    length: int
    path: str
    offset: int
    """Offset of the place that takes their part."""


def misdirect(
    files: Mapping[str, FileOnDisk], path: str, begin: int, length: int, pending: Pending
) -> Misdirection | None:
    """Choose another place of equal length for an operation, or for one of its sectors; None where there is none.

    Sectors do not move within themselves, so the other place lies as far from the start of its sector.
    """
    if pending.place is not None:
        other, offset = pending.place
        fits = other in files and offset + length <= len(files[other].content)
        return Misdirection(begin, length, other, offset) if fits else None
    random = pending.random
    end = begin + length
    sector = random.randrange(begin // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1) * SECTOR_BYTES
    start = max(begin, sector)
    spans = [(begin, length), (start, min(end, sector + SECTOR_BYTES) - start)]
    random.shuffle(spans)
    for start, size in spans:
        places = [
            (other, offset)
            for other in sorted(files)
            for offset in range(start % SECTOR_BYTES, len(files[other].content) - size + 1, SECTOR_BYTES)
            if other != path or abs(offset - start) >= size
        ]
        if places:
            return Misdirection(start, size, *random.choice(places))
    return None


def _fits(part: str | None, path: str) -> bool:
    return part is None or part in path
