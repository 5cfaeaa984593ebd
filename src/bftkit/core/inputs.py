"""What an engine is told. Each input carries `now`: the shell's monotonic clock in milliseconds."""

from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import CommitProof


class Received(msgspec.Struct, frozen=True):
    """A message came, decoded, well-formed, with every signature inside it verified.

    The sender is who the channel says it is; one's own broadcasts come back through here.
    """

    now: int
    sender: ReplicaIndex
    message: Any


class Available(msgspec.Struct, frozen=True):
    """The bodies of these batches are durable here.

    A leader may propose them, the others watch that somebody does; a vote that waited for one may go.
    """

    now: int
    refs: tuple[BatchRef, ...]
    decided: bool = False
    """They were committed before, as far as that is remembered, and the engine asked for them: a proposal may name them
    once more, but they are not to be proposed or watched as new ones."""


class TimerFired(msgspec.Struct, frozen=True):
    """A timer that was set, and neither set again nor cancelled since, has run out."""

    now: int
    timer: str


class Stable(msgspec.Struct, frozen=True):
    """A quorum vouches for the state at a position that this replica has executed: forget what lies below."""

    now: int
    checkpoint: CheckpointCertificate


class Synced(msgspec.Struct, frozen=True):
    """This replica caught up by other means: everything up to the position is decided and known.

    It never gives back a right to vote that was given up.
    """

    now: int
    position: int
    refs: tuple[BatchRef, ...]
    """The batches decided since the engine last knew, where they are known."""
    proof: CommitProof | None


class Sealed(msgspec.Struct, frozen=True):
    """The epoch ends at this position: order nothing behind it, keep answering those who lag."""

    now: int
    position: int


class Read(msgspec.Struct, frozen=True):
    """Somebody wants to read; answer with `ReadReady` when a position is known that is recent enough."""

    now: int
    token: int


class Transfer(msgspec.Struct, frozen=True):
    """Hand the lead to a member, where the engine can."""

    now: int
    target: ReplicaIndex


EngineInput = Received | Available | TimerFired | Stable | Synced | Sealed | Read | Transfer
"""Everything that `ConsensusEngine.step` takes."""
