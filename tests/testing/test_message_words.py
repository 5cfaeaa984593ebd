"""What traces call a message."""

import msgspec
import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.statement import SignedMessage, Statement
from bftkit.testing.message_words import batch_words, message_words

A, B = BatchRef(b"a" * 32, 0, 1, 1), BatchRef(b"b" * 32, 1, 1, 1)
NAMES = {A.digest: "first"}
CERTIFICATE = QuorumCertificate(Statement("vote", 3, 7, bytes(32)), b"\x0d", (bytes(64),) * 3)


class Part(msgspec.Struct, frozen=True, array_like=True):
    position: int
    refs: tuple[BatchRef, ...]
    proof: QuorumCertificate | None = None


class Told(SignedMessage, tag="told", frozen=True):
    view: int
    digest: bytes
    signer: int
    count: int
    early: bool
    late: bool
    parts: tuple[Part, ...]
    wanted: tuple[BatchRef, ...]
    checkpoint: CheckpointCertificate
    one: BatchRef
    signature: bytes = b""


class Copy(msgspec.Struct, tag="copy", frozen=True):
    of: Told


TOLD = Told(
    4,
    b"d" * 32,
    2,
    9,
    True,
    False,
    (Part(1, ()), Part(2, (A,), CERTIFICATE)),
    (A, B),
    CheckpointCertificate(EMPTY_CHECKPOINT, None),
    A,
    bytes(64),
)
WORDS = "Told v4 n2 count=9 early parts={p1 [], p2 [first] vote v3 p7 by n0 n2 n3} [first 626262] checkpoint=0 [first]"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (TOLD, WORDS),
        (Copy(TOLD), f"Copy ({WORDS})"),
        (Part(3, (), CERTIFICATE), "p3 [] vote v3 p7 by n0 n2 n3"),
        (msgspec.structs.replace(TOLD, parts=()), WORDS.replace("{p1 [], p2 [first] vote v3 p7 by n0 n2 n3}", "{}")),
        (Part(3, (B,)), "p3 [626262]"),
        (5, "5"),
    ],
    ids=["a message", "a copy", "a proof", "nothing in it", "a part", "a number"],
)
def test_kinds_numbers_and_names_are_said_and_bytes_are_not(value, words):
    assert message_words(value, NAMES) == words


def test_batches_have_names_or_the_begin_of_their_digests():
    assert batch_words((A, B), NAMES) == "[first 626262]"
    assert batch_words((), NAMES) == "[]"
