"""What a replica is told by its shell, beside `Received` and `TimerFired` of the core."""

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Read, Received, TimerFired, Transfer


class Submission(msgspec.Struct, frozen=True, gc=False):
    """One client request, verified at the edge."""

    token: int
    """The shell's name for whoever waits; comes back in `Refuse`."""
    key: bytes
    """Names the request: the same one is not put into two batches here."""
    data: bytes
    """The encoded request, as it will stand in a batch."""
    count: int
    """How many commands it holds."""


class Submitted(msgspec.Struct, frozen=True):
    """Clients want these requests ordered: all that came in one turn."""

    now: int
    submissions: tuple[Submission, ...]


class BodiesDurable(msgspec.Struct, frozen=True):
    """Bodies that were appended to the log have reached the disk."""

    now: int
    refs: tuple[BatchRef, ...]


class Executed(msgspec.Struct, frozen=True):
    """The application has executed everything up to a position."""

    now: int
    position: int
    state_root: bytes | None = None
    """The roots at that position, where `Execute` asked for them."""
    sessions_root: bytes | None = None


class SnapshotSaved(msgspec.Struct, frozen=True):
    """The state at a stable position is durable; what lies below may be trimmed."""

    now: int
    certificate: CheckpointCertificate
    size: int


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """The application took over a transferred state, or refused it."""

    now: int
    certificate: CheckpointCertificate
    size: int
    problem: str = ""
    """Why it was refused; empty where it was taken."""


class PeerUp(msgspec.Struct, frozen=True):
    """A channel to a member is open."""

    now: int
    peer: ReplicaIndex


class PeerDown(msgspec.Struct, frozen=True):
    """The channel to a member is gone."""

    now: int
    peer: ReplicaIndex


ReplicaInput = (
    Received
    | TimerFired
    | Submitted
    | BodiesDurable
    | Executed
    | SnapshotSaved
    | SnapshotInstalled
    | PeerUp
    | PeerDown
    | Read
    | Transfer
)
"""Everything that `Replica.step` takes."""
