"""What is lost is said again, and asked for; answers do not breed answers."""

from bftkit.core.outputs import Behind, Broadcast, Send, Want
from bftkit_pbft.messages import (
    CommitVote,
    FetchNewView,
    FetchProposal,
    FetchViewChange,
    NewView,
    NewViewCopy,
    Prepare,
    PrePrepare,
    PrePrepareCopy,
    proposal_digest,
)
from tests.plugins.pbft.lone import Lone, batch, new_view, prepared_at, sent, view_change
from tests.plugins.pbft.parts import checkpoint_at

A = batch("a")
DA = proposal_digest((A,))


def entered(own: int = 3) -> Lone:
    """A replica in view 1, which began with a proposal for position 1."""
    replica = Lone(own=own)
    replica.have(A)
    votes = {index: view_change(index, 1, prepared_at(0, 1, [A])) for index in (0, 1, 2)}
    for signer, vote in votes.items():
        replica.hear(signer, vote)
    replica.hear(1, new_view(1, votes))
    return replica


def test_own_votes_are_repeated_until_the_position_is_decided():
    replica = Lone()
    replica.have(A)
    replica.hear(0, PrePrepare(0, 1, (A,)))
    assert sent(replica.fire("retransmit", after=250), Prepare)
    replica.order(1, A)
    assert "retransmit" not in replica.state.armed


def test_a_primary_repeats_its_proposal():
    primary = Lone(own=0)
    primary.have(A)
    out = primary.fire("retransmit", after=250)
    assert sent(out, PrePrepare) == [PrePrepare(0, 1, (A,))]


def test_a_proposal_that_others_vote_for_is_asked_for():
    replica = Lone()
    replica.hear(2, Prepare(0, 1, DA))
    assert "retransmit" not in replica.state.armed, "one member may be lying"
    replica.hear(3, Prepare(0, 1, DA))
    out = replica.fire("retransmit", after=250)
    assert {one.to for one in out if isinstance(one, Send) and isinstance(one.message, FetchProposal)} >= {0}


def test_whoever_has_the_proposal_hands_it_on_with_its_votes():
    replica = Lone()
    replica.order(1, A)
    out = replica.hear(2, FetchProposal(0, 1))
    (copy,) = sent(out, PrePrepareCopy)
    assert (copy.signer, copy.pre_prepare.refs) == (0, (A,))
    assert sent(out, Prepare)
    assert sent(out, CommitVote)
    assert not replica.hear(2, FetchProposal(0, 2))
    assert not replica.hear(2, FetchProposal(1, 1))


def test_a_primary_hands_out_its_proposal_as_it_was():
    primary = Lone(own=0)
    primary.have(A)
    assert sent(primary.hear(2, FetchProposal(0, 1)), PrePrepare) == [PrePrepare(0, 1, (A,))]


def test_the_new_view_is_the_proposal_for_what_it_began_with():
    out = entered().hear(2, FetchProposal(1, 1))
    assert sent(out, NewViewCopy)
    assert sent(out, Prepare)


def test_bodies_are_asked_for_again():
    replica = Lone()
    replica.hear(0, PrePrepare(0, 1, (A,)))
    assert [one.refs for one in replica.fire("retransmit", after=250) if isinstance(one, Want)] == [(A,)]


def test_the_new_view_is_handed_on_to_those_who_ask_and_to_those_who_lag():
    replica = entered()
    assert [one.to for one in replica.hear(2, FetchNewView(1)) if isinstance(one, Send)] == [2]
    assert not replica.hear(2, FetchNewView(2))
    replica.now += 1_000
    assert sent(replica.hear(0, Prepare(0, 5, DA)), NewViewCopy)
    assert not sent(replica.hear(0, Prepare(0, 6, DA)), NewViewCopy), "once for each interval"


def test_a_primary_signs_its_new_view_again_for_whoever_asks():
    primary = Lone(own=1)
    primary.hear(2, view_change(2, 1))
    primary.hear(3, view_change(3, 1))
    (message,) = sent(primary.hear(2, FetchNewView(1)), NewView)
    assert message.signature == b""


def test_view_changes_that_a_new_view_needs_are_asked_for_again_but_not_for_ever():
    replica = Lone(own=3)
    replica.hear(1, new_view(1, {index: view_change(index, 1) for index in (0, 1, 2)}))
    assert len(sent(replica.fire("retransmit", after=250), FetchViewChange)) == 3
    for _ in range(20):
        replica.fire("retransmit", after=250)
    assert not replica.state.candidates
    assert not replica.state.armed


def test_a_state_transfer_that_is_needed_is_asked_for_again():
    replica = Lone(own=3)
    high = checkpoint_at(4, [0, 1, 2], 4)
    votes = {0: view_change(0, 1, checkpoint=high), 1: view_change(1, 1), 2: view_change(2, 1)}
    for signer, vote in votes.items():
        replica.hear(signer, vote)
    replica.hear(1, new_view(1, votes))
    assert replica.engine.status().waiting_for == "the state of checkpoint 4, by state transfer"
    out = replica.fire("retransmit", after=250)
    assert [(one.position, one.checkpoint) for one in out if isinstance(one, Behind)] == [(4, high)]


def test_what_is_repeated_at_once_is_bounded():
    replica = Lone(interval=64)
    for position in range(1, 65):
        ref = batch(f"b{position}")
        replica.have(ref)
        replica.hear(0, PrePrepare(0, position, (ref,)))
    out = replica.fire("retransmit", after=250)
    assert len([one for one in out if isinstance(one, Broadcast)]) == 32
