"""How rounds begin and end (Jolteon Fig. 2, Timeout and Advance Round)."""

import itertools

from bftkit.core.outputs import Accuse, Broadcast, Offer, Persist
from bftkit_hotstuff.messages import GENESIS_QC, Certificates, GaveUp, Timeout, Vote, round_of
from bftkit_hotstuff.synchronizer import make_tc
from tests.plugins.hotstuff.lone import Lone, index_of, receivers, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, qc_for, signed, tc_for

A = batch("a", 3)


def waiting(own: int = 0, **options) -> Lone:
    """A replica that waits for a batch, and has offered it to the leader."""
    replica = Lone(own, **options)
    replica.have(A)
    replica.fire("relay", after=250)
    return replica


def test_a_round_is_given_up_when_it_has_had_its_time_behind_a_record():
    replica = waiting()
    assert not sent(replica.fire("round", after=900), Timeout)
    out = replica.fire("round", after=100)
    assert sent(out, Timeout) == [Timeout(1, GENESIS_QC, None)]
    assert index_of(out, Persist, GaveUp) < index_of(out, Broadcast, Timeout)
    assert {one.to for one in out if isinstance(one, Offer)} == {1, 2, 3}, "so that the others give it up too"


def test_without_work_nothing_is_given_up():
    replica = Lone()
    assert not replica.state.armed
    assert not replica.fire("round", after=60_000)


def test_f_plus_one_members_are_followed():
    replica = Lone()
    assert not sent(replica.hear(1, Timeout(1, GENESIS_QC, None)), Timeout)
    assert not sent(replica.hear(1, Timeout(1, GENESIS_QC, None)), Timeout), "one member twice is one"
    assert sent(replica.hear(2, Timeout(1, GENESIS_QC, None)), Timeout)


def test_a_quorum_of_timeouts_in_any_order_ends_the_round():
    for order in itertools.permutations((1, 2, 3)):
        replica = Lone()
        for count, sender in enumerate(order, 1):
            assert replica.state.round == 1
            replica.hear(sender, Timeout(1, GENESIS_QC, None))
            if count == 2:
                assert replica.state.round == 2, "with the own one there are three"
                break
        assert replica.state.tc is not None
        assert replica.state.tc.round == 1


def test_no_single_message_moves_a_round():
    replica = Lone()
    chain = chain_of(3)
    replica.hear(3, Timeout(1, GENESIS_QC, None))
    assert replica.state.round == 1
    replica.hear(3, Timeout(4, qc_for(chain[2]), None))
    assert replica.state.round == 4, "the certificate in it does: a quorum stands behind that"
    replica.hear(3, Timeout(4, qc_for(chain[2]), None))
    assert replica.state.round == 4


def test_a_timeout_certificate_names_the_newest_certificate_of_its_signers():
    chain = chain_of(2)
    qcs = [GENESIS_QC, qc_for(chain[1]), qc_for(chain[0])]
    timeouts = {who: signed(who, Timeout(3, qc, None)) for who, qc in enumerate(qcs)}
    made = make_tc(3, timeouts)
    assert [vote.high_qc_round for vote in made.votes] == [0, 2, 1]
    assert made.high_qc == qcs[1]
    assert made.high_qc_round == 2


def test_the_newest_certificate_in_a_timeout_is_kept():
    replica, chain = Lone(), chain_of(2)
    replica.hear(2, Timeout(4, qc_for(chain[1]), tc_for(3, [qc_for(chain[1])] * 3)))
    assert round_of(replica.state.high_qc) == 2
    assert replica.state.round == 4


def test_an_older_certificate_never_replaces_a_newer_one():
    replica, chain = Lone(), chain_of(3)
    replica.certify(chain[2])
    replica.certify(chain[0])
    assert round_of(replica.state.high_qc) == 3
    replica.hear(1, Certificates(qc_for(chain[0]), tc_for(2)))
    assert (round_of(replica.state.high_qc), replica.state.round) == (3, 4)


def test_whoever_is_in_an_older_round_is_told_now_and_then():
    replica, chain = Lone(), chain_of(3)
    replica.certify(chain[2])
    assert not sent(replica.hear(3, Timeout(1, GENESIS_QC, None)), Certificates), "it may be on its way"
    replica.now += 1_000
    out = replica.hear(3, Timeout(1, GENESIS_QC, None))
    assert sent(out, Certificates) == [Certificates(qc_for(chain[2]), None)]
    assert receivers(out, Certificates) == [3]
    assert not sent(replica.hear(3, Timeout(2, GENESIS_QC, tc_for(1))), Certificates)
    replica.now += 1_000
    assert sent(replica.hear(2, Certificates(qc_for(chain[0]), None)), Certificates)


def test_the_leader_of_a_round_is_told_why_it_has_begun():
    replica = Lone()
    for sender in (1, 3):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    assert receivers(replica.outputs, Certificates) == [2]


def test_a_timeout_is_said_again_with_the_same_words():
    replica = waiting()
    (first,) = sent(replica.fire("round", after=1_000), Timeout)
    out = replica.fire("retransmit", after=500)
    (again,) = sent(out, Timeout)
    assert again.statement() == first.statement()
    restarted = replica.again()
    restarted.have(A)
    (after,) = sent(restarted.fire("retransmit", after=1_000), Timeout)
    assert after.statement() == first.statement()
    assert not sent(restarted.see(block_on(None, 1, [A])), Vote)


def test_a_timeout_that_comes_again_is_answered_with_the_own_one():
    lone = Lone(own=0, members=7)
    for sender in (1, 2, 3):
        lone.hear(sender, Timeout(1, GENESIS_QC, None))
    lone.now += 1_000
    out = lone.hear(2, Timeout(1, GENESIS_QC, None))
    assert receivers(out, Timeout) == [2]


def test_two_different_timeouts_for_a_round_are_evidence():
    replica, chain = Lone(own=0, members=7), chain_of(1, members=7)
    tc = tc_for(1, [GENESIS_QC] * 5)
    replica.hear(3, Timeout(2, GENESIS_QC, tc))
    assert replica.state.round == 2
    out = replica.hear(3, Timeout(2, qc_for(chain[0], range(5), 7), None))
    assert [one.evidence.signer for one in out if isinstance(one, Accuse)] == [3]


def test_patience_grows_by_half_with_each_failure_up_to_the_cap():
    replica = Lone(view_timeout_ms=1_000, timeout_cap_factor=3)
    found = []
    for failures in range(5):
        replica.state.failures = failures
        found.append(replica.state.timeout_ms)
    assert found == [1_000, 1_500, 2_250, 3_000, 3_000]


def test_a_commit_gives_patience_back():
    replica, chain = Lone(), chain_of(2)
    replica.state.failures = 3
    for block in chain:
        replica.have(*block.refs)
        replica.see(block)
    replica.certify(chain[1])
    assert replica.state.failures == 0


def test_a_full_window_is_nobodys_fault():
    replica, chain = Lone(interval=2), chain_of(4)
    replica.have(*(ref for block in chain for ref in block.refs), A)
    for block in chain:
        replica.see(block)
    fifth = block_on(chain[3], 5)
    sixth = block_on(fifth, 6)
    replica.see(fifth)
    replica.see(sixth)
    assert replica.state.committed == 4
    replica.certify(sixth)
    status = replica.engine.status()
    assert "window is full" in status.waiting_for
    assert status.waiting_on == (), "the replica knows whose votes are missing"
    replica.fire("relay", after=250)
    for _ in range(20):
        assert not sent(replica.fire("round", after=1_000), Timeout)
