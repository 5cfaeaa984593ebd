"""The outer log: the one order of batches, and the proof of each commit."""

from hashlib import sha256

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate


class CommitProof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Why a position is decided, for those who did not see the votes.

    A crash-tolerant engine has no certificate: the word of a member is enough there.
    """

    certificate: QuorumCertificate | None = None
    """The deciding votes."""
    links: bytes = b""
    """What leads from the certificate's statement to the batches, in the engine's own encoding."""


class CommitEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One decided position."""

    position: int
    refs: tuple[BatchRef, ...]
    """Batches in order; none for a null batch or an empty block."""
    proof: CommitProof


def extend_log_root(root: bytes, height: int, digest: bytes) -> bytes:
    """Chain one more batch to the log root: SHA-256(root, height as 8 bytes, digest)."""
    return sha256(root + height.to_bytes(8, "big") + digest).digest()
