"""Proposals and votes, rule by rule (Jolteon Fig. 2, Vote)."""

import itertools

import msgspec

from bftkit.core.inputs import Available
from bftkit.core.outputs import Accuse, Broadcast, Persist, Reject, Send, SetTimer, Want
from bftkit_hotstuff.check import check
from bftkit_hotstuff.messages import GENESIS_QC, FetchBlocks, Proposal, Timeout, Vote, Voted, round_of
from tests.plugins.hotstuff.lone import Lone, index_of, receivers, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, proposal, qc_for, signed, tc_for

A, B = batch("a"), batch("b")


def ready(own: int = 0, **options) -> Lone:
    replica = Lone(own, **options)
    replica.have(A, B)
    return replica


def test_a_vote_goes_to_the_next_leader_behind_its_record():
    replica, block = ready(), block_on(None, 1, [A])
    out = replica.see(block)
    assert sent(out, Vote) == [Vote(1, block.header().id)]
    assert receivers(out, Vote) == [2]
    assert index_of(out, Persist, Voted) < index_of(out, Send, Vote)
    (record,) = [one.record for one in out if isinstance(one, Persist)]
    assert record == Voted(block, None, None, None)


def test_there_is_one_vote_in_a_round():
    """ "r > r_vote"."""
    replica = ready()
    assert sent(replica.see(block_on(None, 1, [A])), Vote)
    out = replica.see(block_on(None, 1, [B]))
    assert not sent(out, Vote)
    (accusation,) = [one.evidence for one in out if isinstance(one, Accuse)]
    assert accusation.signer == 1
    assert accusation.proves_equivocation
    third = replica.see(block_on(None, 1, [A, B]))
    assert not [one for one in third if isinstance(one, Accuse)], "once for each round"


def test_the_same_proposal_again_is_answered_with_the_same_vote():
    replica, block = ready(), block_on(None, 1, [A])
    first = sent(replica.see(block), Vote)
    out = replica.see(block)
    assert sent(out, Vote) == first
    assert not [one for one in out if isinstance(one, Persist)]


def test_no_vote_in_a_round_that_was_given_up():
    """After sending a timeout for r, never vote in r."""
    replica = Lone(members=7)
    for sender in (1, 2, 3):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    assert replica.state.has_given_up
    assert not sent(replica.see(block_on(None, 1, members=7)), Vote)
    assert not sent(replica.again().see(block_on(None, 1, members=7)), Vote), "not after a restart either"


def test_no_vote_in_a_round_that_is_over():
    replica, chain = ready(), chain_of(3)
    replica.certify(chain[1])
    assert replica.state.round == 3
    assert not sent(replica.see(block_on(chain[0], 2)), Vote)


def test_a_block_brings_a_replica_into_its_round():
    replica = ready()
    chain = chain_of(2)
    out = replica.see(block_on(chain[1], 3, [A]))
    assert replica.state.round == 3
    assert not sent(out, Vote), "the parent is not here: nobody knows whether the height is right"
    assert sent(out, FetchBlocks)


def test_after_a_timeout_the_certificate_must_be_the_newest_that_is_spoken_of():
    """ "r = tc.r + 1 and qc.r >= max {qc_high.r | qc_high in tc}"."""
    chain = chain_of(1)
    for known, expected in ((GENESIS_QC, True), (qc_for(chain[0]), False)):
        replica = ready(own=0)
        tc = tc_for(2, [GENESIS_QC, known, GENESIS_QC])
        out = replica.see(block_on(None, 3, [A]), tc)
        assert replica.state.round == 3
        assert bool(sent(out, Vote)) is expected


def test_a_vote_waits_for_the_bodies():
    replica, block = Lone(), block_on(None, 1, [A, B])
    out = replica.see(block)
    assert [one.refs for one in out if isinstance(one, Want)] == [(A, B)]
    assert not sent(out, Vote)
    assert not sent(replica.have(A), Vote)
    assert sent(replica.have(B), Vote) == [Vote(1, block.header().id)]


def test_a_body_that_was_decided_before_completes_a_block():
    replica = Lone()
    replica.see(block_on(None, 1, [A]))
    assert sent(replica.step(Available(0, (A,), decided=True)), Vote)
    assert not replica.state.watched


def test_a_block_at_a_wrong_height_is_rejected():
    replica, first = ready(), block_on(None, 1, [A])
    replica.see(first)
    out = replica.see(block_on(first, 2, height=3))
    assert [one.sender for one in out if isinstance(one, Reject)] == [2]
    assert not sent(out, Vote)


def test_blocks_with_batches_stay_in_the_window_and_empty_ones_may_leave_it():
    replica = ready(interval=2)
    chain = chain_of(4)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        assert sent(replica.see(block), Vote)
    assert replica.state.vote_limit == 4
    assert not sent(replica.see(block_on(chain[3], 5, [A])), Vote)
    again = ready(interval=2)
    again.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        again.see(block)
    assert sent(again.see(block_on(chain[3], 5)), Vote)


def test_votes_in_any_order_make_a_certificate():
    for order in itertools.permutations((0, 1, 3)):
        replica, block = ready(own=2), block_on(None, 1, [A])
        replica.see(block)
        replica.votes_of(order, block)
        assert round_of(replica.state.high_qc) == 1
        assert replica.state.round == 2


def test_votes_for_different_blocks_do_not_add_up():
    replica = Lone(own=2)
    first, second = block_on(None, 1, [A]), block_on(None, 1, [B])
    replica.votes_of((0, 1), first)
    replica.votes_of((3,), second)
    assert replica.state.round == 1
    out = replica.votes_of((3,), first)
    assert [one.evidence.signer for one in out if isinstance(one, Accuse)] == [3]
    assert replica.state.round == 1


def test_votes_that_come_before_the_proposal_count():
    replica, block = ready(own=2), block_on(None, 1, [A])
    replica.votes_of((0, 1, 3), block)
    assert round_of(replica.state.high_qc) == 1
    assert block.header().id in replica.state.wanted


def test_votes_of_far_rounds_are_not_kept():
    replica = Lone(own=2)
    for number in range(1, 2_000):
        replica.hear(3, Vote(number, bytes(32)))
    assert len(replica.state.votes) <= 18


def test_a_vote_that_brought_nothing_goes_to_everybody():
    replica, block = ready(), block_on(None, 1, [A])
    out = replica.see(block)
    assert any(isinstance(one, SetTimer) and one.timer == "retransmit" for one in replica.outputs)
    out = replica.fire("retransmit", after=250)
    assert [one.message for one in out if isinstance(one, Broadcast)] == [Vote(1, block.header().id)]


def test_the_own_proposal_comes_back_signed():
    leader = Lone(own=1)
    leader.have(A)
    assert leader.state.proposal is not None
    assert leader.state.proposal.proposal is not None
    assert leader.state.proposal.proposal.signature


def test_a_proposal_in_the_name_of_another_does_not_pass():
    block = block_on(None, 1, [A])
    message = proposal(block)
    assert check(Lone().context, 1, message) is None
    assert "not its author" in str(check(Lone().context, 2, message))
    stolen = signed(2, Proposal(msgspec.structs.replace(block, author=2), None))
    assert "does not lead" in str(check(Lone(leaders="round_robin").context, 2, stolen))
