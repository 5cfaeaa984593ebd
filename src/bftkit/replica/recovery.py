"""Building a replica from its log: the newest snapshot, then every record behind it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from bftkit.core.batch import BatchRef, open_body
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.log import CommitEntry
from bftkit.errors import CorruptLog
from bftkit.replica.checkpoints import Checkpoints
from bftkit.replica.commits import CommitLog
from bftkit.replica.payloads import Payloads
from bftkit.replica.records import RecordKind, StepRecord, split_body
from bftkit.replica.replica import Replica
from bftkit.replica.safety import SigningGuard
from bftkit.replica.settings import ReplicaSettings


class LoggedRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as the log gives it back."""

    index: int
    kind: int
    epoch: int
    payload: bytes


class Recovered(NamedTuple):
    """A replica that is ready to start."""

    replica: Replica
    uncommitted: tuple[BatchRef, ...]
    """Batches held here that are not decided: to be given to `Replica.start`."""


_steps = msgspec.msgpack.Decoder(StepRecord)
_commits = msgspec.msgpack.Decoder(CommitEntry)
_stables = msgspec.msgpack.Decoder(CheckpointCertificate)


def recover(
    settings: ReplicaSettings,
    snapshot: tuple[CheckpointCertificate, int] | None,
    records: Iterable[LoggedRecord],
    next_index: int,
) -> Recovered:
    """Read the log of an earlier life, empty for a new replica, and build what it describes.

    `snapshot` is the certificate and size of the newest durable snapshot; the caller restores its state
    into the executor. CorruptLog where the records do not form a history.
    """
    start = CheckpointCertificate(settings.genesis.start, None)
    base = snapshot[0] if snapshot else start
    history = _History(settings, base)
    for record in records:
        history.take(record)
    reached = [known for known in (base, *history.stables) if known.position <= history.commits.position]
    stable = max(reached, key=lambda certificate: certificate.position)
    engine = settings.spec.build(settings.context, settings.genesis, stable, history.engine_records)
    history.guard.stable(stable.position)
    # A body that was stored again after its decision may be in a proposal that an earlier life voted for.
    history.payloads.keep_decided(history.commits.position + settings.window)
    uncommitted = history.uncommitted()
    # What was let go once must not count as decided because its record happens to be in the log still.
    history.payloads.forget_through(base.position - settings.window)
    replica = Replica(
        settings,
        engine,
        history.guard,
        history.commits,
        history.payloads,
        Checkpoints(settings, stable),
        next_index,
    )
    replica.step_index = history.step_index if history.step_index is not None else next_index
    replica.snapshot = snapshot
    return Recovered(replica, uncommitted)


class _History:
    """What the records add up to."""

    def __init__(self, settings: ReplicaSettings, base: CheckpointCertificate) -> None:
        self._epoch = settings.epoch
        self._spec_records = msgspec.msgpack.Decoder(settings.spec.records)
        self.guard = SigningGuard(settings.spec.signing)
        self.commits = CommitLog(base.checkpoint, settings.limits.checkpoint_interval)
        self.payloads = Payloads(settings.own, len(settings.membership))
        self.engine_records: list[Any] = []
        self.step_index: int | None = None
        self.stables: list[CheckpointCertificate] = []
        self._bodies: dict[bytes, BatchRef] = {}

    def take(self, record: LoggedRecord) -> None:
        """Take one record; those of other epochs speak of other members."""
        if record.epoch != self._epoch:
            return
        try:
            self._take(record)
        except (msgspec.DecodeError, ValueError) as error:
            raise CorruptLog(f"record {record.index} of the log cannot be read: {error}") from error

    def _take(self, record: LoggedRecord) -> None:
        match record.kind:
            case RecordKind.STEP:
                step = _steps.decode(record.payload)
                self.guard.restore(step)
                if step.replaces_earlier or self.step_index is None:
                    self.step_index = record.index
                if step.replaces_earlier:
                    self.engine_records.clear()
                self.engine_records.extend(self._spec_records.decode(data) for data in step.records)
            case RecordKind.BODY:
                header, blob = split_body(record.payload)
                body = open_body(header, blob)
                self._bodies[body.ref.digest] = body.ref
                self.payloads.recovered(body.ref, record.index)
            case RecordKind.COMMIT:
                entry = _commits.decode(record.payload)
                if entry.position > self.commits.position:
                    self.commits.add(entry, record.index)
                for ref in entry.refs:
                    self.payloads.decided(ref, entry.position)
            case RecordKind.STABLE:
                self.stables.append(_stables.decode(record.payload))
            case _:
                raise ValueError(f"unknown kind {record.kind}")

    def uncommitted(self) -> tuple[BatchRef, ...]:
        """List the bodies that no decided position names, oldest first."""
        return tuple(ref for digest, ref in self._bodies.items() if not self.payloads.is_decided(digest))
