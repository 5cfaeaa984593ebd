"""Batches that wait to be ordered, taken fairly from each origin."""

from collections.abc import Container, Iterator

from bftkit.core.batch import BatchRef
from bftkit.core.ids import ReplicaIndex


class PendingBatches:
    """First in, first out for each origin; round robin among origins.

    The replica bounds how many of one origin it lets in; here nothing is dropped.
    """

    __slots__ = ("_by_digest", "_next_origin", "_queues")

    def __init__(self, members: int) -> None:
        self._queues: list[dict[bytes, BatchRef]] = [{} for _ in range(members)]
        self._by_digest: dict[bytes, BatchRef] = {}
        self._next_origin: ReplicaIndex = 0

    def __len__(self) -> int:
        return len(self._by_digest)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._by_digest

    def __iter__(self) -> Iterator[BatchRef]:
        """Go through all batches in the order in which they were added."""
        return iter(self._by_digest.values())

    def holds(self, ref: BatchRef) -> bool:
        """Say whether this very batch waits here."""
        return self._by_digest.get(ref.digest) == ref

    def add(self, ref: BatchRef) -> bool:
        """Add a batch; False where it is here already."""
        if ref.digest in self._by_digest:
            return False
        self._by_digest[ref.digest] = ref
        self._queues[ref.origin][ref.digest] = ref
        return True

    def discard(self, digest: bytes) -> BatchRef | None:
        """Remove a batch, wherever it stands; return it, or None where it was not here."""
        ref = self._by_digest.pop(digest, None)
        if ref is not None:
            self._queues[ref.origin].pop(digest, None)
        return ref

    def take(self, max_batches: int) -> list[BatchRef]:
        """Remove and return up to so many batches, one of each origin in turn."""
        taken: list[BatchRef] = []
        origins = len(self._queues)
        idle = 0
        while len(taken) < max_batches and idle < origins:
            queue = self._queues[self._next_origin]
            self._next_origin = (self._next_origin + 1) % origins
            if not queue:
                idle += 1
                continue
            idle = 0
            digest = next(iter(queue))
            taken.append(queue.pop(digest))
            del self._by_digest[digest]
        return taken

    def choose(self, max_batches: int, taken: Container[bytes]) -> list[BatchRef]:
        """Return up to so many batches whose digests are not taken, one of each origin in turn; all stay here."""
        origins = len(self._queues)
        free = [(ref for digest, ref in queue.items() if digest not in taken) for queue in self._queues]
        chosen: list[BatchRef] = []
        idle = 0
        while len(chosen) < max_batches and idle < origins:
            ref = next(free[self._next_origin], None)
            self._next_origin = (self._next_origin + 1) % origins
            if ref is None:
                idle += 1
            else:
                idle = 0
                chosen.append(ref)
        return chosen
