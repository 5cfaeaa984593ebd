"""PBFT §4.2, rule by rule."""

import itertools

import pytest

from bftkit.core.inputs import Available, Received, Synced
from bftkit.core.outputs import Accuse, Behind, Broadcast, Commit, Persist, Reject, Want
from bftkit_pbft.messages import (
    Accepted,
    CommitVote,
    FetchNewView,
    Prepare,
    Prepared,
    PrePrepare,
    PrePrepareCopy,
    proposal_digest,
)
from tests.plugins.pbft.lone import Lone, batch, commits, index_of, sent, signed

A, B = batch("a"), batch("b")
DA, DB = proposal_digest((A,)), proposal_digest((B,))


def test_a_primary_assigns_a_position_and_multicasts_a_pre_prepare():
    """ "the primary assigns a sequence number n to the request and multicasts a pre-prepare message" (§4.2)."""
    primary = Lone(own=0)
    out = primary.have(A)
    assert [(one.position, one.refs) for one in sent(out, PrePrepare)] == [(1, (A,))]


def test_a_primary_writes_its_proposal_down_before_anybody_sees_it():
    out = Lone(own=0).have(A)
    assert index_of(out, Persist, Accepted) < index_of(out, Broadcast, PrePrepare) < index_of(out, Broadcast, Prepare)


def test_a_primary_keeps_a_bounded_number_of_proposals_outstanding():
    primary = Lone(own=0, in_flight=2, batches_per_proposal=3)
    out = primary.have(*(batch(f"b{i}", i % 4) for i in range(20)))
    assert [len(one.refs) for one in sent(out, PrePrepare)] == [3, 3]
    out = primary.order(1, *sent(out, PrePrepare)[0].refs)
    assert [one.position for one in sent(out, PrePrepare)] == [3]


def test_a_primary_takes_batches_from_each_origin_in_turn():
    primary = Lone(own=0, in_flight=1, batches_per_proposal=2)
    first = sent(primary.have(batch("first")), PrePrepare)[0]
    primary.have(*(batch(f"greedy {i}", 0) for i in range(9)), batch("modest", 3))
    out = primary.order(1, *first.refs)
    assert {ref.origin for ref in sent(out, PrePrepare)[0].refs} == {0, 3}


def test_a_primary_stays_below_the_high_water_mark():
    """ "h < n <= H" (§4.2): nothing above it is proposed."""
    primary = Lone(own=0, interval=2, window_factor=2, in_flight=16, batches_per_proposal=1)
    out = primary.have(*(batch(f"b{i}") for i in range(9)))
    assert [one.position for one in sent(out, PrePrepare)] == [1, 2, 3, 4]


def test_a_backup_accepts_a_pre_prepare_and_multicasts_a_prepare():
    """ "it enters the prepare phase by multicasting a PREPARE message to all other replicas" (§4.2)."""
    backup = Lone()
    backup.have(A)
    out = backup.hear(0, PrePrepare(0, 1, (A,)))
    assert sent(out, Prepare) == [Prepare(0, 1, DA)]
    assert index_of(out, Persist, Accepted) < index_of(out, Broadcast, Prepare)
    assert backup.records == [Accepted(0, 1, (A,))]


def test_a_backup_accepts_one_pre_prepare_for_a_view_and_position():
    """ "it has not accepted a pre-prepare message for view v and sequence number n with a different digest" (§4.2)."""
    backup = Lone()
    backup.have(A, B)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    out = backup.hear(0, PrePrepare(0, 1, (B,)))
    assert not sent(out, Prepare)
    (accusation,) = [one for one in out if isinstance(one, Accuse)]
    assert accusation.evidence.proves_equivocation
    assert not backup.hear(0, PrePrepare(0, 1, (B,))), "it is reported once"


def test_a_backup_does_not_vote_for_what_it_does_not_hold():
    backup = Lone()
    backup.have(A)
    out = backup.hear(0, PrePrepare(0, 1, (A, B)))
    assert not sent(out, Prepare)
    assert [(one.refs, one.sources[0]) for one in out if isinstance(one, Want)] == [((B,), 0)]
    assert sent(backup.have(B), Prepare)


def test_a_reference_that_lies_about_its_body_is_never_voted_for():
    backup = Lone()
    backup.have(A)
    lie = batch("a", control=True)
    assert not sent(backup.hear(0, PrePrepare(0, 1, (lie,))), Prepare)
    assert not sent(backup.have(A), Prepare)


def test_a_pre_prepare_is_not_a_vote():
    """Two PREPAREs of others and the own one make a quorum of 3; the pre-prepare adds nothing."""
    backup = Lone()
    backup.have(A)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    assert not sent(backup.hear(2, Prepare(0, 1, DA)), CommitVote)
    assert sent(backup.hear(3, Prepare(0, 1, DA)), CommitVote)


def test_the_prepared_certificate_is_durable_before_the_commit_leaves():
    backup = Lone()
    backup.have(A)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    backup.hear(0, Prepare(0, 1, DA))
    out = backup.hear(2, Prepare(0, 1, DA))
    assert index_of(out, Persist, Prepared) < index_of(out, Broadcast, CommitVote)


@pytest.mark.parametrize("different", [Prepare(0, 1, DB), Prepare(0, 2, DA)])
def test_prepares_count_when_they_match(different):
    """prepared(m, v, n, i) needs prepares "that match the pre-prepare": same view, position and digest (§4.2)."""
    backup = Lone()
    backup.have(A)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    backup.hear(2, Prepare(0, 1, DA))
    assert not sent(backup.hear(3, different), CommitVote)


def test_a_member_counts_once():
    backup = Lone()
    backup.have(A)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    for _ in range(5):
        assert not sent(backup.hear(2, Prepare(0, 1, DA)), CommitVote)


def test_two_prepares_for_one_slot_are_evidence():
    backup = Lone()
    backup.hear(2, Prepare(0, 1, DA))
    out = backup.hear(2, Prepare(0, 1, DB))
    assert [one.evidence.signer for one in out if isinstance(one, Accuse)] == [2]


def test_positions_are_committed_in_order():
    """ "executes the operation ... after all requests with lower sequence numbers" (§4.2)."""
    backup = Lone()
    assert commits(backup.order(2, B)) == []
    assert commits(backup.order(1, A)) == [1, 2]


def test_a_commit_carries_a_quorum_of_commit_votes():
    out = Lone().order(1, A)
    (commit,) = [one for one in out if isinstance(one, Commit)]
    assert commit.proof.certificate is not None
    assert commit.proof.certificate.statement == CommitVote(0, 1, DA).statement()
    assert len(commit.proof.certificate.signers) == 3


def test_every_order_of_the_messages_of_one_position_commits_it():
    """All 5,040 orders of a pre-prepare, three PREPAREs and three COMMITs of others."""
    votes = [signed(index, Prepare(0, 1, DA)) for index in (0, 2, 3)]
    votes += [signed(index, CommitVote(0, 1, DA)) for index in (0, 2, 3)]
    messages = [(0, signed(0, PrePrepare(0, 1, (A,))))]
    messages += [(index, vote) for index, vote in zip((0, 2, 3, 0, 2, 3), votes, strict=True)]
    for order in itertools.permutations(messages):
        backup = Lone(echo=False)
        out = backup.step(Available(0, (A,)))
        for sender, message in order:
            out += backup.step(Received(0, sender, message))
        assert commits(out) == [1]
        assert len(sent(out, Prepare)) == 1


def test_messages_of_a_later_view_are_kept_and_asked_about():
    backup = Lone(own=2)
    backup.have(A)
    out = backup.hear(1, PrePrepare(1, 1, (A,)))
    assert [one.view for one in sent(out, FetchNewView)] == [1]
    assert not sent(backup.hear(1, Prepare(1, 1, DA)), FetchNewView), "once for each interval"
    assert not backup.state.slots


def test_what_is_kept_of_later_views_is_bounded():
    backup = Lone(own=2, interval=4)
    for number in range(1_000):
        backup.hear(3, Prepare(7 + number, 1, DA))
    assert len(backup.state.early[3]) < 50


def test_votes_beyond_the_window_are_not_kept_but_noticed():
    """f + 1 members that vote out of reach include a correct one: this replica is behind."""
    backup = Lone(interval=4)
    far = backup.state.window_end + 1
    assert not backup.hear(2, CommitVote(0, far, DA))
    out = backup.hear(3, CommitVote(0, far + 3, DA))
    (behind,) = [one for one in out if isinstance(one, Behind)]
    assert behind.position == far - 8
    assert behind.sources == (2, 3)
    assert not backup.state.slots


def test_a_proposal_between_the_water_mark_and_the_end_of_the_window_waits():
    """A primary that advances first is not ignored: its proposal is kept, and voted for once the window moves."""
    backup = Lone(interval=4)
    position = backup.state.vote_limit + 2
    backup.have(A)
    out = backup.hear(0, PrePrepare(0, position, (A,)))
    assert not sent(out, Prepare)
    assert backup.state.slots[position].refs == (A,)


def test_a_second_wish_for_votes_is_answered():
    backup = Lone()
    backup.order(1, A)
    assert [type(one) for one in sent(backup.hear(0, PrePrepare(0, 1, (A,))), Prepare)] == [Prepare]
    assert sent(backup.hear(2, Prepare(0, 1, DA)), CommitVote)
    assert not backup.hear(2, CommitVote(0, 1, DA)), "an answer to an answer would go on for ever"


def test_a_copy_of_a_proposal_is_as_good_as_the_proposal():
    backup = Lone()
    backup.have(A)
    copy = PrePrepareCopy(0, signed(0, PrePrepare(0, 1, (A,))))
    assert sent(backup.hear(3, copy), Prepare)


def test_a_pre_prepare_that_contradicts_a_new_view_is_rejected():
    from tests.plugins.pbft.lone import new_view, prepared_at, view_change

    backup = Lone(own=2)
    backup.have(A, B)
    votes = {index: view_change(index, 1, prepared_at(0, 1, [A])) for index in (0, 1, 3)}
    for signer, vote in votes.items():
        backup.hear(signer, vote)
    backup.hear(1, new_view(1, votes))
    out = backup.hear(1, PrePrepare(1, 1, (B,)))
    assert [one.sender for one in out if isinstance(one, Reject)] == [1]
    assert not sent(out, Prepare)


def test_a_late_body_of_a_committed_batch_is_not_a_new_batch():
    backup = Lone(own=0)
    backup.hear(0, PrePrepare(0, 1, (A,)))
    backup.step(Synced(backup.now, 1, (A,), None))
    backup.state.drop_through(1)
    assert not sent(backup.step(Available(backup.now, (A,), decided=True)), PrePrepare)
    assert not backup.state.watch_count


def test_a_batch_that_is_announced_again_after_it_was_forgotten_is_ordered_again():
    primary = Lone(own=0)
    primary.order(1, A)
    primary.state.drop_through(1)
    assert [one.refs for one in sent(primary.have(A), PrePrepare)] == [(A,)]
