"""The leader's part (Jolteon Fig. 2, Propose)."""

from bftkit.core.outputs import Broadcast, Persist
from bftkit_hotstuff.messages import GENESIS_QC, Certificates, Proposal, Timeout, Vote, Voted, round_of
from tests.plugins.hotstuff.lone import Lone, index_of, receivers, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, qc_for

A, B, C = batch("a", 0), batch("b", 1), batch("c", 2)


def test_a_leader_proposes_what_waits_behind_one_record_and_votes_for_it():
    leader = Lone(own=1)
    out = leader.have(A)
    (message,) = sent(out, Proposal)
    assert (message.block.round, message.block.height, message.block.refs) == (1, 1, (A,))
    assert message.block.justify == GENESIS_QC
    assert index_of(out, Persist, Voted) < index_of(out, Broadcast, Proposal)
    assert receivers(out, Vote) == [2]
    assert len([one for one in out if isinstance(one, Persist)]) == 1


def test_only_the_leader_of_the_round_proposes():
    for own in (0, 2, 3):
        assert not sent(Lone(own).have(A), Proposal)


def test_a_leader_with_nothing_to_do_says_nothing():
    assert Lone(own=1).outputs == []


def test_a_block_is_proposed_once_in_a_round():
    leader = Lone(own=1)
    assert sent(leader.have(A), Proposal)
    assert not sent(leader.have(B), Proposal)
    assert not sent(leader.again().have(B), Proposal), "nor after a restart"


def test_a_leader_that_gave_its_round_up_does_not_propose_in_it():
    leader = Lone(own=1)
    for sender in (0, 2):
        leader.hear(sender, Timeout(1, GENESIS_QC, None))
    assert not sent(leader.have(A), Proposal)


def test_the_next_leader_builds_on_the_certificate_that_it_makes():
    leader, block = Lone(own=2), block_on(None, 1, [A])
    leader.have(A, B)
    leader.see(block)
    out = leader.votes_of((0, 1), block)
    (message,) = sent(out, Proposal)
    assert message.block.justify == qc_for(block)
    assert message.block.refs == (B,), "what is in the branch already is left out"
    assert message.tc is None


def test_empty_blocks_bring_a_chain_to_its_end_and_then_there_is_silence():
    leader, block = Lone(own=2), block_on(None, 1, [A])
    leader.have(A)
    leader.see(block)
    (message,) = sent(leader.votes_of((0, 1), block), Proposal)
    assert message.block.refs == ()
    last = Lone(own=3)
    last.have(A)
    last.see(block)
    last.see(message.block)
    out = last.votes_of((0, 1), message.block)
    assert not sent(out, Proposal)
    (told,) = sent(out, Certificates)
    assert round_of(told.high_qc) == 2
    assert receivers(out, Certificates) == [None]
    assert not last.state.armed
    assert not sent(last.votes_of((2,), message.block), Certificates), "it is said once"


def test_a_leader_takes_batches_from_each_origin_in_turn_and_not_too_many():
    leader = Lone(own=1, batches_per_block=4)
    refs = [batch(f"{name}{origin}", origin) for origin in range(3) for name in "xyz"]
    leader.have(*refs)
    (message,) = sent(leader.outputs, Proposal)
    assert [ref.origin for ref in message.block.refs] == [0, 1, 2, 0]


def test_after_timeouts_a_leader_shows_why_the_round_was_skipped():
    leader = Lone(own=2)
    leader.have(A)
    for sender in (0, 1, 3):
        leader.hear(sender, Timeout(1, GENESIS_QC, None))
    (message,) = sent(leader.outputs, Proposal)
    assert message.block.round == 2
    assert message.tc is not None
    assert message.tc.round == 1


def test_a_leader_that_lacks_a_block_of_its_branch_proposes_nothing():
    leader, chain = Lone(own=0), chain_of(3)
    leader.have(A)
    leader.certify(chain[2])
    assert leader.state.round == 4
    assert not sent(leader.outputs, Proposal)


def test_beyond_the_window_only_empty_blocks_are_proposed():
    leader = Lone(own=5, members=7, interval=2)
    chain = chain_of(4, members=7)
    leader.have(*(ref for block in chain for ref in block.refs), A)
    for block in chain:
        leader.see(block)
    out = leader.certify(chain[3])
    (message,) = [one for one in sent(out, Proposal) if one.block.round == 5]
    assert (message.block.height, message.block.refs) == (5, ())
