"""What is wrong with a message by itself, and which signatures it carries."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.statement import Claim
from bftkit.replica.messages import (
    MAX_LISTED,
    MAX_PART_BYTES,
    AnyReplicaMessage,
    CheckpointVote,
    Commits,
    FetchBodies,
    FetchCommits,
    FetchSnapshot,
    OfferBodies,
    Progress,
    SnapshotAvailable,
    SnapshotChunk,
    StableCheckpoint,
    message_claims,
    message_problem,
)
from bftkit.wire.codec import Codec
from tests.replica.parts import SIGNATURE, certified, checkpoint_at, settings_of

SETTINGS = settings_of()
GOOD = certified(checkpoint_at(4))
REF = BatchRef(b"d" * 32, 1, 1, 10)
ENTRY = CommitEntry(3, (REF,), CommitProof(GOOD.certificate))
VOTE = CheckpointVote(checkpoint_at(4), SIGNATURE)


def problem(message) -> str | None:
    return message_problem(SETTINGS.context, SETTINGS.spec, message)


GOOD_MESSAGES = [
    FetchBodies((b"d" * 32,) * MAX_LISTED),
    OfferBodies((REF,)),
    VOTE,
    StableCheckpoint(GOOD),
    Progress(0, 0, 0),
    FetchCommits(0),
    Commits((), 0),
    Commits((ENTRY, msgspec.structs.replace(ENTRY, position=4, refs=())), 9),
    SnapshotAvailable(GOOD, 10),
    FetchSnapshot(1, 0, 1),
    FetchSnapshot(1, 0, MAX_PART_BYTES),
    SnapshotChunk(4, 10, 0, b"x" * 10),
    SnapshotChunk(4, 10, 10, b""),
]


@pytest.mark.parametrize("message", GOOD_MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_well_formed_passes_and_survives_the_codec(message):
    assert problem(message) is None
    codec = Codec(AnyReplicaMessage)
    assert codec.decode(codec.encode(message)) == message


def changed(value, **fields):
    return msgspec.structs.replace(value, **fields)


CERTIFICATE = GOOD.certificate
assert CERTIFICATE is not None
BAD_PROOFS = [
    CheckpointCertificate(checkpoint_at(4), None),
    changed(GOOD, checkpoint=checkpoint_at(8)),
    changed(GOOD, checkpoint=checkpoint_at(4, root=b"x" * 32)),
    certified(checkpoint_at(4), signers=(0, 1)),
    changed(GOOD, certificate=changed(CERTIFICATE, bitmap=b"\xff")),
    changed(GOOD, certificate=changed(CERTIFICATE, bitmap=b"\x07\x00")),
    changed(GOOD, certificate=changed(CERTIFICATE, signatures=CERTIFICATE.signatures[:2])),
    changed(GOOD, certificate=changed(CERTIFICATE, signatures=(b"short", *CERTIFICATE.signatures[1:]))),
]
BAD_REFS = [
    changed(REF, digest=b"short"),
    changed(REF, origin=4),
    changed(REF, origin=-1),
    changed(REF, count=0),
    changed(REF, size=0),
    changed(REF, size=SETTINGS.limits.max_batch_bytes + 1),
]
BAD_MESSAGES = [
    FetchBodies(()),
    FetchBodies((b"short",)),
    FetchBodies((b"d" * 32,) * (MAX_LISTED + 1)),
    OfferBodies(()),
    OfferBodies((REF,) * (MAX_LISTED + 1)),
    *(OfferBodies((REF, ref)) for ref in BAD_REFS),
    changed(VOTE, checkpoint=checkpoint_at(0)),
    changed(VOTE, checkpoint=checkpoint_at(5)),
    changed(VOTE, checkpoint=checkpoint_at(-4)),
    changed(VOTE, checkpoint=checkpoint_at(4, height=-1)),
    changed(VOTE, checkpoint=changed(VOTE.checkpoint, log_root=b"")),
    changed(VOTE, checkpoint=changed(VOTE.checkpoint, state_root=b"")),
    changed(VOTE, checkpoint=changed(VOTE.checkpoint, sessions_root=b"")),
    changed(VOTE, signature=b""),
    *(StableCheckpoint(proof) for proof in BAD_PROOFS),
    *(SnapshotAvailable(proof, 10) for proof in BAD_PROOFS),
    Progress(-1, 0, 0),
    Progress(0, -1, 0),
    Progress(0, 0, -1),
    FetchCommits(-1),
    FetchSnapshot(0, 0, 1),
    FetchSnapshot(1, -1, 1),
    FetchSnapshot(1, 0, 0),
    FetchSnapshot(1, 0, MAX_PART_BYTES + 1),
    SnapshotChunk(4, 10, -1, b""),
    SnapshotChunk(4, 10, 11, b""),
    SnapshotChunk(4, 10, 1, b"x" * 10),
    Commits((ENTRY, changed(ENTRY, position=5)), 9),
    Commits((ENTRY, ENTRY), 9),
    Commits((changed(ENTRY, position=0),), 9),
    Commits(tuple(changed(ENTRY, position=position) for position in range(1, MAX_LISTED + 2)), 9),
    Commits((changed(ENTRY, proof=CommitProof(None, b"bad")),), 9),
    *(Commits((changed(ENTRY, refs=(ref,)),), 9) for ref in BAD_REFS),
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_malformed_is_refused_with_a_reason(message):
    assert problem(message)


def claims(message) -> list[Claim]:
    return list(message_claims(2, message))


def test_every_signature_inside_a_message_is_a_claim():
    assert claims(VOTE) == [Claim(2, VOTE.statement(), SIGNATURE)]
    three = [Claim(signer, checkpoint_at(4).statement(), SIGNATURE) for signer in (0, 1, 2)]
    assert claims(StableCheckpoint(GOOD)) == three
    assert claims(SnapshotAvailable(GOOD, 10)) == three
    assert claims(Commits((ENTRY, changed(ENTRY, proof=CommitProof())), 9)) == three
    for message in (FetchBodies(()), OfferBodies(()), Progress(0, 0, 0), FetchCommits(0), SnapshotChunk(1, 0, 0, b"")):
        assert claims(message) == []
