"""The mempool: client requests on their way into batches, and batches on their way into the log.

Batches adapt to load by themselves: while few of one's own are on their way, a new one is closed at
once; beyond that commands gather until a batch is full. Each origin has a quota, so that one faulty
replica or client crowds nobody out.
"""

from collections import deque

from bftkit.core.batch import BatchBody, BatchRef, make_batch
from bftkit.core.ids import ReplicaIndex
from bftkit.replica.inputs import Submission
from bftkit.replica.settings import ReplicaSettings

_ARRAY_HEADER_BYTES = 5


class Mempool:
    """Requests that wait for a batch, and batches that wait to be decided."""

    __slots__ = (
        "_bytes_of_member",
        "_collecting",
        "_collecting_bytes",
        "_count_of_member",
        "_keys_of_batch",
        "_known_keys",
        "_own",
        "_settings",
        "_uncommitted",
    )

    def __init__(self, settings: ReplicaSettings) -> None:
        self._settings = settings
        self._own = settings.own
        self._collecting: deque[Submission] = deque()
        self._collecting_bytes = 0
        self._known_keys: set[bytes] = set()
        self._keys_of_batch: dict[bytes, tuple[bytes, ...]] = {}
        self._uncommitted: dict[bytes, tuple[BatchRef, ReplicaIndex | None]] = {}
        members = len(settings.membership)
        self._count_of_member = [0] * members
        self._bytes_of_member = [0] * members

    def admit(self, submission: Submission) -> str | None:
        """Take a request; return why not, or None. One that is on its way already is taken silently."""
        if submission.key in self._known_keys:
            return None
        if len(submission.data) + _ARRAY_HEADER_BYTES > self._settings.limits.max_batch_bytes:
            return "the request is larger than a batch"
        if self._collecting_bytes + len(submission.data) > self._settings.tuning.collect_bytes:
            return "overloaded"
        self._known_keys.add(submission.key)
        self._collecting.append(submission)
        self._collecting_bytes += len(submission.data)
        return None

    def close_batches(self, number: int) -> list[BatchBody]:
        """Make batches of what waits, as many as may be on their way now, numbered from `number`.

        A request that comes again after it was decided must make another batch: the engine would not order the
        same one twice, and the client would never be answered.
        """
        made: list[BatchBody] = []
        tuning = self._settings.tuning
        full = self._settings.limits.max_batch_bytes
        while self._collecting:
            in_flight = len(self._keys_of_batch)
            if in_flight >= tuning.max_batches_in_flight:
                break
            if in_flight >= tuning.batches_in_flight and self._collecting_bytes < full:
                break
            made.append(self._close_one(number + len(made)))
        return made

    def _close_one(self, number: int) -> BatchBody:
        room = self._settings.limits.max_batch_bytes - _ARRAY_HEADER_BYTES
        chosen: list[Submission] = []
        count = 0
        while self._collecting and len(self._collecting[0].data) <= room:
            submission = self._collecting.popleft()
            room -= len(submission.data)
            self._collecting_bytes -= len(submission.data)
            count += submission.count
            chosen.append(submission)
        data = [submission.data for submission in chosen]
        body = make_batch(self._settings.epoch, self._own, data, count, number=number)
        self._keys_of_batch[body.ref.digest] = tuple(submission.key for submission in chosen)
        return body

    def has_room(self, member: ReplicaIndex, size: int) -> bool:
        """Say whether the quota of whoever brings a batch of this size allows one more."""
        tuning = self._settings.tuning
        return (
            self._count_of_member[member] < tuning.origin_batches
            and self._bytes_of_member[member] + size <= tuning.origin_bytes
        )

    def add(self, ref: BatchRef, charged: ReplicaIndex | None) -> None:
        """Note a batch that is held here and not decided; it counts against the member that brought it.

        None is for a batch that a proposal names: the window bounds those.
        """
        if ref.digest in self._uncommitted:
            return
        self._uncommitted[ref.digest] = (ref, charged)
        if charged is not None:
            self._count_of_member[charged] += 1
            self._bytes_of_member[charged] += ref.size

    def committed(self, ref: BatchRef) -> None:
        """Note that a batch is decided."""
        known, charged = self._uncommitted.pop(ref.digest, (ref, None))
        if charged is not None:
            self._count_of_member[charged] -= 1
            self._bytes_of_member[charged] -= known.size
        for key in self._keys_of_batch.pop(ref.digest, ()):
            self._known_keys.discard(key)

    @property
    def uncommitted(self) -> tuple[BatchRef, ...]:
        """List the batches held here that are not decided, oldest first."""
        return tuple(ref for ref, _ in self._uncommitted.values())

    def __len__(self) -> int:
        return len(self._uncommitted)

    @property
    def charged(self) -> tuple[int, ...]:
        """Count, for each member, the batches held here that it brought."""
        return tuple(self._count_of_member)

    @property
    def in_flight(self) -> int:
        """Count the own batches of this life that are not decided."""
        return len(self._keys_of_batch)

    @property
    def waiting_bytes(self) -> int:
        """Return the length of the requests that are not in a batch yet."""
        return self._collecting_bytes

    @property
    def waiting_requests(self) -> int:
        """Count the requests that are not in a batch yet."""
        return len(self._collecting)

    @property
    def batched_requests(self) -> int:
        """Count the requests in the own batches of this life that are not decided."""
        return sum(map(len, self._keys_of_batch.values()))

    @property
    def known_requests(self) -> int:
        """Count the requests that are not taken once more, because they are on their way."""
        return len(self._known_keys)

    @property
    def waiting_commands(self) -> int:
        """Count the commands that are not in a batch yet."""
        return sum(submission.count for submission in self._collecting)

    @property
    def idle(self) -> bool:
        """Say whether nothing waits."""
        return not self._collecting and not self._uncommitted
