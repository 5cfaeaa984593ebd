"""Water marks, forgetting, catching up (PBFT §4.3)."""

from bftkit.core.inputs import Available, Sealed, Stable, Synced
from bftkit.core.outputs import Persist
from bftkit_pbft.messages import FetchNewView, Prepare, PrePrepare, Snapshot, proposal_digest
from tests.plugins.pbft.lone import Lone, batch, commits, sent, view_change
from tests.plugins.pbft.parts import checkpoint_at

A, B = batch("a"), batch("b")


def stable(replica: Lone, position: int) -> list:
    return replica.step(Stable(replica.now, checkpoint_at(position, [0, 1, 2], 4)))


def ordered(count: int, **options) -> Lone:
    replica = Lone(interval=4, **options)
    for position in range(1, count + 1):
        replica.order(position, batch(f"b{position}", position % 4))
    return replica


def test_a_stable_checkpoint_discards_what_lies_below():
    replica = ordered(6)
    out = stable(replica, 4)
    assert sorted(replica.state.slots) == [5, 6]
    assert [one.replaces_earlier for one in out if isinstance(one, Persist)] == [True]
    assert isinstance(replica.records[0], Snapshot)
    assert len(replica.state.held) == 2


def test_an_older_checkpoint_changes_nothing():
    replica = ordered(8)
    stable(replica, 8)
    assert not stable(replica, 4)
    assert replica.state.low == 8


def test_proposals_that_waited_for_the_window_are_voted_for_when_it_moves():
    replica = ordered(8)
    replica.have(A)
    assert not sent(replica.hear(0, PrePrepare(0, 9, (A,))), Prepare)
    assert [one.position for one in sent(stable(replica, 4), Prepare)] == [9]


def test_a_primary_goes_on_when_the_window_moves():
    primary = Lone(own=0, interval=2, in_flight=32, batches_per_proposal=1)
    primary.have(*(batch(f"b{index}") for index in range(8)))
    for position in range(1, 5):
        primary.order(position, *(primary.state.slots[position].refs or ()))
    assert [one.position for one in sent(stable(primary, 4), PrePrepare)] == [5, 6, 7, 8]


def test_what_lies_below_the_water_mark_is_ignored():
    replica = ordered(4)
    stable(replica, 4)
    assert not replica.hear(0, PrePrepare(0, 3, (A,)))
    assert not replica.state.slots


def test_memory_stays_within_the_window():
    replica = Lone(interval=4)
    for position in range(1, 101):
        replica.order(position, batch(f"b{position}", position % 4))
        if position % 4 == 0:
            stable(replica, position)
    state = replica.state
    assert not state.slots
    assert not state.held
    assert not state.ordered
    assert not state.waiting
    assert not state.watch_count
    assert len(replica.records) == 1


def test_a_late_proposal_for_a_committed_position_takes_no_batch_away():
    for first in (True, False):
        replica = Lone(interval=4)
        if first:
            replica.have(A)
        replica.step(Synced(replica.now, 2, (B,), None))
        replica.hear(0, PrePrepare(0, 2, (A,)))
        if not first:
            replica.have(A)
        replica.step(Synced(replica.now, 4, (), None))
        stable(replica, 4)
        assert A.digest in replica.state.held
        assert A.digest in replica.state.pending
        assert replica.state.watch_count == 1
        assert replica.state.armed


def test_a_late_proposal_of_what_was_decided_is_voted_for_and_let_go():
    replica = Lone(interval=4)
    replica.step(Synced(replica.now, 2, (A,), None))
    replica.hear(0, PrePrepare(0, 2, (A,)))
    assert sent(replica.step(Available(replica.now, (A,), decided=True)), Prepare)
    assert not replica.state.held
    assert not replica.state.watch_count


def test_catching_up_skips_positions_and_what_they_ordered():
    replica = Lone(interval=4)
    replica.have(A, B)
    replica.step(Synced(0, 3, (A,), None))
    assert replica.engine.status().position == 3
    assert list(replica.state.pending) == [B]
    assert replica.state.watch_count == 1
    assert commits(replica.order(4, B)) == [4]


def test_catching_up_keeps_prepared_certificates():
    """Until a checkpoint is stable a VIEW-CHANGE must tell of them, whoever has executed what."""
    replica = Lone(own=3, interval=4)
    replica.have(A)
    replica.hear(0, PrePrepare(0, 1, (A,)))
    for index in (0, 2):
        replica.hear(index, Prepare(0, 1, proposal_digest((A,))))
    replica.step(Synced(0, 2, (A,), None))
    replica.hear(0, view_change(0, 1))
    replica.hear(2, view_change(2, 1))
    assert replica.state.own_view_change is not None
    assert [proof.position for proof in replica.state.own_view_change.prepared] == [1]


def test_a_proposal_that_lost_its_position_waits_again():
    replica = Lone(interval=4)
    replica.have(A, B)
    replica.hear(0, PrePrepare(0, 1, (A,)))
    replica.step(Synced(0, 1, (B,), None))
    assert list(replica.state.pending) == [A]


def test_catching_up_hands_out_what_was_decided_above():
    replica = Lone()
    replica.order(3, A)
    assert commits(replica.step(Synced(0, 2, (), None))) == [3]


def test_batches_that_turn_out_to_be_decided_long_ago_are_not_watched_any_more():
    replica = ordered(3)
    replica.have(A)
    replica.step(Synced(0, 3, (A,), None))
    assert not replica.state.watch_count
    assert not len(replica.state.pending)
    assert not replica.state.armed


def test_the_past_is_not_caught_up_with():
    replica = ordered(3)
    assert not replica.step(Synced(0, 2, (), None))
    assert replica.engine.status().position == 3


def test_after_the_seal_nothing_is_voted_or_timed():
    replica = Lone()
    replica.have(A)
    replica.step(Sealed(0, 0))
    assert not replica.state.armed
    assert not replica.hear(0, PrePrepare(0, 1, (A,)))
    assert not replica.hear(0, view_change(0, 1)) + replica.hear(2, view_change(2, 1))
    assert not replica.hear(2, FetchNewView(1))
    assert replica.engine.status().mode == "sealed"
