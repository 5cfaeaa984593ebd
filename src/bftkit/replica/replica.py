"""The replica: one engine and everything above it, as one state machine.

`step` takes one input and returns what the shell is to do, in order. It composes the engine with the
payload plane, the mempool, the signing guard, checkpoints and catching up; each of them lives in a
file of its own, and this one only connects them.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import structs

from bftkit.core import outputs as core_outputs
from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import ConsensusEngine, EngineStatus
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.inputs import Available, EngineInput, Read, Received, Stable, Synced, TimerFired, Transfer
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import Broadcast, EngineOutput, Send
from bftkit.core.statement import SignedMessage
from bftkit.replica import catch_up, dissemination, state_transfer
from bftkit.replica import inputs as events
from bftkit.replica.catch_up import CatchUp
from bftkit.replica.checkpoints import Checkpoints
from bftkit.replica.commits import CommitLog
from bftkit.replica.dissemination import FETCH_TIMER, Asked
from bftkit.replica.mempool import Mempool
from bftkit.replica.messages import CheckpointVote, OfferBodies, StableCheckpoint
from bftkit.replica.outputs import STATES_KEPT, Append, Forget, ReplicaOutput, Report, SaveSnapshot, Trim
from bftkit.replica.payloads import Payloads
from bftkit.replica.records import RecordKind, StepRecord
from bftkit.replica.safety import SigningGuard
from bftkit.replica.settings import ReplicaSettings
from bftkit.replica.state_transfer import StateTransfer
from bftkit.replica.sync_timers import arm_progress

ENGINE_TIMER = "engine/"
"""Prefix of the engine's timers among the replica's."""


class Replica:
    """A member of one group in one epoch.

    Built by `bftkit.replica.recovery.recover`, which reads the log; `start` comes before any `step`.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        engine: ConsensusEngine[Any],
        guard: SigningGuard,
        commits: CommitLog,
        payloads: Payloads,
        checkpoints: Checkpoints,
        next_index: int,
    ) -> None:
        self.settings = settings
        self.own = settings.own
        self.engine = engine
        self.guard = guard
        self.commits = commits
        self.payloads = payloads
        self.checkpoints = checkpoints
        self.mempool = Mempool(settings)
        self.catch_up = CatchUp(len(settings.membership))
        self.state_transfer = StateTransfer(len(settings.membership))
        self.next_index = next_index
        """Index that the next record of the log will get."""
        self.step_index = next_index
        """Log index of the newest step record that replaces earlier ones."""
        self.pending_snapshots: deque[int] = deque(maxlen=STATES_KEPT)
        """Positions whose states the shell keeps until one of them is stable, ascending."""
        self._snapshot_due: CheckpointCertificate | None = None
        """What is to be saved at the end of this turn."""
        self.snapshot: tuple[CheckpointCertificate, int] | None = None
        """Newest durable snapshot and its size, for those who lag."""
        self.older_snapshot: tuple[CheckpointCertificate, int] | None = None
        """The one before, for those who are fetching it already."""
        self._needed_from = 0
        """Log index of the first record that is needed beside the snapshot before; 0 while that is not known."""
        self.halted = ""
        """Why this replica has stopped for good; empty while it runs."""
        self.now = 0
        self._out: list[ReplicaOutput] = []
        self._engine_inputs: deque[EngineInput] = deque()
        self.asked = Asked()
        """Bodies that the engine waits for: it hears of their arrival even when they were decided meanwhile."""
        self._view = -1
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Received: self._on_received,
            TimerFired: self._on_timer,
            events.Submitted: lambda event: dissemination.on_submitted(self, event),
            events.BodiesDurable: lambda event: dissemination.on_bodies_durable(self, event),
            events.Executed: self._on_executed,
            events.SnapshotSaved: self._on_snapshot_saved,
            events.SnapshotInstalled: lambda event: state_transfer.on_snapshot_installed(self, event),
            events.PeerUp: lambda event: catch_up.on_peer_up(self, event.peer),
            events.PeerDown: lambda event: catch_up.on_peer_down(self, event.peer),
            Read: self.tell_engine,
            Transfer: self.tell_engine,
        }
        self._messages: dict[type[Any], Callable[[ReplicaIndex, Any], None]] = {
            **dissemination.handlers(self),
            CheckpointVote: self._on_checkpoint_vote,
            StableCheckpoint: lambda sender, message: self.on_certificate(message.certificate),
            **catch_up.handlers(self),
        }

    # -- the door ---------------------------------------------------------------------------------

    def start(self, now: int, uncommitted: Iterable[BatchRef] = ()) -> list[ReplicaOutput]:
        """Begin: execute again what the snapshot does not hold, start the engine, offer it what waits."""
        self.now = now
        self.execute_ready()
        decided = tuple(ref for entry in self.commits for ref in entry.refs)
        # A position may have been logged while one of its bodies was still on its way.
        lost = tuple(ref for ref in decided if not self.payloads.is_known(ref.digest))
        dissemination.fetch(self, lost, ())
        self._translate(self.engine.start(now))
        newest = self.commits.newest
        if newest is not None and newest.position >= self.checkpoints.stable.position:
            # At the checkpoint itself, too: its engine may have been torn off before it recorded what stands there.
            self.tell_engine(Synced(now, newest.position, decided, newest.proof))
        waiting = tuple(uncommitted)
        for ref in waiting:
            # The log does not say who brought it; see `dissemination`.
            self.mempool.add(ref, ref.origin)
        if waiting:
            self.tell_engine(Available(now, waiting))
        return self._finish()

    def step(self, event: Any) -> list[ReplicaOutput]:
        """Take one input and return what is to be done, in order."""
        if self.halted:
            return []
        if event.now < self.now:
            # What waited in a queue is older than what was taken meanwhile; the replica's time never goes back.
            event = structs.replace(event, now=self.now)
        self.now = event.now
        self._handlers[type(event)](event)
        return self._finish()

    def status(self) -> EngineStatus:
        """Return what the engine says about itself; for a stable checkpoint, with those whose votes are missing."""
        status = self.engine.status()
        if not status.waiting_for or status.waiting_on:
            return status
        pending = self.checkpoints.waiting_on()
        # Before it votes itself, it is what a checkpoint waits for here.
        missing = pending[1] if pending is not None else (self.own,) if self.commits.waiting else ()
        return structs.replace(status, waiting_on=missing)

    def emit(self, *outputs: ReplicaOutput) -> None:
        """Append outputs to those of the current step."""
        self._out.extend(outputs)

    def append(self, kind: RecordKind, value: Any, *, barrier: bool) -> int:
        """Append one record to the log; return the index that it gets."""
        self.emit(Append(kind, (canonical(value),), barrier))
        self.next_index += 1
        return self.next_index - 1

    def tell_engine(self, event: EngineInput) -> None:
        """Queue an input for the engine; it is taken in this same step."""
        self._engine_inputs.append(event)

    def resend(self, vote: CheckpointVote) -> None:
        """Say again what was said before; the guard knows it."""
        self._translate([Broadcast(vote)])

    def halt(self, reason: str) -> None:
        """Stop for good: what this replica holds contradicts what a quorum certified."""
        self.halted = reason
        self.emit(Report("diverged", reason))

    def _finish(self) -> list[ReplicaOutput]:
        while self._engine_inputs and not self.halted:
            self._translate(self.engine.step(self._engine_inputs.popleft()))
        if self._snapshot_due is not None:
            # Behind the engine's record: whoever starts from this snapshot must find what the engine knew at it.
            self.emit(SaveSnapshot(self._snapshot_due))
            self._snapshot_due = None
        if not self.halted:
            # Whatever brought the own batches on, a decision or a proof of one, there may be room for more.
            dissemination.close_batches(self)
        outputs, self._out = self._out, []
        return outputs

    # -- what the engine wants --------------------------------------------------------------------

    def _translate(self, outputs: list[EngineOutput]) -> None:
        """Turn the outputs of one engine step into the replica's.

        All records of the step and the signing watermark become one log record, at the place of the
        first of them: moving a later record forward only delays what stands between.
        """
        if not outputs and self._view >= 0:
            return
        persists = [output for output in outputs if type(output) is core_outputs.Persist]
        refused = self._admit_signatures(outputs, persists)
        recorded = not (persists or refused.new_slots)
        for output in outputs:
            kind = type(output)
            if kind is core_outputs.Persist or any(output is dropped for dropped in refused.dropped):
                if kind is core_outputs.Persist and not recorded:
                    recorded = True
                    self._record_step(persists, refused.new_slots)
                continue
            if not recorded and isinstance(output, Send | Broadcast) and isinstance(output.message, SignedMessage):
                recorded = True
                self._record_step(persists, refused.new_slots)
            self._perform(output)
        # An engine that changes its view has something to say about it; where views rise with the log, only those that
        # have brought nothing are worth a word.
        spent = self.engine.view - (self.commits.position if self.settings.spec.view_for_each_position else 0)
        if spent > self._view:
            self._view = spent
            status = self.engine.status()
            self.emit(Report("view", f"view {status.view}, {status.mode}", status))

    def _admit_signatures(self, outputs: list[EngineOutput], persists: list[core_outputs.Persist]) -> "_Signing":
        signing = _Signing()
        for output in outputs:
            if not isinstance(output, Send | Broadcast) or not isinstance(output.message, SignedMessage):
                continue
            if getattr(output.message, "signature", b""):
                continue
            statement = output.message.statement()
            is_new = self.guard.is_new(statement)
            problem = self.guard.admit(statement)
            if problem is not None:
                signing.dropped.append(output)
                self.emit(Report("unsigned", problem, statement))
            elif is_new:
                signing.new_slots.append(statement)
        return signing

    def _record_step(self, persists: list[core_outputs.Persist], new_slots: list[Any]) -> None:
        replaces = any(persist.replaces_earlier for persist in persists)
        if replaces:
            last = max(index for index, persist in enumerate(persists) if persist.replaces_earlier)
            persists = persists[last:]
        index = self.append(
            RecordKind.STEP,
            StepRecord(
                tuple(canonical(persist.record) for persist in persists),
                replaces,
                self.guard.floor,
                self.guard.low_mark,
                self.guard.snapshot() if replaces else self.guard.slots_of(new_slots),
            ),
            barrier=True,
        )
        if replaces:
            self.step_index = index

    def _perform(self, output: Any) -> None:
        match output:
            case Send() | Broadcast():
                self.emit(output)
            case core_outputs.SetTimer(timer, delay_ms, jitter_ms):
                self.emit(core_outputs.SetTimer(ENGINE_TIMER + timer, delay_ms, jitter_ms))
            case core_outputs.CancelTimer(timer):
                self.emit(core_outputs.CancelTimer(ENGINE_TIMER + timer))
            case core_outputs.Commit(position, refs, proof):
                self._on_commit(position, refs, proof)
            case core_outputs.Want(refs, sources):
                dissemination.want(self, refs, sources)
            case core_outputs.Offer(refs, to):
                if to != self.own and refs:
                    self.emit(Send(to, OfferBodies(refs)))
            case core_outputs.Behind(position, sources, checkpoint):
                if checkpoint is not None:
                    self.on_certificate(checkpoint)
                catch_up.on_behind(self, position, sources)
            case core_outputs.Reject(sender, reason):
                self.emit(Report("rejected", reason, sender))
            case core_outputs.Accuse(evidence):
                self.emit(Report("accused", f"member {evidence.signer} signed two statements", evidence))
            case core_outputs.ReadReady():
                self.emit(output)

    def _on_commit(self, position: int, refs: tuple[BatchRef, ...], proof: CommitProof) -> None:
        if position <= self.commits.position:
            return
        self.decide(CommitEntry(position, refs, proof))
        catch_up.on_decided(self)

    def decide(self, entry: CommitEntry) -> None:
        """Take the next decided position, whether the engine or a peer's proof says so."""
        index = self.append(RecordKind.COMMIT, entry, barrier=False)
        self.commits.add(entry, index)
        for ref in entry.refs:
            self.payloads.decided(ref, entry.position)
            self.mempool.committed(ref)
        missing = tuple(ref for ref in entry.refs if not self.payloads.is_known(ref.digest))
        if missing:
            signers = entry.proof.certificate.signers if entry.proof.certificate else ()
            dissemination.fetch(self, missing, signers)
        self.execute_ready()

    def execute_ready(self) -> None:
        """Hand everything that is decided and held to the application, in order."""
        tuning = self.settings.tuning
        while (refs := self.commits.next_refs) is not None:
            if not all(self.payloads.holds(ref) for ref in refs):
                return
            execute = self.commits.execute_next(tuning.snapshot_positions, tuning.snapshot_bytes)
            if execute.snapshot:
                self.pending_snapshots.append(execute.position)
            self.emit(execute)

    # -- checkpoints ------------------------------------------------------------------------------

    def _on_executed(self, event: events.Executed) -> None:
        if event.position <= self.commits.executed or event.position > self.commits.executing:
            return
        self.commits.executed = event.position
        if event.state_root is not None and event.sessions_root is not None:
            self._vote_for_checkpoint(event.position, event.state_root, event.sessions_root)
        ahead = self.checkpoints.ahead
        if ahead is not None and ahead.position <= self.commits.executed:
            self.on_certificate(ahead)

    def _vote_for_checkpoint(self, position: int, state_root: bytes, sessions_root: bytes) -> None:
        roots = self.commits.roots_at(position)
        stable = self.checkpoints.stable
        if roots is None or position < stable.position:
            return
        height, log_root = roots
        vote = CheckpointVote(Checkpoint(position, height, log_root, state_root, sessions_root))
        if position == stable.position:
            # Executed once more after a restart.
            if vote.checkpoint != stable.checkpoint:
                self.halt(f"the state at position {position} differs from the one that a quorum certified")
            return
        self.checkpoints.own_vote(vote)
        self._translate([Broadcast(vote)])
        arm_progress(self)

    def _on_checkpoint_vote(self, sender: ReplicaIndex, message: CheckpointVote) -> None:
        certificate, accusation = self.checkpoints.on_vote(sender, message)
        if accusation is not None:
            self._perform(accusation)
        if certificate is not None:
            self.on_certificate(certificate)

    def on_certificate(self, certificate: CheckpointCertificate) -> None:
        """Take a certified checkpoint: forget below it once this replica has executed so far."""
        position = certificate.position
        if position <= self.checkpoints.stable.position or self.halted:
            return
        if position > self.commits.executed:
            self.checkpoints.note_ahead(certificate)
            if position > self.commits.position:
                catch_up.on_behind(self, position, certificate.certificate.signers if certificate.certificate else ())
            return
        own = self.checkpoints.own_checkpoint(position)
        if own is not None and own != certificate.checkpoint:
            self.halt(f"the state at position {position} differs from the one that a quorum certified")
            return
        self.checkpoints.now_stable(certificate)
        self.guard.stable(position)
        self.append(RecordKind.STABLE, certificate, barrier=False)
        self.emit(Report("stable", f"position {position}, height {certificate.checkpoint.height}", certificate))
        dissemination.forget_given_up(self)
        self.tell_engine(Stable(self.now, certificate))
        last = self.newest_state_through(position)
        if last == position:
            self.commits.snapshot_kept()
            self._snapshot_due = certificate
        elif last is not None:
            self.commits.snapshot_lost()

    def newest_state_through(self, position: int) -> int | None:
        """Forget which states the shell keeps at or below a position; return where the newest of them stands."""
        newest = None
        while self.pending_snapshots and self.pending_snapshots[0] <= position:
            newest = self.pending_snapshots.popleft()
        return newest

    def _on_snapshot_saved(self, event: events.SnapshotSaved) -> None:
        self.note_snapshot(event.certificate, event.size)
        self.trim(event.certificate.position)

    def note_snapshot(self, certificate: CheckpointCertificate, size: int) -> None:
        """Remember a snapshot that is durable now."""
        self.older_snapshot, self.snapshot = self.snapshot, (certificate, size)

    def snapshot_at(self, position: int) -> tuple[CheckpointCertificate, int] | None:
        """Return the durable snapshot at a position, if it is still there."""
        for snapshot in (self.snapshot, self.older_snapshot):
            if snapshot is not None and snapshot[0].position == position:
                return snapshot
        return None

    def trim(self, position: int) -> None:
        """Let go of everything that a durable snapshot at a position makes unnecessary.

        A window's length is kept besides: the engine may have voted for a proposal that names a batch again. And the
        log keeps what the snapshot before needs: when the newest one rots, there is that to start from.
        """
        kept_from = position - self.settings.window
        self.commits.trim(kept_from)
        gone = self.payloads.forget_through(kept_from)
        if gone:
            self.emit(Forget(gone))
        needed = [self.step_index, self.payloads.oldest_index, self.commits.oldest_record]
        below, self._needed_from = self._needed_from, min(index for index in needed if index is not None)
        if below:
            self.emit(Trim(below))

    # -- timers and messages ----------------------------------------------------------------------

    def _on_timer(self, event: TimerFired) -> None:
        if event.timer.startswith(ENGINE_TIMER):
            self.tell_engine(TimerFired(event.now, event.timer[len(ENGINE_TIMER) :]))
        elif event.timer == FETCH_TIMER:
            dissemination.on_fetch_timeout(self)
        else:
            catch_up.on_timer(self, event.timer)

    def _on_received(self, event: Received) -> None:
        handler = self._messages.get(type(event.message))
        if handler is None:
            self.tell_engine(event)
        else:
            handler(event.sender, event.message)


class _Signing:
    """What the guard said about one step's messages."""

    __slots__ = ("dropped", "new_slots")

    def __init__(self) -> None:
        self.dropped: list[Any] = []
        self.new_slots: list[Any] = []
