"""NEW-VIEW (PBFT §4.4): what a view begins with."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.outputs import Accuse, Behind, Broadcast, CancelTimer, Persist, Reject, Send, Want
from bftkit_pbft.messages import (
    CommitVote,
    FetchViewChange,
    NewView,
    NewViewCopy,
    Prepare,
    PrePrepare,
    Reproposal,
    ViewChange,
    ViewChangeCopy,
    ViewEntered,
    proposal_digest,
)
from bftkit_pbft.new_view import starting_point
from tests.plugins.pbft.lone import (
    Lone,
    batch,
    commits,
    index_of,
    new_view,
    prepared_at,
    sent,
    signed,
    view_change,
)
from tests.plugins.pbft.parts import START, checkpoint_at

A, B, C = batch("a"), batch("b"), batch("c")
INTERVAL, WINDOW = 4, 8


def specification(votes: list[ViewChange]) -> tuple[int, dict[int, tuple]]:
    """The words of §4.4, as slowly as they are written."""
    min_s = max(vote.checkpoint.position for vote in votes)
    in_p = [proof for vote in votes for proof in vote.prepared]
    max_s = max([proof.position for proof in in_p if proof.position > min_s] + [min_s])
    proposals: dict[int, tuple] = {}
    for n in range(min_s + 1, max_s + 1):
        proofs = [proof for proof in in_p if proof.position == n]
        if not proofs:
            proposals[n] = ()
        else:
            highest = max(proof.view for proof in proofs)
            proposals[n] = next(proof.refs for proof in proofs if proof.view == highest)
    return min_s, proposals


@st.composite
def view_changes(draw: st.DrawFn) -> list[ViewChange]:
    """VIEW-CHANGEs as correct and faulty members may send them: one proposal for each view and position."""
    votes = []
    for signer in range(draw(st.integers(3, 5))):
        low = draw(st.integers(0, 3)) * INTERVAL
        positions = draw(st.sets(st.integers(low + 1, low + WINDOW), max_size=5))
        proofs = []
        for position in sorted(positions):
            view = draw(st.integers(0, 4))
            refs = () if (view + position) % 5 == 0 else (batch(f"{view}/{position}"),)
            proofs.append(prepared_at(view, position, refs))
        checkpoint = checkpoint_at(low, [0, 1, 2], 4) if low else START
        votes.append(view_change(signer, 9, *proofs, checkpoint=checkpoint))
    return votes


@given(view_changes())
def test_the_starting_point_is_what_the_paper_says(votes):
    checkpoint, proposals = starting_point(votes)
    min_s, expected = specification(votes)
    assert checkpoint.position == min_s
    assert {one.position: one.refs for one in proposals} == expected
    assert [one.position for one in proposals] == sorted(expected)


@given(view_changes(), st.randoms(use_true_random=False))
def test_the_starting_point_does_not_depend_on_the_order_of_the_votes(votes, chance):
    mixed = list(votes)
    chance.shuffle(mixed)
    first, second = starting_point(votes), starting_point(mixed)
    assert (first[0].position, first[1]) == (second[0].position, second[1])


def test_the_proposal_of_the_highest_view_wins():
    votes = [view_change(0, 5, prepared_at(3, 1, [B])), view_change(1, 5, prepared_at(1, 1, [A])), view_change(2, 5)]
    assert starting_point(votes)[1] == (Reproposal(1, (B,)),)
    assert starting_point(votes[::-1])[1] == (Reproposal(1, (B,)),)


def test_min_s_is_the_highest_checkpoint_of_all_of_v():
    high = checkpoint_at(8, [0, 1, 2], 4)
    votes = [view_change(0, 1, prepared_at(0, 3, [A])), view_change(1, 1), view_change(2, 1, checkpoint=high)]
    checkpoint, proposals = starting_point(votes)
    assert checkpoint == high
    assert proposals == ()


def test_gaps_become_null_proposals():
    votes = [view_change(0, 1, prepared_at(0, 3, [A])), view_change(1, 1), view_change(2, 1)]
    assert starting_point(votes)[1] == (Reproposal(1, ()), Reproposal(2, ()), Reproposal(3, (A,)))


# --- The new primary ------------------------------------------------------------------------------------------------


def test_the_new_primary_begins_with_a_quorum_of_view_changes():
    """ "When the primary p of view v + 1 receives 2f valid view-change messages ... from other replicas" (§4.4)."""
    primary = Lone(own=1, in_flight=1)
    primary.have(A)
    assert not sent(primary.hear(2, view_change(2, 1, prepared_at(0, 1, [B]))), NewView)
    out = primary.hear(3, view_change(3, 1))  # f + 1 others: it joins, and has a quorum with its own
    (message,) = sent(out, NewView)
    assert message.view == 1
    assert [name.signer for name in message.votes] == [1, 2, 3]
    assert message.proposals == (Reproposal(1, (B,)),)
    assert index_of(out, Persist, ViewEntered) < index_of(out, Broadcast, NewView)
    assert any(isinstance(one, Want) and one.refs == (B,) for one in out), "it fetches what it lacks"
    assert not sent(out, Prepare)
    assert sent(primary.have(B), Prepare)


def test_the_new_primary_proposes_behind_what_it_began_with():
    primary = Lone(own=1)
    primary.have(A, B)
    primary.hear(2, view_change(2, 1, prepared_at(0, 2, [B])))
    out = primary.hear(3, view_change(3, 1))
    assert [(one.position, one.refs) for one in sent(out, PrePrepare)] == [(3, (A,))]


def test_the_new_primary_counts_for_itself_only_once_its_own_view_change_is_durable():
    primary = Lone(own=1, echo=False)
    primary.hear(2, view_change(2, 1))
    out = primary.hear(3, view_change(3, 1))
    (own,) = sent(out, ViewChange)
    assert not sent(out, NewView)
    assert sent(primary.hear(1, own), NewView)


# --- The others -----------------------------------------------------------------------------------------------------


def told(backup: Lone, view: int, votes: dict[int, ViewChange], **fields: Any) -> list:
    """Let a backup hear the votes and the NEW-VIEW that is made of them."""
    out = []
    for signer, vote in votes.items():
        if signer != backup.own:
            out += backup.hear(signer, vote)
    return out + backup.hear(view % 4, new_view(view, votes, **fields))


def test_a_backup_enters_a_view_and_prepares_what_it_begins_with():
    backup = Lone(own=3)
    backup.have(A)
    votes = {0: view_change(0, 1, prepared_at(0, 1, [A])), 1: view_change(1, 1), 2: view_change(2, 1)}
    out = told(backup, 1, votes)
    assert sent(out, Prepare) == [Prepare(1, 1, proposal_digest((A,)))]
    assert index_of(out, Persist, ViewEntered) < index_of(out, Broadcast, Prepare)
    assert backup.engine.status().mode == "normal"
    assert backup.engine.status().view == 1


def test_a_backup_computes_o_again_and_does_not_trust_the_primary():
    """ "verifying the correctness of O by performing a computation similar to the one used by the primary" (§4.4)."""
    backup = Lone(own=3)
    backup.have(A, B)
    votes = {0: view_change(0, 1, prepared_at(0, 1, [A])), 1: view_change(1, 1), 2: view_change(2, 1)}
    for proposals in [(), (Reproposal(1, (B,)),), (Reproposal(1, (A,)), Reproposal(2, (B,))), (Reproposal(1, ()),)]:
        backup = Lone(own=3)
        backup.have(A, B)
        out = told(backup, 1, votes, proposals=proposals)
        assert [one.sender for one in out if isinstance(one, Reject)] == [1]
        assert not sent(out, Prepare)
        assert backup.state.view == 0 or not backup.state.active


def test_a_view_change_that_is_missing_is_fetched_by_name():
    backup = Lone(own=3)
    votes = {index: view_change(index, 1) for index in (0, 1, 2)}
    out = backup.hear(1, new_view(1, votes))
    asked = {(one.signer, one.digest) for one in sent(out, FetchViewChange)}
    assert asked == {(index, vote.statement().content) for index, vote in votes.items()}
    assert backup.state.view == 0
    for index, vote in votes.items():
        backup.hear(1, ViewChangeCopy(index, vote))
    assert backup.engine.status().view == 1
    assert backup.engine.status().mode == "normal"


def test_the_others_hand_on_view_changes_that_they_began_with():
    backup = Lone(own=3)
    votes = {index: view_change(index, 1) for index in (0, 1, 2)}
    told(backup, 1, votes)
    out = backup.hear(2, FetchViewChange(1, 0, votes[0].statement().content))
    assert [(one.to, one.message) for one in out if isinstance(one, Send)] == [(2, ViewChangeCopy(0, votes[0]))]
    assert not backup.hear(2, FetchViewChange(1, 0, bytes(32)))


def test_the_same_new_view_again_changes_nothing():
    """At n = 4, f + 1 equals 2f: a NEW-VIEW that comes twice must not begin the view twice."""
    backup = Lone(own=3)
    backup.have(A)
    votes = {0: view_change(0, 1, prepared_at(0, 1, [A])), 1: view_change(1, 1), 2: view_change(2, 1)}
    told(backup, 1, votes)
    before = len(backup.records)
    for sender, message in [(1, new_view(1, votes)), (2, NewViewCopy(1, new_view(1, votes)))]:
        assert not sent(backup.hear(sender, message), Prepare)
    assert len(backup.records) == before


def test_two_new_views_for_one_view_are_evidence():
    backup = Lone(own=3)
    votes = {index: view_change(index, 1) for index in (0, 1, 2)}
    told(backup, 1, votes)
    others = {0: view_change(0, 1), 1: view_change(1, 1), 3: view_change(3, 1)}
    out = backup.hear(1, new_view(1, others))
    assert [one.evidence.signer for one in out if isinstance(one, Accuse)] == [1]


def test_whoever_is_behind_min_s_asks_for_the_state_and_takes_part():
    """ "If replica i does not have checkpoint min-s ... it obtains" it; the view goes on meanwhile (§4.4)."""
    backup = Lone(own=3, interval=4)
    backup.have(A)
    high = checkpoint_at(8, [0, 1, 2], 4)
    votes = {
        0: view_change(0, 1, prepared_at(0, 9, [A]), checkpoint=high),
        1: view_change(1, 1),
        2: view_change(2, 1),
    }
    out = told(backup, 1, votes)
    (behind,) = [one for one in out if isinstance(one, Behind)]
    assert (behind.position, behind.checkpoint, behind.sources) == (8, high, (0, 1, 2))
    assert [one.position for one in sent(out, Prepare)] == [9]
    assert backup.state.low == 8
    assert not commits(out)


def test_a_committed_position_is_voted_for_again_and_committed_once():
    backup = Lone(own=3)
    backup.order(1, A)
    votes = {0: view_change(0, 1, prepared_at(0, 1, [A])), 1: view_change(1, 1), 2: view_change(2, 1)}
    out = told(backup, 1, votes)
    assert [one.position for one in sent(out, Prepare)] == [1]
    digest = proposal_digest((A,))
    for index in (0, 1, 2):
        out += backup.hear(index, Prepare(1, 1, digest))
    for index in (0, 1, 2):
        out += backup.hear(index, CommitVote(1, 1, digest))
    assert not commits(out)


def test_batches_whose_proposal_did_not_survive_wait_again():
    backup = Lone(own=2)
    backup.have(A, B)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    assert A.digest not in backup.state.pending
    votes = {index: view_change(index, 1) for index in (0, 1, 3)}
    told(backup, 1, votes)
    assert {ref.digest for ref in backup.state.pending} == {A.digest, B.digest}


def test_messages_that_came_before_the_new_view_count():
    backup = Lone(own=3)
    backup.have(A)
    digest = proposal_digest((A,))
    votes = {index: view_change(index, 1) for index in (0, 1, 2)}
    for signer, vote in votes.items():
        backup.hear(signer, vote)
    backup.hear(1, PrePrepare(1, 1, (A,)))
    for index in (0, 1, 2):
        backup.hear(index, Prepare(1, 1, digest))
        backup.hear(index, CommitVote(1, 1, digest))
    assert commits(backup.hear(1, new_view(1, votes))) == [1]


def test_the_timer_of_the_view_change_stops_with_the_new_view():
    backup = Lone(own=3)
    out = told(backup, 1, {index: view_change(index, 1) for index in (0, 1, 2)})
    assert CancelTimer("view-change") in out


def test_a_candidate_of_a_liar_does_not_displace_that_of_another_primary():
    backup = Lone(own=3)
    votes = {index: view_change(index, 1) for index in (0, 1, 2)}
    backup.hear(1, new_view(1, votes))
    unknown = {index: view_change(index, 102, prepared_at(7, 1, [C])) for index in (0, 1, 2)}
    backup.hear(2, new_view(102, unknown))
    for index, vote in votes.items():
        backup.hear(1, ViewChangeCopy(index, vote))
    assert backup.engine.status().view == 1


def test_a_signed_copy_of_the_own_new_view_replaces_the_unsigned_one():
    primary = Lone(own=1)
    primary.hear(2, view_change(2, 1))
    primary.hear(3, view_change(3, 1))
    assert primary.state.new_view is not None
    assert primary.state.new_view.signature == signed(1, primary.state.new_view).signature


def test_a_liar_that_signs_two_view_changes_keeps_nobody_out_of_the_view():
    backup = Lone(own=3)
    told_here, told_there = view_change(0, 1), view_change(0, 1, prepared_at(0, 1, [A]))
    votes = {0: told_there, 1: view_change(1, 1), 2: view_change(2, 1)}
    backup.hear(0, told_here)
    for index in (1, 2):
        backup.hear(index, votes[index])
    out = backup.hear(1, new_view(1, votes))
    (asked,) = [one for one in out if isinstance(one, Send) and isinstance(one.message, FetchViewChange)]
    assert asked.message.signer == 0
    other = view_change(0, 1, prepared_at(0, 2, [B]))
    assert any(isinstance(one, Accuse) for one in backup.hear(2, ViewChangeCopy(0, other)))
    assert not backup.state.active, "a third version is not the one that the new view names"
    assert backup.state.named == {}
    backup.hear(1, ViewChangeCopy(0, told_there))
    assert backup.state.active
    assert backup.state.slots[1].refs == (A,)
    assert backup.state.named == {}
