"""What an engine wants done. Outputs are performed in list order.

`Persist` is a barrier that spans steps: nothing that comes after it, in this step or a later one,
becomes visible outside before the record is durable. Only outputs marked `early` may overtake it.
"""

from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import CommitProof
from bftkit.core.votes import Evidence


class Send(msgspec.Struct, frozen=True):
    """Send a message to one member; to oneself it comes back as `Received` after the barrier before it."""

    to: ReplicaIndex
    message: Any
    early: bool = False
    """May overtake the barrier; never for a vote, never for a byzantine proposal."""


class Broadcast(msgspec.Struct, frozen=True):
    """Send a message to every member, oneself included."""

    message: Any
    early: bool = False


class Persist(msgspec.Struct, frozen=True):
    """Make a record durable before anything that follows is seen."""

    record: Any
    replaces_earlier: bool = False
    """The record holds all that earlier ones of this epoch said; they may be trimmed once it is durable."""


class SetTimer(msgspec.Struct, frozen=True):
    """Start a timer, or start it again."""

    timer: str
    delay_ms: int
    jitter_ms: int = 0
    """The shell adds a random part of up to this much."""


class CancelTimer(msgspec.Struct, frozen=True):
    """Stop a timer, if it runs."""

    timer: str


class Commit(msgspec.Struct, frozen=True):
    """A position is decided. Positions are committed in order, without a gap."""

    position: int
    refs: tuple[BatchRef, ...]
    proof: CommitProof


class ReadReady(msgspec.Struct, frozen=True):
    """A read may be served once everything up to the position has been executed."""

    token: int
    position: int


class Want(msgspec.Struct, frozen=True):
    """Fetch these bodies from one of the sources; `Available` follows, at once for those held already."""

    refs: tuple[BatchRef, ...]
    sources: tuple[ReplicaIndex, ...]


class Offer(msgspec.Struct, frozen=True):
    """See to it that a member, the leader, has these bodies: he is told and may fetch them."""

    refs: tuple[BatchRef, ...]
    to: ReplicaIndex


class Behind(msgspec.Struct, frozen=True):
    """Others are further than this engine can follow by itself: catch up to the position by state transfer."""

    position: int
    sources: tuple[ReplicaIndex, ...]
    checkpoint: CheckpointCertificate | None = None
    """Proof of the state to reach, where the engine has seen one."""


class Reject(msgspec.Struct, frozen=True):
    """A member said something that a correct one would not; counted against it."""

    sender: ReplicaIndex
    reason: str


class Accuse(msgspec.Struct, frozen=True):
    """A member signed two statements for one slot; here is the proof."""

    evidence: Evidence


EngineOutput = (
    Send | Broadcast | Persist | SetTimer | CancelTimer | Commit | ReadReady | Want | Offer | Behind | Reject | Accuse
)
"""Everything that `ConsensusEngine.step` returns a list of."""
