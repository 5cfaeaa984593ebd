"""What replicas say to each other beside the engine: bodies, checkpoints, catching up."""

from collections.abc import Iterator
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef, ref_problem
from bftkit.core.certificate import certificate_problem
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext, EngineSpec
from bftkit.core.ids import DIGEST_BYTES, SIGNATURE_BYTES, ReplicaIndex
from bftkit.core.log import CommitEntry
from bftkit.core.statement import Claim, SignedMessage, Statement

MAX_LISTED = 512
"""Longest list of digests, references or entries in one message."""

MAX_PART_BYTES = 1 << 20
"""Longest part of a state that may be asked for."""


class ReplicaMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of the unsigned messages."""


class FetchBodies(ReplicaMessage, frozen=True, tag="fetch-bodies"):
    """Ask for bodies by digest."""

    digests: tuple[bytes, ...]


class OfferBodies(ReplicaMessage, frozen=True, tag="offer-bodies"):
    """Say that these bodies are held here and wait to be ordered."""

    refs: tuple[BatchRef, ...]


class CheckpointVote(
    SignedMessage, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="checkpoint"
):
    """State the roots after having executed everything up to a position."""

    checkpoint: Checkpoint
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return the checkpoint's statement."""
        return self.checkpoint.statement()


class StableCheckpoint(ReplicaMessage, frozen=True, tag="stable"):
    """Pass on a certificate to one who has not seen it."""

    certificate: CheckpointCertificate


class Progress(ReplicaMessage, frozen=True, tag="progress"):
    """Say how far one is; sent on connecting, and after the last commit until all are equal."""

    position: int
    height: int
    stable: int
    asks: bool = False
    """Whether the sender wants to hear the same in return: it has not, or what it heard differs."""


class FetchCommits(ReplicaMessage, frozen=True, tag="fetch-commits"):
    """Ask for what was decided after a position."""

    after: int


class Commits(ReplicaMessage, frozen=True, tag="commits"):
    """Answer with decided positions, in order, each with its proof."""

    entries: tuple[CommitEntry, ...]
    position: int
    """How far the sender is itself."""


class SnapshotAvailable(ReplicaMessage, frozen=True, tag="snapshot"):
    """Answer that the log was trimmed, and offer the state at a certified position."""

    certificate: CheckpointCertificate
    size: int


class FetchSnapshot(ReplicaMessage, frozen=True, tag="fetch-snapshot"):
    """Ask for a part of the state at a position: exactly so many bytes."""

    position: int
    offset: int
    length: int


class SnapshotChunk(ReplicaMessage, frozen=True, tag="chunk"):
    """One part of the state at a position."""

    position: int
    size: int
    offset: int
    data: bytes


AnyReplicaMessage = (
    FetchBodies
    | OfferBodies
    | CheckpointVote
    | StableCheckpoint
    | Progress
    | FetchCommits
    | Commits
    | SnapshotAvailable
    | FetchSnapshot
    | SnapshotChunk
)
"""Union for the codec."""

BULK_MESSAGES = (Commits, SnapshotChunk)
"""Types that may be large, and that wait behind everything else."""


def message_claims(sender: ReplicaIndex, message: Any) -> Iterator[Claim]:
    """List the signed statements inside a message."""
    match message:
        case CheckpointVote():
            yield Claim(sender, message.statement(), message.signature)
        case StableCheckpoint() | SnapshotAvailable():
            if message.certificate.certificate is not None:
                yield from message.certificate.certificate.claims()
        case Commits():
            for entry in message.entries:
                if entry.proof.certificate is not None:
                    yield from entry.proof.certificate.claims()
        case _:
            return


def _vote_problem(vote: CheckpointVote) -> str | None:
    checkpoint = vote.checkpoint
    roots = (checkpoint.log_root, checkpoint.state_root, checkpoint.sessions_root)
    if checkpoint.height < 0 or any(len(root) != DIGEST_BYTES for root in roots):
        return "a checkpoint with malformed roots"
    if len(vote.signature) != SIGNATURE_BYTES:
        return "a signature of the wrong length"
    return None


def _certificate_problem(context: EngineContext, proof: CheckpointCertificate) -> str | None:
    if proof.certificate is None or not proof.is_about_its_checkpoint():
        return "a checkpoint without its certificate"
    return certificate_problem(proof.certificate, context.membership, context.membership.quorum.quorum)


def _commits_problem(context: EngineContext, spec: EngineSpec, message: Commits) -> str | None:
    if len(message.entries) > MAX_LISTED:
        return "too many entries"
    for earlier, later in zip(message.entries, message.entries[1:], strict=False):
        if later.position != earlier.position + 1:
            return "entries with a gap"
    for entry in message.entries:
        if entry.position < 1:
            return "an entry without a position"
        for ref in entry.refs:
            problem = ref_problem(ref, len(context.membership), context.limits.max_batch_bytes)
            if problem is not None:
                return problem
        problem = spec.commit_problem(context, entry)
        if problem is not None:
            return problem
    return None


def message_problem(context: EngineContext, spec: EngineSpec, message: Any) -> str | None:
    """Say what is wrong with a message by itself, or None; signatures are verified besides."""
    match message:
        case FetchBodies():
            if not 0 < len(message.digests) <= MAX_LISTED or any(len(d) != DIGEST_BYTES for d in message.digests):
                return "a malformed list of digests"
        case OfferBodies():
            if not 0 < len(message.refs) <= MAX_LISTED:
                return "a malformed list of batches"
            for ref in message.refs:
                problem = ref_problem(ref, len(context.membership), context.limits.max_batch_bytes)
                if problem is not None:
                    return problem
        case CheckpointVote():
            interval = context.limits.checkpoint_interval
            if message.checkpoint.position < 1 or message.checkpoint.position % interval:
                return "a checkpoint off the interval"
            return _vote_problem(message)
        case StableCheckpoint() | SnapshotAvailable():
            return _certificate_problem(context, message.certificate)
        case Commits():
            return _commits_problem(context, spec, message)
        case Progress():
            if min(message.position, message.height, message.stable) < 0:
                return "a negative position"
        case FetchCommits():
            if message.after < 0:
                return "a negative position"
        case FetchSnapshot():
            if message.position < 1 or message.offset < 0 or not 0 < message.length <= MAX_PART_BYTES:
                return "a part out of range"
        case SnapshotChunk():
            if not 0 <= message.offset <= message.size or message.offset + len(message.data) > message.size:
                return "a chunk out of range"
    return None
