"""A replica that is built again from its records says nothing that contradicts what it said before."""

from bftkit.core.ids import canonical
from bftkit.core.inputs import Stable, Synced
from bftkit.core.outputs import Want
from bftkit_pbft.engine import SPEC
from bftkit_pbft.messages import (
    CommitVote,
    NewView,
    Prepare,
    PrePrepare,
    Reproposal,
    Suspect,
    ViewChange,
    proposal_digest,
)
from tests.plugins.pbft.lone import Lone, batch, commits, new_view, prepared_at, sent, view_change
from tests.plugins.pbft.parts import START, checkpoint_at, genesis_of

A, B = batch("a"), batch("b")
DA = proposal_digest((A,))


def again(before: Lone, **options) -> Lone:
    """Build the replica a second time."""
    return Lone(before.own, records=before.records, **options)


def memory(replica: Lone) -> list:
    """What has to survive: view, mode, proposals and votes, prepared certificates, checkpoint, next position."""
    state = replica.state
    slots = [state.slots[position] for position in sorted(state.slots)]
    return [
        state.view,
        state.active,
        state.stable,
        state.own_view_change,
        [(slot.position, slot.refs, slot.voted, slot.commit_voted) for slot in slots if slot.voted and state.active],
        [slot.prepared for slot in slots if slot.prepared is not None],
        state.new_view.statement() if state.new_view is not None else None,
    ]


def test_a_backup_accepts_no_other_proposal_after_a_restart():
    before = Lone()
    before.have(A)
    before.hear(0, PrePrepare(0, 1, (A,)))
    after = again(before)
    after.have(A, B)
    assert not sent(after.hear(0, PrePrepare(0, 1, (B,))), Prepare)
    assert sent(after.fire("retransmit", after=250), Prepare) == [Prepare(0, 1, DA)]


def test_a_primary_repeats_its_proposal_after_a_restart_and_goes_on_behind_it():
    before = Lone(own=0)
    before.have(A)
    after = again(before)
    assert sent(after.fire("retransmit", after=250), PrePrepare) == [PrePrepare(0, 1, (A,))]
    assert [one.position for one in sent(after.have(A, B), PrePrepare)] == [2]


def test_a_commit_vote_survives_with_its_proof():
    before = Lone()
    before.have(A)
    before.hear(0, PrePrepare(0, 1, (A,)))
    before.hear(0, Prepare(0, 1, DA))
    before.hear(2, Prepare(0, 1, DA))
    after = again(before)
    assert sent(after.fire("retransmit", after=250), CommitVote) == [CommitVote(0, 1, DA)]
    assert memory(after) == memory(before)
    after.hear(0, view_change(0, 1))
    (message,) = sent(after.hear(2, view_change(2, 1)), ViewChange)
    assert [proof.refs for proof in message.prepared] == [(A,)]


def test_a_replica_in_a_view_change_stays_in_it():
    before = Lone(own=3)
    before.have(A)
    before.hear(0, PrePrepare(0, 1, (A,)))
    for index in (0, 1):
        before.hear(index, view_change(index, 1))
    (own,) = sent(before.outputs, ViewChange)
    after = again(before)
    assert sent(after.outputs, ViewChange) == [own], "it says the same again"
    assert memory(after) == memory(before)
    after.step(Synced(0, 1, (A,), None))
    assert not sent(after.hear(0, PrePrepare(0, 2, (B,))), Prepare)


def test_a_replica_in_a_new_view_stays_in_it():
    before = Lone(own=3)
    before.have(A)
    votes = {0: view_change(0, 1, prepared_at(0, 1, [A]), prepared_at(0, 2, [B])), 1: view_change(1, 1)}
    votes[2] = view_change(2, 1)
    for signer, vote in votes.items():
        before.hear(signer, vote)
    before.hear(1, new_view(1, votes))
    after = again(before)
    assert memory(after) == memory(before)
    assert any(isinstance(one, Want) and one.refs == (B,) for one in after.outputs), "it still lacks a body"
    assert sent(after.have(B), Prepare) == [Prepare(1, 2, proposal_digest((B,)))]


def test_the_primary_of_a_new_view_repeats_the_same_new_view():
    before = Lone(own=1)
    before.hear(2, view_change(2, 1, prepared_at(0, 1, [A])))
    before.hear(3, view_change(3, 1))
    (message,) = sent(before.outputs, NewView)
    after = again(before)
    (repeated,) = sent(after.fire("retransmit", after=250), NewView)
    assert repeated.statement() == message.statement()
    assert repeated.proposals == (Reproposal(1, (A,)),)


def test_a_snapshot_says_what_the_records_before_it_said():
    before = Lone(own=3, interval=2)
    for position in range(1, 3):
        before.order(position, batch(f"b{position}"))
    before.have(A)
    before.hear(0, PrePrepare(0, 3, (A,)))
    for index in (0, 1):
        before.hear(index, Prepare(0, 3, DA))
    stable = checkpoint_at(2, [0, 1, 2], 4)
    before.step(Stable(before.now, stable))
    assert len(before.records) == 1
    after = again(before, interval=2, checkpoint=stable)
    assert memory(after) == memory(before)
    assert [slot.position for slot in after.state.slots.values()] == [3]
    assert after.engine.status().position == 2


def test_a_checkpoint_newer_than_the_records_wins():
    before = Lone(interval=2)
    before.order(1, A)
    before.order(2, B)
    after = again(before, interval=2, checkpoint=checkpoint_at(2, [0, 1, 2], 4))
    assert after.state.low == 2
    assert not after.state.slots
    assert commits(after.order(3, batch("c"))) == [3]


def test_records_are_enough_at_every_point():
    """Rebuilt after each record of a run through two views, a replica remembers what it said."""
    replica = Lone(own=3, interval=4)
    replica.order(1, A)
    replica.have(B)
    replica.hear(0, PrePrepare(0, 2, (B,)))
    votes = {0: view_change(0, 1, prepared_at(0, 1, [A]), prepared_at(0, 2, [B]))}
    votes |= {index: view_change(index, 1) for index in (1, 2)}
    for signer, vote in votes.items():
        replica.hear(signer, vote)
    replica.hear(1, new_view(1, votes))
    for index in (0, 1):
        replica.hear(index, Prepare(1, 2, proposal_digest((B,))))
    for count in range(len(replica.records) + 1):
        first = Lone(own=3, interval=4, records=replica.records[:count])
        second = Lone(own=3, interval=4, records=replica.records[:count])
        assert memory(first) == memory(second)
        assert [canonical(one.message) for one in first.outputs if hasattr(one, "message")] == [
            canonical(one.message) for one in second.outputs if hasattr(one, "message")
        ]
    assert memory(again(replica, interval=4)) == memory(replica)


def test_building_says_nothing_and_starting_sends_no_vote():
    before = Lone()
    before.order(1, A)
    after = again(before)
    assert not sent(after.outputs, Prepare)
    assert not sent(after.outputs, Suspect)
    assert SPEC.build(before.context, genesis_of(before.context), START, ()).status().mode == "normal"
