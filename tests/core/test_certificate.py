"""Quorum certificates: who signed, in which order, and what is wrong with a form."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.certificate import QuorumCertificate, certificate_problem
from bftkit.core.ids import canonical
from bftkit.core.membership import Member, Membership
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement

STATEMENT = Statement("vote", 3, 7, bytes(32))


def group(members: int) -> Membership:
    named = (Member(f"n{index:03}", index.to_bytes(32, "big")) for index in range(members))
    return Membership(tuple(named), FaultModel.BYZANTINE)


def tag(signer: int) -> bytes:
    return signer.to_bytes(64, "big")


def certificate(signers, members: int = 4) -> QuorumCertificate:
    return QuorumCertificate.of(STATEMENT, {signer: tag(signer) for signer in signers}, members)


@st.composite
def signed_groups(draw: st.DrawFn):
    members = draw(st.integers(1, 70))
    return members, draw(st.lists(st.integers(0, members - 1), unique=True))


@given(signed_groups())
def test_signers_come_back_with_their_own_signatures(case):
    members, signers = case
    made = certificate(signers, members)
    assert made.signers == tuple(sorted(signers))
    assert [(claim.signer, claim.signature) for claim in made.claims()] == [(one, tag(one)) for one in sorted(signers)]
    assert msgspec.msgpack.decode(canonical(made), type=QuorumCertificate) == made
    assert certificate_problem(made, group(members), len(signers)) is None
    assert certificate_problem(made, group(members), len(signers) + 1) is not None


@given(st.permutations(range(7)))
def test_a_certificate_does_not_depend_on_the_order_of_the_votes(order):
    assert certificate(order, 7) == certificate(range(7), 7)


GOOD = certificate((0, 1, 2))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bitmap": b""}, "wrong length"),
        ({"bitmap": b"\x07\x00"}, "wrong length"),
        ({"bitmap": b"\x17"}, "not a member"),
        ({"bitmap": b"\x0f"}, "differ in number"),
        ({"signatures": GOOD.signatures[:2]}, "differ in number"),
        ({"signatures": (*GOOD.signatures, tag(3))}, "differ in number"),
        ({"bitmap": b"\x03", "signatures": GOOD.signatures[:2]}, "2 signatures where 3"),
        ({"signatures": (*GOOD.signatures[:2], b"short")}, "signature has the wrong length"),
    ],
)
def test_a_wrong_form_is_told_in_words(fields, words):
    problem = certificate_problem(msgspec.structs.replace(GOOD, **fields), group(4), 3)
    assert problem is not None
    assert words in problem
