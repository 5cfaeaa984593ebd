"""Messages that a correct member would not send are turned away before the engine sees them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import canonical
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.statement import Statement
from bftkit_pbft.check import check, claims, commit_problem, lane_key, references
from bftkit_pbft.engine import SPEC
from bftkit_pbft.messages import (
    CommitVote,
    FetchNewView,
    FetchProposal,
    FetchViewChange,
    NewViewCopy,
    Prepare,
    PreparedProof,
    PrePrepare,
    PrePrepareCopy,
    Reproposal,
    Suspect,
    ViewChange,
    ViewChangeCopy,
    ViewChangeName,
    proposal_digest,
)
from tests.plugins.pbft.lone import new_view, prepared_at, signed, view_change
from tests.plugins.pbft.parts import START, batch, checkpoint_at, context_of, signature_of

CONTEXT = context_of(0, 4, batches_per_proposal=2)
A, B, C = batch("a"), batch("b"), batch("c")
DA = proposal_digest((A,))
VOTES = {index: view_change(index, 1, prepared_at(0, 1, [A])) for index in (0, 1, 2)}
NEW_VIEW = new_view(1, VOTES)
PROOF = prepared_at(0, 1, [A])

UNPROVED = CheckpointCertificate(checkpoint_at(4, [0, 1, 2], 4).checkpoint, None)


def with_certificate(**fields) -> PreparedProof:
    return msgspec.structs.replace(PROOF, certificate=msgspec.structs.replace(PROOF.certificate, **fields))


def stated(**fields) -> PreparedProof:
    return with_certificate(statement=msgspec.structs.replace(PROOF.certificate.statement, **fields))


GOOD = [
    (0, PrePrepare(0, 1, (A, B))),
    (3, PrePrepare(7, 1, (A,))),
    (2, Prepare(0, 1, DA)),
    (2, CommitVote(0, 1, DA)),
    (2, Suspect(0)),
    (2, view_change(2, 3, prepared_at(0, 1, [A]), prepared_at(2, 3, []))),
    (2, view_change(2, 3, prepared_at(0, 9, [A]), checkpoint=checkpoint_at(8, [0, 1, 2], 4))),
    (1, NEW_VIEW),
    (2, FetchViewChange(1, 0, DA)),
    (2, ViewChangeCopy(1, VOTES[1])),
    (2, FetchNewView(1)),
    (2, NewViewCopy(1, NEW_VIEW)),
    (2, FetchProposal(0, 1)),
    (2, PrePrepareCopy(0, signed(0, PrePrepare(0, 1, (A,))))),
]

BAD = [
    (1, PrePrepare(0, 1, (A,)), "not the primary"),
    (0, PrePrepare(0, 1, ()), "names no batch"),
    (0, PrePrepare(0, 0, (A,)), "positions begin at 1"),
    (0, PrePrepare(-4, 1, (A,)), "out of range"),
    (0, PrePrepare(0, 2**60, (A,)), "out of range"),
    (0, PrePrepare(0, 1, (A, A)), "twice"),
    (0, PrePrepare(0, 1, (A, B, C)), "too many"),
    (0, PrePrepare(0, 1, (batch("x", origin=4),)), "no member"),
    (2, Prepare(0, 1, b"short"), "wrong length"),
    (2, Prepare(0, -1, DA), "positions begin at 1"),
    (2, CommitVote(-1, 1, DA), "out of range"),
    (2, Suspect(-1), "out of range"),
    (2, ViewChange(0, START, ()), "no view change"),
    (2, view_change(2, 1, checkpoint=UNPROVED), "another"),
    (2, view_change(2, 1, checkpoint=checkpoint_at(4, [0, 1], 4)), "2 signatures where 3"),
    (2, view_change(2, 1, prepared_at(1, 1, [A])), "earlier view"),
    (2, view_change(2, 1, prepared_at(0, 9, [A])), "out of the window"),
    (2, view_change(2, 1, prepared_at(0, 2, [A]), prepared_at(0, 1, [A])), "out of order"),
    (2, view_change(2, 1, PROOF, PROOF), "out of order"),
    (2, view_change(2, 1, prepared_at(0, 1, [A], quorum=2)), "2 signatures where 3"),
    (2, view_change(2, 1, stated(kind="commit")), "other votes"),
    (2, view_change(2, 1, stated(content=bytes(32))), "another proposal"),
    (2, view_change(2, 1, msgspec.structs.replace(PROOF, refs=(B,))), "another proposal"),
    (2, view_change(2, 1, with_certificate(bitmap=b"\x17")), "no|number|member"),
    (2, view_change(2, 1, with_certificate(bitmap=b"\x07\x00")), "wrong length"),
    (2, NEW_VIEW, "not its primary"),
    (1, msgspec.structs.replace(NEW_VIEW, votes=NEW_VIEW.votes[:2]), "too few"),
    (1, msgspec.structs.replace(NEW_VIEW, votes=NEW_VIEW.votes[::-1]), "distinct"),
    (1, msgspec.structs.replace(NEW_VIEW, votes=(*NEW_VIEW.votes, NEW_VIEW.votes[2])), "distinct"),
    (1, msgspec.structs.replace(NEW_VIEW, votes=(*NEW_VIEW.votes, ViewChangeName(4, DA))), "distinct"),
    (1, msgspec.structs.replace(NEW_VIEW, votes=(*NEW_VIEW.votes, ViewChangeName(3, b""))), "wrong length"),
    (1, msgspec.structs.replace(NEW_VIEW, proposals=(Reproposal(1, ()), Reproposal(3, ()))), "gap"),
    (1, msgspec.structs.replace(NEW_VIEW, proposals=(Reproposal(0, ()),)), "positions begin"),
    (1, msgspec.structs.replace(NEW_VIEW, proposals=tuple(Reproposal(p, ()) for p in range(1, 10))), "window holds"),
    (2, FetchViewChange(1, 4, DA), "no member"),
    (2, FetchViewChange(1, 0, b""), "wrong length"),
    (2, ViewChangeCopy(9, VOTES[1]), "no member"),
    (2, NewViewCopy(2, NEW_VIEW), "not its primary"),
    (2, FetchProposal(0, 0), "positions begin"),
    (2, PrePrepareCopy(2, PrePrepare(0, 1, (A,))), "not the primary"),
]  # fmt: skip


@pytest.mark.parametrize(("sender", "message"), GOOD, ids=lambda item: type(item).__name__)
def test_what_correct_members_send_is_well_formed(sender, message):
    assert check(CONTEXT, sender, message) is None
    decoded = msgspec.msgpack.decode(canonical(message), type=SPEC.messages)
    assert decoded == message
    assert isinstance(lane_key(message), bytes)


@pytest.mark.parametrize(("sender", "message", "words"), BAD)
def test_what_is_not_well_formed_is_told_in_words(sender, message, words):
    problem = check(CONTEXT, sender, message)
    assert problem is not None
    assert any(word in problem for word in words.split("|")), problem


def test_each_signature_inside_a_message_is_claimed():
    message = view_change(2, 9, prepared_at(0, 9, [A]), checkpoint=checkpoint_at(8, [0, 1, 2], 4))
    found = list(claims(2, message))
    assert [claim.signer for claim in found] == [2, 0, 1, 2, 0, 1, 2]
    assert {claim.statement.kind for claim in found} == {"view-change", "checkpoint", "prepare"}
    assert all(claim.signature == signature_of(claim.signer, claim.statement) for claim in found)
    assert list(claims(0, ViewChangeCopy(2, message))) == found
    assert [claim.signer for claim in claims(3, NewViewCopy(1, NEW_VIEW))] == [1]
    assert not list(claims(2, Suspect(0)))


def test_every_field_of_a_signed_message_that_is_used_is_signed():
    """Changing any of them changes the statement; changing certificates' signatures does not."""
    message = view_change(2, 9, prepared_at(0, 9, [A]), checkpoint=checkpoint_at(8, [0, 1, 2], 4))
    others = [
        msgspec.structs.replace(message, view=8),
        msgspec.structs.replace(message, prepared=()),
        msgspec.structs.replace(message, prepared=(prepared_at(1, 9, [A]),)),
        msgspec.structs.replace(message, prepared=(prepared_at(0, 9, [B]),)),
        msgspec.structs.replace(message, checkpoint=checkpoint_at(8, [0, 1, 2], 4, b"\x01" * 32)),
    ]
    assert len({one.statement() for one in [message, *others]}) == 6
    same = msgspec.structs.replace(message, checkpoint=checkpoint_at(8, [1, 2, 3], 4))
    assert same.statement() == message.statement()
    other = msgspec.structs.replace(NEW_VIEW, proposals=())
    assert other.statement() != NEW_VIEW.statement()
    assert PrePrepare(0, 1, (A,)).statement() != PrePrepare(0, 1, (batch("a", control=True),)).statement()


def test_the_batches_that_a_message_names_are_listed():
    assert list(references(PrePrepare(0, 1, (A, B)))) == [A, B]
    assert list(references(NewViewCopy(1, NEW_VIEW))) == [A]
    assert list(references(ViewChangeCopy(1, VOTES[1]))) == [A]
    assert list(references(Prepare(0, 1, DA))) == []


def test_messages_about_one_position_share_a_lane():
    keys = {lane_key(message) for message in (PrePrepare(0, 7, (A,)), Prepare(1, 7, DA), CommitVote(2, 7, DA))}
    assert len(keys) == 1
    assert lane_key(Prepare(0, 8, DA)) not in keys


# --- Proofs of decisions --------------------------------------------------------------------------------------------


def decided(refs=(A,), position: int = 5, signers=(0, 1, 2), **fields) -> CommitEntry:
    statement = msgspec.structs.replace(Statement("commit", 3, 5, proposal_digest(tuple(refs))), **fields)
    votes = {signer: signature_of(signer, statement) for signer in signers}
    return CommitEntry(position, tuple(refs), CommitProof(QuorumCertificate.of(statement, votes, 4)))


def test_a_quorum_of_commits_proves_a_decision():
    assert commit_problem(CONTEXT, decided()) is None
    assert commit_problem(CONTEXT, decided(refs=())) is None


@pytest.mark.parametrize(
    "entry",
    [
        decided(signers=(0, 1)),
        decided(kind="prepare"),
        decided(position=6),
        decided(content=bytes(32)),
        msgspec.structs.replace(decided(), refs=(B,)),
        msgspec.structs.replace(decided(), proof=CommitProof(None)),
        msgspec.structs.replace(decided(), proof=msgspec.structs.replace(decided().proof, links=b"x")),
        decided(view=-1),
    ],
)
def test_anything_else_does_not(entry):
    assert commit_problem(CONTEXT, entry) is not None


@given(st.integers(4, 40), st.data())
def test_two_certificates_for_one_slot_share_a_correct_signer(members, data):
    quorum = context_of(0, members).membership.quorum
    everybody = list(range(members))
    first = set(data.draw(st.permutations(everybody))[: quorum.quorum])
    second = set(data.draw(st.permutations(everybody))[: quorum.quorum])
    assert len(first & second) > quorum.faults
