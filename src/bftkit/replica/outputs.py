"""What a replica wants its shell to do, beside `Send`, `Broadcast`, `SetTimer` and `CancelTimer` of the core."""

from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import Broadcast, CancelTimer, ReadReady, Send, SetTimer


class Append(msgspec.Struct, frozen=True):
    """Append one record to the log.

    With `barrier`, nothing visible that follows may happen before it is durable.
    """

    kind: int
    """See `bftkit.replica.records`."""
    payload: tuple[bytes | memoryview, ...]
    barrier: bool
    ref: BatchRef | None = None
    """The batch, where the record is a body; its digest is the SHA-256 of the payload."""


class Loopback(msgspec.Struct, frozen=True):
    """Give this input back once everything appended so far is durable."""

    event: Any


STATES_KEPT = 3
"""States that the shell keeps in memory at once until one of them is stable; the oldest one goes first.

There is no bound in bytes beside: a state machine must have room for copies of its state to take snapshots at all, and
this says for how many. More than one is kept only while checkpoints become stable that have no copy here.
"""


class Execute(msgspec.Struct, frozen=True):
    """Execute the batches of one decided position, in order, after all earlier ones."""

    position: int
    first_height: int
    """Height of the first batch; the others follow."""
    refs: tuple[BatchRef, ...]
    certificate: QuorumCertificate | None
    roots: bool
    """Report the roots afterwards: the position is a checkpoint."""
    snapshot: bool
    """Keep the state at this position until it is saved, or one above; of several, the newest `STATES_KEPT`."""


class SendBody(msgspec.Struct, frozen=True):
    """Send a body that is held here."""

    to: ReplicaIndex
    ref: BatchRef


class Forget(msgspec.Struct, frozen=True):
    """Bodies that nobody will ask for again."""

    digests: tuple[bytes, ...]


class SaveSnapshot(msgspec.Struct, frozen=True):
    """Make the kept state at this position durable together with its certificate; `SnapshotSaved` follows."""

    certificate: CheckpointCertificate


class SendSnapshotChunk(msgspec.Struct, frozen=True):
    """Send a part of the durable snapshot at a position, if it is still there."""

    to: ReplicaIndex
    position: int
    offset: int
    length: int


class InstallSnapshot(msgspec.Struct, frozen=True):
    """Check a transferred state against its certificate, take it over and make it durable."""

    certificate: CheckpointCertificate
    data: tuple[bytes, ...]


class Trim(msgspec.Struct, frozen=True):
    """Records of the log below an index are no longer needed."""

    below_index: int


class Refuse(msgspec.Struct, frozen=True):
    """Tell a client that its request was not taken; it will not be executed because of this submission."""

    token: int
    reason: str
    retry_after_ms: int = 0
    """More than zero where it may try again."""


class Report(msgspec.Struct, frozen=True):
    """Something that an operator may want to know; one for each change of state, never one for each message."""

    event: str
    """What happened: "view", "stable", "rejected", "accused", "unsigned", "behind", "caught up", "diverged"."""
    detail: str
    data: Any = None


ReplicaOutput = (
    Send
    | Broadcast
    | SetTimer
    | CancelTimer
    | ReadReady
    | Append
    | Loopback
    | Execute
    | SendBody
    | Forget
    | SaveSnapshot
    | SendSnapshotChunk
    | InstallSnapshot
    | Trim
    | Refuse
    | Report
)
"""Everything that `Replica.step` returns a list of."""
