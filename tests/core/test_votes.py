"""Counting votes: by content, one for each signer, in any order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.statement import Statement
from bftkit.core.votes import VoteTally

A, B = bytes(32), b"\x01" * 32


def statement(content: bytes) -> Statement:
    return Statement("vote", 1, 1, content)


def tag(signer: int, content: bytes) -> bytes:
    return bytes([signer]) + content + bytes(31)


votes = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([A, B])), max_size=20)


@given(votes)
def test_the_first_vote_of_each_signer_counts(cast):
    tally = VoteTally(7)
    first: dict[int, bytes] = {}
    for signer, content in cast:
        evidence = tally.add(signer, statement(content), tag(signer, content))
        known = first.setdefault(signer, content)
        assert (evidence is not None) is (known != content)
        if evidence is not None:
            assert evidence.proves_equivocation
            assert [claim.signature for claim in evidence.claims()] == [tag(signer, known), tag(signer, content)]
    for content in (A, B):
        supporters = [signer for signer in sorted(first) if first[signer] == content]
        assert tally.count(content) == len(supporters)
        assert tally.missing(content) == tuple(index for index in range(7) if index not in supporters)
    assert [tally.has(signer) for signer in range(7)] == [signer in first for signer in range(7)]


@given(st.permutations([(signer, A if signer != 3 else B) for signer in range(7)]))
def test_a_tally_does_not_depend_on_the_order_of_arrival(cast):
    tally = VoteTally(7)
    for signer, content in cast:
        tally.add(signer, statement(content), tag(signer, content))
    certificate = tally.certificate(A, 5)
    assert certificate is not None
    assert certificate.signers == (0, 1, 2, 4, 5)
    assert certificate.signatures == tuple(tag(signer, A) for signer in (0, 1, 2, 4, 5))
    assert tally.certificate(A, 7) is None


def test_the_same_vote_again_is_no_evidence():
    tally = VoteTally(4)
    assert tally.add(1, statement(A), b"one") is None
    assert tally.add(1, statement(A), b"another signature") is None
    assert tally.count(A) == 1


def test_votes_for_different_contents_do_not_add_up():
    tally = VoteTally(4)
    for signer, content in enumerate([A, A, B, B]):
        tally.add(signer, statement(content), tag(signer, content))
    assert tally.certificate(A, 3) is None
    assert tally.certificate(B, 3) is None


@pytest.mark.parametrize("other", [Statement("vote", 2, 1, B), Statement("vote", 1, 2, B), Statement("x", 1, 1, B)])
def test_statements_for_different_slots_are_no_equivocation(other):
    tally = VoteTally(4)
    tally.add(1, statement(A), b"")
    evidence = tally.add(1, other, b"")
    assert evidence is not None
    assert not evidence.proves_equivocation
