"""What is refused before the engine sees it, and what a decision says of its term."""

from __future__ import annotations

import pytest

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.numbers import LARGEST_NUMBER
from bftkit.core.statement import Statement
from bftkit_raft.check import (
    check,
    claims,
    commit_problem,
    lane_key,
    proof_of_term,
    references,
    term_of_proof,
    window_length,
)
from bftkit_raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Entry,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotNeeded,
    TimeoutNow,
    Vote,
)
from tests.plugins.raft.parts import batch, context_of, entry

CONTEXT = context_of(0, 3, batches_per_entry=2, entries_per_message=3)
A, B, C = (batch(name) for name in "abc")

GOOD = [
    RequestVote(1, 0, 0, pre=True),
    RequestVote(4, 9, 3, transfer=True),
    Vote(0, 1, granted=True, pre=True),
    Vote(0, 1, granted=False),
    Vote(7, 2, granted=False),
    TimeoutNow(1),
    AppendEntries(3, 0, 0, (entry(1), entry(1, A, B), entry(3)), 2, 1),
    AppendEntries(3, 9, 3, (), 9, 4),
    AppendAccepted(1, 5, 0),
    AppendRejected(2, 0, 0, 0, 0),
    SnapshotNeeded(1, 9, 1),
    ReadIndex(1, 1, 1),
    ReadIndexReply(1, 1, 1, 0),
]

BAD = [
    (RequestVote(0, 0, 0), "terms begin"),
    (RequestVote(2, 9, 2), "last entry"),
    (RequestVote(2, 9, 1, pre=True, transfer=True), "nobody asks beforehand"),
    (RequestVote(2, -1, 1), "out of range"),
    (Vote(0, 1, granted=True), "terms begin"),
    (Vote(-1, 1, granted=False), "out of range"),
    (Vote(5, 4, granted=True), "has left"),
    (AppendEntries(1, 0, 0, (entry(1),) * 4, 0, 1), "too many entries"),
    (AppendEntries(2, 1, 2, (entry(1),), 0, 1), "terms fall"),
    (AppendEntries(2, 1, 1, (entry(3),), 0, 1), "above the leader's"),
    (AppendEntries(2, 0, 0, (entry(0),), 0, 1), "terms begin"),
    (AppendEntries(1, 0, 0, (entry(1, A, B, C),), 0, 1), "too many batches"),
    (AppendEntries(1, 0, 0, (entry(1, A, A),), 0, 1), "twice"),
    (AppendEntries(1, 0, 0, (Entry(1, (batch("x", origin=3),)),), 0, 1), "no member"),
    (AppendEntries(1, LARGEST_NUMBER - 1, 0, (entry(1),), 0, 1), "out of range"),
    (AppendEntries(1, 0, 0, (), -1, 1), "out of range"),
    (AppendAccepted(1, -1, 0), "out of range"),
    (AppendAccepted(LARGEST_NUMBER, 1, 0), "out of range"),
    (AppendRejected(1, 1, -1, 1, 1), "out of range"),
    (SnapshotNeeded(1, 1, LARGEST_NUMBER), "out of range"),
    (ReadIndex(1, -1, 1), "out of range"),
    (ReadIndexReply(1, 1, 1, -1), "out of range"),
    (TimeoutNow(0), "terms begin"),
]


@pytest.mark.parametrize("message", GOOD, ids=repr)
def test_what_a_member_may_say(message):
    assert check(CONTEXT, 1, message) is None
    assert check(CONTEXT, 0, message) is None, "to itself too"
    assert list(claims(1, message)) == []
    assert len(lane_key(message)) > 0


@pytest.mark.parametrize(("message", "problem"), BAD, ids=repr)
def test_what_is_refused(message, problem):
    assert problem in (check(CONTEXT, 1, message) or "")


def test_references_are_the_batches_of_all_entries():
    assert list(references(AppendEntries(1, 0, 0, (entry(1, A), entry(1, B, C)), 0, 1))) == [A, B, C]
    assert list(references(TimeoutNow(1))) == []


def test_the_window_is_some_checkpoint_intervals():
    assert window_length(context_of(0, 3, interval=8, window_factor=3)) == 24


# --- Decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", [1, 127, 128, 70_000, LARGEST_NUMBER - 1])
def test_a_decision_says_the_term_of_its_entry(term):
    proof = proof_of_term(term)
    assert term_of_proof(proof) == term
    assert commit_problem(CONTEXT, CommitEntry(3, (A,), proof)) is None


@pytest.mark.parametrize("links", [b"", b"\x00", b"\xcc\x05", b"\xa1x", b"\x05\x05", b"\xff", b"\xcf" + b"\xff" * 8])
def test_a_decision_without_a_term_is_none(links):
    assert term_of_proof(CommitProof(None, links)) == 0
    assert "term" in (commit_problem(CONTEXT, CommitEntry(3, (A,), CommitProof(None, links))) or "")


def test_decisions_are_well_formed():
    votes = QuorumCertificate.of(Statement("commit", 0, 3, b"c" * 32), {0: bytes(64)}, 3)
    assert "no votes" in (commit_problem(CONTEXT, CommitEntry(3, (A,), CommitProof(votes, b"\x01"))) or "")
    assert "begin at 1" in (commit_problem(CONTEXT, CommitEntry(0, (A,), proof_of_term(1))) or "")
    assert "twice" in (commit_problem(CONTEXT, CommitEntry(1, (A, A), proof_of_term(1))) or "")
    assert "range" in (commit_problem(CONTEXT, CommitEntry(LARGEST_NUMBER, (), proof_of_term(1))) or "")
