"""What a replica knows after a crash."""

from bftkit.core.inputs import Stable, Synced
from bftkit.core.log import CommitProof
from bftkit.core.outputs import Persist
from bftkit_hotstuff.check import links_of
from bftkit_hotstuff.engine import SPEC
from bftkit_hotstuff.messages import GENESIS_QC, Certificates, GaveUp, Proposal, Timeout, Vote, round_of
from tests.plugins.hotstuff.lone import Lone, commits, sent
from tests.plugins.hotstuff.parts import START, batch, block_on, chain_of, checkpoint_at, qc_for, tc_for

A, B = batch("a"), batch("b")


def test_the_last_vote_binds():
    replica = Lone()
    replica.have(A, B)
    (vote,) = sent(replica.see(block_on(None, 1, [A])), Vote)
    again = replica.again()
    again.have(A, B)
    assert again.state.voted_round == 1
    assert not sent(again.see(block_on(None, 1, [B])), Vote)
    assert sent(again.fire("retransmit", after=300), Vote) == [vote], "the same may be said again"


def test_a_round_that_was_given_up_stays_given_up():
    replica = Lone(members=7)
    for sender in (1, 2, 3):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    again = replica.again()
    assert again.state.has_given_up
    assert not sent(again.see(block_on(None, 1, members=7)), Vote)


def test_the_newest_certificate_and_the_round_come_back():
    replica, chain = Lone(), chain_of(3)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        replica.see(block)
    again = replica.again()
    assert (again.state.round, round_of(again.state.high_qc)) == (3, 2)
    assert again.state.committed == 1, "what the certificates decide is decided again"


def test_a_timeout_certificate_comes_back_with_the_vote_that_rested_on_it():
    replica = Lone()
    replica.have(A)
    assert sent(replica.see(block_on(None, 3, [A]), tc_for(2)), Vote)
    again = replica.again()
    assert again.state.round == 3
    assert again.state.entry_tc == tc_for(2)


def test_a_newer_certificate_than_the_block_has_is_in_the_record():
    replica, chain = Lone(), chain_of(1)
    replica.have(A)
    replica.certify(chain[0])
    replica.see(block_on(None, 4, [A]), tc_for(3))
    again = replica.again()
    assert round_of(again.state.high_qc) == 1


def test_a_leader_says_its_own_proposal_again_and_no_other():
    leader = Lone(own=1)
    leader.have(A)
    (first,) = sent(leader.outputs, Proposal)
    again = leader.again()
    again.have(A, B)
    assert not sent(again.outputs, Proposal)
    (said,) = sent(again.fire("retransmit", after=300), Proposal)
    assert said.statement() == first.statement()


def test_a_proposal_that_is_said_again_still_shows_why_its_round_has_begun():
    """Its TC is needed with it also where a newer QC has made it needless for the round itself."""
    first = block_on(None, 1, [A])
    second = block_on(first, 2, [B])
    leader = Lone(own=3)
    leader.have(A, B)
    leader.see(first)
    tc = tc_for(2, (qc_for(first), GENESIS_QC, GENESIS_QC))
    leader.hear(0, Certificates(qc_for(first), tc))
    (said,) = sent(leader.outputs, Proposal)
    leader.certify(second)
    leader.step(Stable(0, START))
    assert leader.state.tc is None
    again = leader.again()
    again.have(A, B)
    (repeated,) = sent(again.fire("retransmit", after=600), Proposal)
    assert (repeated.block, repeated.tc) == (said.block, tc)
    assert SPEC.check(again.context, 3, repeated) is None


def test_whoever_gave_up_and_crashed_before_it_could_say_so_says_so_when_others_do():
    replica = Lone()
    for sender in (1, 2):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    record = next(record for record in replica.records if isinstance(record, GaveUp))
    again = Lone(records=[record])
    assert not again.outputs, "it has nothing to do by itself"
    assert not again.hear(1, Timeout(1, GENESIS_QC, None))
    out = again.hear(2, Timeout(1, GENESIS_QC, None))
    assert [one.statement() for one in sent(out, Timeout)] == [Timeout(1, GENESIS_QC, None).statement()]
    assert not [one for one in out if isinstance(one, Persist)], "it is recorded"
    assert again.state.round == 2


def test_the_lock_comes_back():
    replica, chain = Lone(rules="three_chain"), chain_of(3)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        replica.see(block)
    assert replica.state.lock is not None
    assert round_of(replica.state.lock) == 1
    assert replica.again().state.lock == replica.state.lock


def test_one_record_replaces_all_others():
    replica, chain = Lone(), chain_of(7)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        replica.see(block)
    out = replica.step(Stable(0, checkpoint_at(4)))
    assert [one.replaces_earlier for one in out if isinstance(one, Persist)] == [True]
    assert len(replica.records) == 1
    again = replica.again()
    for name in ("round", "voted_round", "voted_block", "high_qc", "tc", "lock", "gave_up"):
        assert getattr(again.state, name) == getattr(replica.state, name), name
    assert set(again.state.tree.nodes) == set(replica.state.tree.nodes)
    assert again.state.committed == replica.state.committed
    assert commits(again.outputs) == [5]


def test_records_of_what_is_stable_by_now_are_left_behind():
    replica, chain = Lone(), chain_of(6)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        replica.see(block)
    later = Lone(records=replica.records, checkpoint=checkpoint_at(4))
    assert all(node.height > 4 for node in later.state.tree.nodes.values())
    assert later.state.committed == 4
    assert later.state.voted_round == 6


def test_the_block_at_the_checkpoint_is_learnt_from_the_proof_that_decided_it():
    """The record that names it may be torn off behind the checkpoint's own: then only the log knows."""
    replica, chain = Lone(), chain_of(4)
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain:
        replica.see(block)
    later = Lone(records=replica.records, checkpoint=checkpoint_at(3))
    assert later.state.tree.header(chain[2].header().id) is None
    links = links_of([chain[3].header(), chain[2].header()])
    later.step(Synced(0, 3, (), CommitProof(qc_for(chain[3]), links)))
    assert later.state.tree.tip == later.state.tree.anchor == chain[2].header()
    assert later.state.history[-1].height == 3
    later.step(Synced(0, 3, (), None))
    assert later.state.tree.tip == chain[2].header()
