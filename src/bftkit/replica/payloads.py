"""The payload plane: which bodies are held, which are on their way to disk, which are missing.

The bytes themselves belong to the shell; here only references count. A body is accepted from its
origin within the origin's quota, or from anybody once it is wanted: then a proposal or a decision
names it, and its digest says that it is the right one.
"""

from collections.abc import Iterator

from bftkit.core.batch import BatchBody, BatchRef
from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import Send
from bftkit.replica.messages import MAX_LISTED, FetchBodies
from bftkit.replica.outputs import SendBody


class _Wanted:
    """A body to fetch: where from, and whom to ask next."""

    __slots__ = ("next", "ref", "sources")

    def __init__(self, ref: BatchRef, sources: list[ReplicaIndex]) -> None:
        self.ref = ref
        self.sources = sources
        self.next = 0


class Payloads:
    """References of bodies by where they are."""

    __slots__ = ("_decided_at", "_everyone", "_held", "_index", "_own", "_storing", "_wanted")

    def __init__(self, own: ReplicaIndex, members: int) -> None:
        self._own = own
        self._everyone = [index for index in range(members) if index != own]
        self._held: dict[bytes, BatchRef] = {}
        self._storing: dict[bytes, BatchRef] = {}
        self._wanted: dict[bytes, _Wanted] = {}
        self._index: dict[bytes, int] = {}
        self._decided_at: dict[bytes, int] = {}

    def holds(self, digest: bytes) -> bool:
        """Say whether a body is durable here."""
        return digest in self._held

    def is_known(self, digest: bytes) -> bool:
        """Say whether a body is here, durable or about to be."""
        return digest in self._held or digest in self._storing

    def is_wanted(self, digest: bytes) -> bool:
        """Say whether a body is being fetched."""
        return digest in self._wanted

    def store(self, body: BatchBody, index: int) -> None:
        """Note that a body was appended to the log at an index."""
        digest = body.ref.digest
        self._storing[digest] = body.ref
        self._index[digest] = index
        self._wanted.pop(digest, None)

    def durable(self, refs: tuple[BatchRef, ...]) -> tuple[BatchRef, ...]:
        """Note that bodies reached the disk; return those that had not before."""
        arrived: list[BatchRef] = []
        for ref in refs:
            if self._storing.pop(ref.digest, None) is not None:
                self._held[ref.digest] = ref
                arrived.append(ref)
        return tuple(arrived)

    def recovered(self, ref: BatchRef, index: int) -> None:
        """Note a body that was found in the log at start."""
        self._held[ref.digest] = ref
        self._index[ref.digest] = index

    def want(self, refs: tuple[BatchRef, ...], sources: tuple[ReplicaIndex, ...]) -> list[Send]:
        """Ask for the bodies that are neither here nor asked for already."""
        missing: list[BatchRef] = []
        for ref in refs:
            if self.is_known(ref.digest):
                continue
            candidates = [source for source in sources if source != self._own] or self._everyone
            wanted = self._wanted.get(ref.digest)
            if wanted is None:
                wanted = self._wanted[ref.digest] = _Wanted(ref, [])
                missing.append(ref)
            wanted.sources.extend(source for source in candidates if source not in wanted.sources)
        return self._ask(missing)

    def ask_again(self) -> list[Send]:
        """Ask the next source for everything that is missing; after the named ones, everybody."""
        return self._ask([wanted.ref for wanted in self._wanted.values()])

    def _ask(self, refs: list[BatchRef]) -> list[Send]:
        by_source: dict[ReplicaIndex, list[bytes]] = {}
        for ref in refs:
            wanted = self._wanted[ref.digest]
            if wanted.next >= len(wanted.sources):
                wanted.sources.extend(peer for peer in self._everyone if peer not in wanted.sources)
                wanted.next %= max(1, len(wanted.sources))
            if wanted.sources:
                by_source.setdefault(wanted.sources[wanted.next], []).append(ref.digest)
                wanted.next += 1
        requests: list[Send] = []
        for source, digests in by_source.items():
            for start in range(0, len(digests), MAX_LISTED):
                requests.append(Send(source, FetchBodies(tuple(digests[start : start + MAX_LISTED]))))
        return requests

    def answer(self, sender: ReplicaIndex, digests: tuple[bytes, ...]) -> list[SendBody]:
        """Send what is asked for and held, each body once."""
        return [SendBody(sender, self._held[digest]) for digest in dict.fromkeys(digests) if digest in self._held]

    def decided(self, ref: BatchRef, position: int) -> None:
        """Note where a batch was decided; it stays until a durable snapshot lies above."""
        self._decided_at[ref.digest] = position

    def is_decided(self, digest: bytes) -> bool:
        """Say whether a batch was decided at a position that is still remembered."""
        return digest in self._decided_at

    def decided_at(self, digest: bytes) -> int | None:
        """Return where a batch was decided, while that is remembered."""
        return self._decided_at.get(digest)

    def forget_through(self, position: int) -> tuple[bytes, ...]:
        """Let go of what was decided at or below a position; return the digests."""
        gone = [digest for digest, decided in self._decided_at.items() if decided <= position]
        for digest in gone:
            del self._decided_at[digest]
            self._held.pop(digest, None)
            self._storing.pop(digest, None)
            self._wanted.pop(digest, None)
            self._index.pop(digest, None)
        return tuple(gone)

    def indices(self) -> Iterator[tuple[bytes, int]]:
        """Go through the bodies that are here: digest, and where the log holds it."""
        return iter(self._index.items())

    @property
    def oldest_index(self) -> int | None:
        """Return the lowest log index of a body that is still needed."""
        return next(iter(self._index.values()), None)

    @property
    def missing(self) -> tuple[BatchRef, ...]:
        """List the bodies that are being fetched."""
        return tuple(wanted.ref for wanted in self._wanted.values())

    def __len__(self) -> int:
        return len(self._held) + len(self._storing)
