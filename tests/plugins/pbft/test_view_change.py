"""Leaving a view (PBFT §4.4) and getting everybody into the next one (§4.5.2)."""

from bftkit.core.inputs import Stable, Synced
from bftkit.core.outputs import Accuse, Broadcast, Offer, Persist, Send, SetTimer
from bftkit_pbft.messages import (
    CommitVote,
    FetchNewView,
    NewViewCopy,
    Prepare,
    PrePrepare,
    Suspect,
    ViewChange,
    ViewLeft,
    proposal_digest,
)
from tests.plugins.pbft.lone import Lone, batch, commits, index_of, new_view, prepared_at, sent, view_change
from tests.plugins.pbft.parts import checkpoint_at

A, B = batch("a"), batch("b")


def timers(outputs, name):
    return [one.delay_ms for one in outputs if isinstance(one, SetTimer) and one.timer == name]


def in_view_change(own=3, view=1, **options):
    """A replica that followed f + 1 others out of its view."""
    backup = Lone(own=own, **options)
    others = [index for index in range(4) if index != own]
    for index in others[:2]:
        backup.hear(index, view_change(index, view))
    assert backup.engine.status().mode == "view change"
    return backup


def suspecting(**options):
    backup = Lone(own=3, **options)
    backup.have(A)
    backup.fire("relay", after=250)
    backup.fire("watch", after=1_000)
    return backup


# --- Suspicion ------------------------------------------------------------------------------------------------------


def test_a_backup_suspects_a_primary_that_does_not_serve_a_batch():
    backup = Lone(own=3)
    backup.have(A)
    out = backup.fire("relay", after=250)
    assert [(one.refs, one.to) for one in out if isinstance(one, Offer)] == [((A,), 0)]
    out = backup.fire("watch", after=1_000)
    assert [one.view for one in sent(out, Suspect)] == [0]
    assert [one.to for one in out if isinstance(one, Offer)] == [0, 1, 2], "so that the others watch it too"
    assert not sent(out, ViewChange), "alone it goes on voting"
    assert sent(backup.hear(0, PrePrepare(0, 1, (A,))), Prepare)


def test_a_view_that_enough_members_suspect_is_left():
    backup = suspecting()
    out = backup.hear(2, Suspect(0))
    (message,) = sent(out, ViewChange)
    assert message.view == 1
    assert index_of(out, Persist, ViewLeft) < index_of(out, Broadcast, ViewChange)


def test_suspicion_that_is_not_repeated_is_forgotten():
    backup = Lone(own=3)
    backup.hear(2, Suspect(0))
    backup.have(A)
    backup.fire("relay", after=250)
    backup.now += 5_000
    out = backup.fire("watch")
    assert sent(out, Suspect)
    assert not sent(out, ViewChange)


def test_suspicion_of_another_view_does_not_count():
    backup = suspecting()
    assert [one.view for one in sent(backup.hear(2, Suspect(4)), FetchNewView)] == [4]
    assert backup.engine.status().mode == "normal"


def test_a_member_that_has_left_counts_as_one_that_suspects():
    backup = suspecting()
    assert sent(backup.hear(2, view_change(2, 1)), ViewChange)


# --- VIEW-CHANGE ----------------------------------------------------------------------------------------------------


def test_a_view_change_tells_what_is_prepared_and_stable():
    backup = Lone(own=3, interval=4)
    backup.order(1, A)
    backup.have(B)
    backup.hear(0, PrePrepare(0, 2, (B,)))
    for index in (0, 1):
        backup.hear(index, Prepare(0, 2, proposal_digest((B,))))
    backup.hear(1, view_change(1, 1))
    (message,) = sent(backup.hear(2, view_change(2, 1)), ViewChange)
    assert [(proof.position, proof.refs) for proof in message.prepared] == [(1, (A,)), (2, (B,))]
    assert message.checkpoint.position == 0


def test_whoever_left_a_view_never_votes_in_it_again():
    backup = in_view_change()
    backup.have(A)
    digest = proposal_digest((A,))
    out = backup.hear(0, PrePrepare(0, 1, (A,)))
    for index in (0, 1, 2):
        out += backup.hear(index, Prepare(0, 1, digest))
        out += backup.hear(index, CommitVote(0, 1, digest))
    assert not sent(out, Prepare)
    assert not sent(out, CommitVote)
    assert not commits(out)


def test_catching_up_does_not_end_a_view_change():
    backup = in_view_change()
    backup.step(Synced(backup.now, 8, (), None))
    assert backup.engine.status().mode == "view change"
    assert backup.engine.status().position == 8
    backup.have(A)
    assert not sent(backup.hear(0, PrePrepare(0, 9, (A,))), Prepare)


def test_a_checkpoint_that_becomes_stable_in_a_view_change_is_processed():
    backup = Lone(own=3, interval=4)
    for position in range(1, 5):
        backup.order(position, batch(f"b{position}"))
    for index in (0, 1):
        backup.hear(index, view_change(index, 1))
    backup.step(Stable(backup.now, checkpoint_at(4, [0, 1, 2], 4)))
    assert backup.state.low == 4
    assert not backup.state.slots
    (record,) = backup.records
    assert record.view_change == backup.state.own_view_change
    assert not record.active


def test_the_own_view_change_is_repeated_until_the_view_begins():
    backup = in_view_change()
    (first,) = sent(backup.outputs, ViewChange)
    assert sent(backup.fire("retransmit", after=250), ViewChange) == [first]
    assert timers(backup.outputs, "retransmit")


def test_two_view_changes_of_one_member_for_one_view_are_evidence():
    backup = Lone(own=3)
    backup.hear(2, view_change(2, 5))
    out = backup.hear(2, view_change(2, 5, prepared_at(0, 1, [A])))
    assert [one.evidence.signer for one in out if isinstance(one, Accuse)] == [2]


def test_what_is_kept_of_view_changes_is_bounded():
    backup = Lone(own=3)
    for view in range(1, 200):
        backup.hear(2, view_change(2, view))
    assert sorted(backup.state.view_changes[2]) == [197, 198, 199]


# --- §4.5.2 ---------------------------------------------------------------------------------------------------------


def test_f_plus_1_members_are_followed_to_the_smallest_view_of_theirs():
    """ "a set of f + 1 valid view-change messages ... for views greater than its current view" (§4.5.2)."""
    backup = Lone(own=3)
    assert not sent(backup.hear(0, view_change(0, 9)), ViewChange)
    out = backup.hear(1, view_change(1, 5))
    assert [one.view for one in sent(out, ViewChange)] == [5]


def test_a_view_that_f_plus_1_members_have_passed_is_joined_at_once():
    backup = Lone(own=0, members=7)
    for index, view in [(1, 4), (2, 9)]:
        assert not sent(backup.hear(index, view_change(index, view)), ViewChange)
    assert [one.view for one in sent(backup.hear(3, view_change(3, 9)), ViewChange)] == [4]
    assert [one.view for one in sent(backup.hear(4, view_change(4, 9)), ViewChange)] == [9]


def test_the_timer_starts_when_a_quorum_has_left():
    """It "waits for 2f + 1 view-change messages for view v + 1 before starting" its timer (§4.5.2)."""
    backup = Lone(own=2, echo=False)
    backup.hear(0, view_change(0, 1))
    out = backup.hear(1, view_change(1, 1))
    (own,) = sent(out, ViewChange)
    assert not timers(out, "view-change")
    assert timers(backup.hear(2, own), "view-change") == [2_000]


def test_the_timeout_doubles_up_to_a_cap_and_is_reset_by_a_commit():
    backup = Lone(own=3, view_timeout_ms=100)
    waits = []
    for view in range(1, 8):
        for index in (0, 1, 2):
            if view % 4 != 3:
                backup.hear(index, view_change(index, view))
        waits += timers(backup.outputs, "view-change")
        backup.outputs.clear()
        backup.fire("view-change", after=waits[-1])
    assert waits == sorted(waits)
    assert waits[0] == 200
    assert max(waits) == 800
    assert backup.state.view_timer.timeout_ms == 800
    backup.state.view_timer.progressed()
    assert backup.state.view_timer.timeout_ms == 100


def test_members_further_on_count_for_the_timer():
    """Their VIEW-CHANGE for this view may have been lost; nobody may wait for it for ever."""
    backup = Lone(own=2)
    backup.hear(0, view_change(0, 5))
    out = backup.hear(1, view_change(1, 3))
    assert backup.state.view == 3
    assert timers(out, "view-change")


def test_a_member_that_asks_for_a_view_that_has_begun_is_sent_its_new_view():
    backup = Lone(own=3)
    votes = {index: view_change(index, 2) for index in (0, 1, 2)}
    for signer, vote in votes.items():
        backup.hear(signer, vote)
    backup.hear(2, new_view(2, votes))
    assert not backup.hear(0, view_change(0, 2)), "the NEW-VIEW is still on its way to the others"
    backup.now += 250
    for view in (1, 2):
        out = backup.hear(0, view_change(0, view))
        assert [one.to for one in out if isinstance(one, Send) and isinstance(one.message, NewViewCopy)] == [0]


def test_a_lone_replica_does_not_shout():
    """Nobody follows: it says so more and more seldom, but does not stop."""
    backup = in_view_change()
    backup.outputs.clear()
    for _ in range(6):
        backup.fire("retransmit", after=2_000)
    waits = timers(backup.outputs, "retransmit")
    assert waits == sorted(waits)
    assert waits[-1] == 2_000


def test_a_member_that_comes_to_the_same_view_is_told_at_once():
    backup = in_view_change()
    backup.now += 2_000
    out = backup.hear(2, view_change(2, 1))
    assert [one.to for one in out if isinstance(one, Send) and isinstance(one.message, ViewChange)] == [2]


def test_a_view_whose_new_view_cannot_be_judged_is_left_too():
    # Its primary has lost, with a crash, the VIEW-CHANGEs that it began with, and goes on in its view; one member is
    # silent. Nobody asks for this view again, so what the primary says in it must count.
    backup = Lone(own=2)
    backup.hear(3, view_change(3, 1))
    backup.hear(0, view_change(0, 1))
    backup = Lone(own=2, records=backup.records)
    assert backup.engine.status().mode == "view change"
    assert timers(backup.hear(0, view_change(0, 1)), "view-change") == []
    assert backup.engine.status().waiting_on == (1, 3)
    assert timers(backup.hear(1, PrePrepare(1, 1, (A,))), "view-change") == [1_000]
    assert backup.engine.status().waiting_for == "the new view 1"
    assert [one.view for one in sent(backup.fire("view-change", after=1_000), ViewChange)] == [2]
