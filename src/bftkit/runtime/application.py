"""The application stage: executes what was decided, beside the consensus loop.

Work is taken in order, in lists, and done in a worker thread, so that a slow state machine holds
back checkpoints and thereby the window, but never a vote.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import canonical
from bftkit.errors import ApplicationError, BftkitError, StorageError, StorageFull
from bftkit.replica.execution import Answer, Executor
from bftkit.replica.inputs import Executed, SnapshotInstalled, SnapshotSaved
from bftkit.replica.outputs import STATES_KEPT, Execute, InstallSnapshot, SaveSnapshot
from bftkit.runtime.clock import Clock
from bftkit.runtime.failpoints import Hit, pass_by
from bftkit.runtime.payload_store import PayloadStore
from bftkit.storage.snapshots import SnapshotStore

SNAPSHOTS_KEPT = 3
"""Snapshots on disk: the newest, the one before, which somebody may be fetching, and one that is being replaced."""

MAX_TAKEN = 64
"""Jobs done in one visit to the thread."""

FULL_DISK_RETRY_S = 0.5
"""Pause before a snapshot is tried again that found no space."""


class Outcome(msgspec.Struct):
    """What one visit to the thread brought."""

    answers: list[Answer] = []
    events: list[Any] = []
    """Inputs for the replica."""
    executed: list[Execute] = []
    undone: list[Any] = []
    """Jobs that wait for space on the disk, the first of them with what follows it."""


class ApplicationStage:
    """Owner of the executor."""

    def __init__(
        self,
        executor: Executor,
        payloads: PayloadStore,
        snapshots: SnapshotStore,
        clock: Clock,
        done: Callable[[Outcome], None],
        hit: Hit = pass_by,
    ) -> None:
        self.executor = executor
        self._payloads = payloads
        self._snapshots = snapshots
        self._clock = clock
        self._done = done
        self._hit = hit
        self._jobs: deque[Any] = deque()
        self._wake = anyio.Event()
        self._kept: dict[int, bytes] = {}
        self._limiter = anyio.CapacityLimiter(1)
        self.commands = 0
        """Commands executed since the start."""
        self._roots: tuple[int, bytes, bytes] | None = None

    def put(self, job: Execute | SaveSnapshot | InstallSnapshot) -> None:
        """Queue a job; the replica bounds how many there are."""
        self._jobs.append(job)
        self._wake.set()

    @property
    def depth(self) -> int:
        """Count the jobs that wait."""
        return len(self._jobs)

    @property
    def kept_states(self) -> int:
        """Count the states that wait until one of them is certified."""
        return len(self._kept)

    async def run(self) -> None:
        """Do jobs until cancelled; ApplicationError and StorageError end it, and the node with it."""
        while True:
            if not self._jobs:
                self._wake = anyio.Event()
                await self._wake.wait()
            taken = [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_TAKEN))]
            outcome = await anyio.to_thread.run_sync(self.work, taken, limiter=self._limiter)
            self._done(outcome)
            if outcome.undone:
                # Nothing was lost: try again until there is space.
                self._jobs.extendleft(reversed(outcome.undone))
                await anyio.sleep(FULL_DISK_RETRY_S)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run something else that touches the application, in its turn."""
        return await anyio.to_thread.run_sync(lambda: function(*arguments), limiter=self._limiter)

    def work(self, jobs: list[Any]) -> Outcome:
        """Do jobs at once, in order: the part of `run` that belongs into the thread."""
        outcome = Outcome()
        for number, job in enumerate(jobs):
            try:
                self._do(job, outcome)
            except StorageFull:
                outcome.undone = jobs[number:]
                break
        return outcome

    def _do(self, job: Any, outcome: Outcome) -> None:
        match job:
            case Execute():
                self._execute(job, outcome)
            case SaveSnapshot():
                outcome.events.extend(self._save(job.certificate))
            case InstallSnapshot():
                outcome.events.append(self._install(job.certificate, b"".join(job.data)))

    def _execute(self, job: Execute, outcome: Outcome) -> None:
        for offset, ref in enumerate(job.refs):
            height = job.first_height + offset
            if height <= self.executor.height:
                # A state that was taken over meanwhile holds this batch already.
                continue
            body = self._payloads.get(ref.digest)
            if body is None:
                raise StorageError(f"the body of the batch at height {height} is gone")
            self._hit("application.before_apply")
            outcome.answers.extend(self.executor.execute(ref, body[1], height))
            self._hit("application.after_apply")
            self.commands += ref.count
        if job.first_height + len(job.refs) - 1 < self.executor.height:
            return
        if job.roots:
            state_root, sessions_root = self.executor.roots()
            outcome.events.append(Executed(self._clock.now_ms(), job.position, state_root, sessions_root))
            if job.snapshot:
                self._kept[job.position] = self.executor.snapshot()
                if len(self._kept) > STATES_KEPT:
                    self._kept.pop(min(self._kept))
        else:
            if outcome.events and isinstance(outcome.events[-1], Executed) and outcome.events[-1].state_root is None:
                outcome.events.pop()
            outcome.events.append(Executed(self._clock.now_ms(), job.position))
        outcome.executed.append(job)

    def _save(self, certificate: CheckpointCertificate) -> list[SnapshotSaved]:
        data = self._kept.get(certificate.position)
        if data is None:
            return []
        height = certificate.checkpoint.height
        self._hit("application.before_snapshot")
        self._snapshots.save(height, [data], canonical(certificate))
        self._snapshots.prune(keep=SNAPSHOTS_KEPT)
        self._kept = {position: kept for position, kept in self._kept.items() if position > certificate.position}
        self._hit("application.after_snapshot")
        return [SnapshotSaved(self._clock.now_ms(), certificate, len(data))]

    def _install(self, certificate: CheckpointCertificate, data: bytes) -> SnapshotInstalled:
        now = self._clock.now_ms()
        checkpoint = certificate.checkpoint
        if checkpoint.height < self.executor.height:
            return SnapshotInstalled(now, certificate, len(data), "this replica is further already")
        self._hit("application.before_install")
        before = self.executor.snapshot()
        problem = self._try(data, checkpoint.height, checkpoint.state_root, checkpoint.sessions_root)
        if problem:
            self.executor.restore(before)
            return SnapshotInstalled(now, certificate, len(data), problem)
        try:
            self._snapshots.save(checkpoint.height, [data], canonical(certificate))
        except StorageFull:
            # The job comes again; until then the replica does not know of the state, so nobody may see it.
            self.executor.restore(before)
            raise
        self._snapshots.prune(keep=SNAPSHOTS_KEPT)
        self._hit("application.after_install")
        return SnapshotInstalled(now, certificate, len(data))

    def _try(self, data: bytes, height: int, state_root: bytes, sessions_root: bytes) -> str:
        try:
            self.executor.restore(data)
        except BftkitError as error:
            return str(error)
        if self.executor.height != height:
            return "it is of another height than its certificate"
        if self.executor.roots() != (state_root, sessions_root):
            return "its roots are not the certified ones"
        return ""

    def roots_now(self) -> tuple[int, bytes, bytes]:
        """Return height, state root and sessions root as they are; to be run by `call`."""
        if self._roots is None or self._roots[0] != self.executor.height:
            self._roots = (self.executor.height, *self.executor.roots())
        return self._roots


def restore_newest(executor: Executor, snapshots: SnapshotStore) -> tuple[CheckpointCertificate, int] | None:
    """Bring the executor to the newest intact snapshot; return its certificate and size, or None."""
    newest = snapshots.newest()
    if newest is None:
        return None
    try:
        certificate = msgspec.msgpack.decode(newest.manifest, type=CheckpointCertificate)
    except msgspec.DecodeError as error:
        raise StorageError(f"the manifest of the snapshot at height {newest.height} cannot be read") from error
    data = b"".join(snapshots.parts(newest.height))
    executor.restore(data)
    checkpoint = certificate.checkpoint
    if (executor.height, *executor.roots()) != (checkpoint.height, checkpoint.state_root, checkpoint.sessions_root):
        raise ApplicationError(f"the state restored at height {newest.height} has other roots than its certificate")
    return certificate, len(data)
