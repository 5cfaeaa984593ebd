"""The decided part of the log: entries since the last snapshot, heights, the log root."""

from collections import deque
from collections.abc import Iterator

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import Checkpoint
from bftkit.core.log import CommitEntry, extend_log_root
from bftkit.replica.outputs import Execute


class CommitLog:
    """Decided positions in order.

    Invariants: entries are contiguous from `base + 1` to `position`; `height` and `log_root` are
    those after `position`; positions up to `executing` have been handed to the application.
    """

    def __init__(self, base: Checkpoint, checkpoint_interval: int) -> None:
        self.interval = checkpoint_interval
        self.base = base.position
        """Entries at or below are gone: the snapshot holds their effect."""
        self.position = base.position
        self.height = base.height
        self.log_root = base.log_root
        self.executing = base.position
        self.executed = base.position
        """The application has reported everything up to here."""
        self._entries: deque[CommitEntry] = deque()
        self._record_index: dict[int, int] = {}
        self._waiting: deque[tuple[CommitEntry, int]] = deque()
        self._roots: dict[int, tuple[int, bytes]] = {base.position: (base.height, base.log_root)}
        self.bytes_since_snapshot = 0
        self._snapshot_mark = base.position
        self._snapshot_lost = False

    def add(self, entry: CommitEntry, record_index: int) -> None:
        """Take the next decided position; `record_index` is where the log holds it."""
        if entry.position != self.position + 1:
            raise ValueError(f"position {entry.position} does not follow {self.position}")
        self._waiting.append((entry, self.height + 1))
        self.position = entry.position
        for ref in entry.refs:
            self.height += 1
            self.log_root = extend_log_root(self.log_root, self.height, ref.digest)
            self.bytes_since_snapshot += ref.size
        self._entries.append(entry)
        self._record_index[entry.position] = record_index
        if entry.position % self.interval == 0:
            self._roots[entry.position] = (self.height, self.log_root)

    @property
    def next_refs(self) -> tuple[BatchRef, ...] | None:
        """Return the batches of the next position to execute, or None where nothing waits."""
        return self._waiting[0][0].refs if self._waiting else None

    def execute_next(self, snapshot_positions: int, snapshot_bytes: int) -> Execute:
        """Hand the next position to the application."""
        entry, first_height = self._waiting.popleft()
        self.executing = entry.position
        at_checkpoint = entry.position % self.interval == 0
        due = entry.position - self._snapshot_mark >= snapshot_positions or self.bytes_since_snapshot >= snapshot_bytes
        snapshot = at_checkpoint and (due or self._snapshot_lost)
        if snapshot:
            self._snapshot_mark = entry.position
            self.bytes_since_snapshot = 0
        return Execute(entry.position, first_height, entry.refs, entry.proof.certificate, at_checkpoint, snapshot)

    def snapshot_lost(self) -> None:
        """Take snapshots at all checkpoints until one is kept: which of them will be certified here is not known.

        Whoever hears of stable checkpoints from others hears of the newest one, and never of those before it.
        """
        self._snapshot_lost = True

    def snapshot_kept(self) -> None:
        """Take the next snapshot when it is due: one has become stable."""
        self._snapshot_lost = False

    def roots_at(self, position: int) -> tuple[int, bytes] | None:
        """Return height and log root at a checkpoint position that is remembered."""
        return self._roots.get(position)

    def after(self, position: int, limit: int) -> tuple[CommitEntry, ...] | None:
        """Return up to `limit` entries after a position, or None where they are gone."""
        if position < self.base:
            return None
        start = position - self.base
        return tuple(self._entries[index] for index in range(start, min(start + limit, len(self._entries))))

    def trim(self, position: int) -> None:
        """Drop the entries at or below a position whose effect is in a durable snapshot."""
        while self._entries and self._entries[0].position <= position:
            entry = self._entries.popleft()
            self._record_index.pop(entry.position, None)
            self.base = entry.position
        for known in [known for known in self._roots if known < position]:
            del self._roots[known]

    def skip_to(self, position: int) -> None:
        """Drop what waits to be executed at or below a position: a state that was taken over holds its effect."""
        while self._waiting and self._waiting[0][0].position <= position:
            self._waiting.popleft()
        self.executing = max(self.executing, position)
        self.executed = max(self.executed, position)

    def reset(self, checkpoint: Checkpoint) -> None:
        """Start over from a transferred state."""
        self.base = self.position = self.executing = self.executed = checkpoint.position
        self.height = checkpoint.height
        self.log_root = checkpoint.log_root
        self._entries.clear()
        self._record_index.clear()
        self._waiting.clear()
        self._roots = {checkpoint.position: (checkpoint.height, checkpoint.log_root)}
        self._snapshot_mark = checkpoint.position
        self._snapshot_lost = False
        self.bytes_since_snapshot = 0

    @property
    def oldest_record(self) -> int | None:
        """Return the lowest log index of an entry that is still needed."""
        return next(iter(self._record_index.values()), None)

    @property
    def root_count(self) -> int:
        """Count the checkpoint positions whose height and log root are remembered."""
        return len(self._roots)

    @property
    def waiting(self) -> int:
        """Count the decided positions that the application has not reported."""
        return self.position - self.executed

    @property
    def newest(self) -> CommitEntry | None:
        """Return the last decided position that is kept."""
        return self._entries[-1] if self._entries else None

    def __iter__(self) -> Iterator[CommitEntry]:
        return iter(self._entries)
