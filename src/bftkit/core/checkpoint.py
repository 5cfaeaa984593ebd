"""Checkpoints: what a quorum says the replicated state is after a position."""

import msgspec

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ZERO_DIGEST, digest_of
from bftkit.core.statement import Statement

CHECKPOINT_KIND = "checkpoint"
"""Kind of the statement behind a checkpoint vote."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The roots after everything up to a position has been executed."""

    position: int
    """The engine's index within the epoch; 0 is the start of the epoch."""
    height: int
    """Global count of batches executed so far."""
    log_root: bytes
    """Digest chain over the batch digests, see `bftkit.core.log`."""
    state_root: bytes
    """The application's own digest of its state."""
    sessions_root: bytes
    """Digest of the client sessions: what makes commands execute once."""

    @property
    def content(self) -> bytes:
        """Return the digest that the vote's statement carries."""
        return digest_of("checkpoint", (self.height, self.log_root, self.state_root, self.sessions_root))

    def statement(self) -> Statement:
        """Return what a replica that has executed up to here signs."""
        return Statement(CHECKPOINT_KIND, 0, self.position, self.content)


class CheckpointCertificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A checkpoint with its proof.

    The same object lets replicas forget, proves a transferred state, and stands in a view change.
    At the start of an epoch there is no certificate: the genesis statement vouches for it.
    """

    checkpoint: Checkpoint
    certificate: QuorumCertificate | None

    @property
    def position(self) -> int:
        """Return the position of the checkpoint."""
        return self.checkpoint.position

    def is_about_its_checkpoint(self) -> bool:
        """Say whether the certificate's statement is the one of this checkpoint."""
        if self.certificate is None:
            return self.checkpoint.position == 0
        return self.certificate.statement == self.checkpoint.statement()


EMPTY_CHECKPOINT = Checkpoint(0, 0, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST)
"""What the first epoch of a new cluster starts from."""
