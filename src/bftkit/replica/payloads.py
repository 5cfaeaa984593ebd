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

MAX_ASKED = 64
"""Times that a body is asked for which is not to be executed; the engine asks anew for what it still needs."""

MAX_OFFERED = 64
"""Bodies of one member's offers that are on their way here."""

_OFFER_ASKED = 4
"""Times that a body is asked for which was only offered."""


class _Wanted:
    """A body to fetch: where from, and whom to ask next."""

    __slots__ = ("asked", "next", "offered_by", "ref", "sources")

    def __init__(self, ref: BatchRef, offered_by: ReplicaIndex | None) -> None:
        self.ref = ref
        self.sources: list[ReplicaIndex] = []
        self.next = 0
        self.asked = 0
        self.offered_by = offered_by
        """Who offered it, where nobody else has named it."""


class Payloads:
    """References of bodies by where they are."""

    __slots__ = (
        "_decided_at",
        "_everyone",
        "_held",
        "_index",
        "_keep_through",
        "_offered",
        "_own",
        "_storing",
        "_wanted",
    )

    def __init__(self, own: ReplicaIndex, members: int) -> None:
        self._own = own
        self._everyone = [index for index in range(members) if index != own]
        self._held: dict[bytes, BatchRef] = {}
        self._storing: dict[bytes, BatchRef] = {}
        self._wanted: dict[bytes, _Wanted] = {}
        self._index: dict[bytes, int] = {}
        self._decided_at: dict[bytes, int] = {}
        self._keep_through: dict[bytes, int] = {}
        self._offered = [0] * members

    def holds(self, ref: BatchRef) -> bool:
        """Say whether a body is durable here, and is what the reference says of it."""
        return self._held.get(ref.digest) == ref

    def is_known(self, digest: bytes) -> bool:
        """Say whether a body is here, durable or about to be."""
        return digest in self._held or digest in self._storing

    def is_wanted(self, digest: bytes) -> bool:
        """Say whether a body is being fetched."""
        return digest in self._wanted

    def offered_by(self, digest: bytes) -> ReplicaIndex | None:
        """Return who offered a body that is being fetched, or None where a proposal or a decision names it."""
        wanted = self._wanted.get(digest)
        return None if wanted is None else wanted.offered_by

    def store(self, body: BatchBody, index: int) -> None:
        """Note that a body was appended to the log at an index."""
        digest = body.ref.digest
        self._storing[digest] = body.ref
        self._index[digest] = index
        self._settle(digest)

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
        # A body that was stored twice stands at its later place, so that the indices keep ascending.
        self._index.pop(ref.digest, None)
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
                wanted = self._wanted[ref.digest] = _Wanted(ref, None)
                missing.append(ref)
            elif wanted.offered_by is not None:
                self._offered[wanted.offered_by] -= 1
                wanted.offered_by = None
            wanted.sources.extend(source for source in candidates if source not in wanted.sources)
        return self._ask(missing)

    def want_offered(self, refs: tuple[BatchRef, ...], offered_by: ReplicaIndex) -> list[Send]:
        """Ask a member for bodies that it offers, within its quota: it may not even have them."""
        missing: list[BatchRef] = []
        for ref in refs:
            if self._offered[offered_by] >= MAX_OFFERED:
                break
            if not self.is_known(ref.digest) and ref.digest not in self._wanted:
                self._wanted[ref.digest] = wanted = _Wanted(ref, offered_by)
                wanted.sources.append(offered_by)
                self._offered[offered_by] += 1
                missing.append(ref)
        return self._ask(missing)

    def give_up(self, digest: bytes) -> None:
        """Want a body no longer that was only offered."""
        if self.offered_by(digest) is not None:
            self._settle(digest)

    def _settle(self, digest: bytes) -> None:
        """Want a body no longer."""
        wanted = self._wanted.pop(digest, None)
        if wanted is not None and wanted.offered_by is not None:
            self._offered[wanted.offered_by] -= 1

    def ask_again(self, executed: int) -> list[Send]:
        """Ask the next source for everything that is missing; after the named ones, everybody.

        What no position above `executed` needs is given up in the end: nobody may have it.
        """
        for wanted in list(self._wanted.values()):
            limit = MAX_ASKED if wanted.offered_by is None else _OFFER_ASKED
            if wanted.asked >= limit and self._decided_at.get(wanted.ref.digest, 0) <= executed:
                self._settle(wanted.ref.digest)
        return self._ask([wanted.ref for wanted in self._wanted.values()])

    def _ask(self, refs: list[BatchRef]) -> list[Send]:
        by_source: dict[ReplicaIndex, list[bytes]] = {}
        for ref in refs:
            wanted = self._wanted[ref.digest]
            wanted.asked += 1
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

    def lacks(self, digests: tuple[bytes, ...]) -> bool:
        """Say whether one of these bodies is not durable here."""
        return any(digest not in self._held for digest in digests)

    def answer(self, sender: ReplicaIndex, digests: tuple[bytes, ...]) -> list[SendBody]:
        """Send what is asked for and held, each body once."""
        return [SendBody(sender, self._held[digest]) for digest in dict.fromkeys(digests) if digest in self._held]

    def decided(self, ref: BatchRef, position: int) -> None:
        """Note where a batch was decided, the last time if it was more than once.

        It stays until a durable snapshot lies above.
        """
        self._decided_at[ref.digest] = max(position, self._decided_at.get(ref.digest, 0))

    def named_again(self, ref: BatchRef, position: int) -> None:
        """Keep a batch that was decided up to a later position: it may be decided there once more."""
        if ref.digest in self._decided_at:
            self._keep_through[ref.digest] = position

    def keep_decided(self, position: int) -> None:
        """Keep everything that was decided, and is here, up to a later position."""
        for digest in self._decided_at:
            if digest in self._held:
                self._keep_through[digest] = position

    def undecided(self, ref: BatchRef) -> None:
        """Forget that a batch was decided: it waits to be decided once more."""
        self._decided_at.pop(ref.digest, None)
        self._keep_through.pop(ref.digest, None)

    def is_decided(self, digest: bytes) -> bool:
        """Say whether a batch was decided at a position that is still remembered."""
        return digest in self._decided_at

    def decided_at(self, digest: bytes) -> int | None:
        """Return where a batch was decided, while that is remembered."""
        return self._decided_at.get(digest)

    def forget_through(self, position: int) -> tuple[bytes, ...]:
        """Let go of what was decided at or below a position; return the digests."""
        keep = self._keep_through
        gone = [
            digest
            for digest, decided in self._decided_at.items()
            if decided <= position and keep.get(digest, 0) <= position
        ]
        for digest in gone:
            del self._decided_at[digest]
            keep.pop(digest, None)
            self._held.pop(digest, None)
            self._storing.pop(digest, None)
            self._settle(digest)
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

    @property
    def is_fetching(self) -> bool:
        """Say whether a body is being fetched."""
        return bool(self._wanted)

    @property
    def decided_count(self) -> int:
        """Count the batches of which it is remembered where they were decided."""
        return len(self._decided_at)

    @property
    def kept_longer_count(self) -> int:
        """Count the batches that are kept longer than where they were decided asks for."""
        return len(self._keep_through)

    def offered_count(self, member: ReplicaIndex) -> int:
        """Count the bodies that are on their way here for no other reason than that a member offers them."""
        return self._offered[member]

    def __len__(self) -> int:
        return len(self._held) + len(self._storing)
