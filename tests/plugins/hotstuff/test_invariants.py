"""Each invariant of HotStuff, broken once."""

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.statement import Statement
from bftkit.testing.invariants import load_invariants
from bftkit_hotstuff.invariants import HotStuffInvariants
from bftkit_hotstuff.state import Wanted
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import GENESIS_QC, block_on, chain_of, qc_for

A, B = b"a" * 32, b"b" * 32


def statement(kind: str, number: int, content: bytes = A) -> Statement:
    return Statement(kind, number, 0, content)


def certificate(number: int, content: bytes) -> QuorumCertificate:
    return QuorumCertificate.of(statement("vote", number, content), dict.fromkeys(range(3), bytes(64)), 4)


def test_simulations_find_them_by_the_name_of_the_engine():
    assert isinstance(load_invariants("hotstuff", 4), HotStuffInvariants)


def test_one_vote_in_a_round_also_after_a_restart():
    watch = HotStuffInvariants(4)
    assert watch.signs(1, statement("vote", 3)) is None
    assert watch.signs(1, statement("vote", 3)) is None
    watch.restarted(1)
    assert "votes twice" in (watch.signs(1, statement("vote", 3, B)) or "")
    assert watch.signs(2, statement("vote", 3, B)) is None


def test_no_vote_and_no_proposal_in_a_round_that_was_given_up():
    watch = HotStuffInvariants(4)
    assert watch.signs(1, statement("timeout", 3)) is None
    assert "after it has given up" in (watch.signs(1, statement("vote", 3)) or "")
    assert "after it has given up" in (watch.signs(1, statement("vote", 2)) or "")
    assert "it proposes" in (watch.signs(1, statement("proposal", 3)) or "")
    assert watch.signs(1, statement("vote", 4)) is None
    assert watch.signs(1, statement("proposal", 4)) is None


def test_one_block_is_certified_in_a_round():
    watch, replica = HotStuffInvariants(4), Lone()
    assert watch.decided(1, certificate(3, A)) is None
    assert "two blocks are certified in round 3" in (watch.decided(1, certificate(3, B)) or "")
    chain = chain_of(3)
    replica.certify(chain[2])
    assert "two blocks are certified" in (watch.stepped(1, replica.engine) or "")


def test_marks_only_rise():
    watch, replica, chain = HotStuffInvariants(4), Lone(), chain_of(3)
    replica.certify(chain[2])
    assert watch.stepped(1, replica.engine) is None
    replica.state.voted_round, before = 2, replica.state.voted_round
    assert watch.stepped(1, replica.engine) is None
    replica.state.voted_round = before
    assert "marks fall" in (watch.stepped(1, replica.engine) or "")
    watch.restarted(1)
    assert watch.stepped(1, replica.engine) is None


def test_a_round_rests_on_a_certificate_of_the_one_before():
    watch, replica = HotStuffInvariants(4), Lone()
    replica.state.round = 5
    assert "newest certificate is of round 0" in (watch.stepped(1, replica.engine) or "")


def test_there_is_one_committed_branch():
    watch, one, two = HotStuffInvariants(4), Lone(), Lone(own=2)
    one.state.tree.commit(one.state.tree.add(block_on(None, 1)))
    two.state.tree.commit(two.state.tree.add(block_on(None, 2)))
    assert watch.stepped(0, one.engine) is None
    assert "another block at height 1" in (watch.stepped(2, two.engine) or "")


def test_tables_are_bounded():
    watch, replica = HotStuffInvariants(4), Lone()
    state = replica.state
    state.wanted = {bytes([number]) * 32: Wanted([1]) for number in range(40)}
    assert "asks for 40 blocks" in (watch.stepped(0, replica.engine) or "")
    state.wanted = {}
    state.votes = dict.fromkeys(range(40), state.scheme.tally(4))
    assert "votes in 40 rounds" in (watch.stepped(0, replica.engine) or "")
    state.votes = {}
    orphan = state.tree.add(block_on(None, 7))
    state.tree.commit(state.tree.add(block_on(None, 1)))
    assert "where another one is committed" in (watch.stepped(0, replica.engine) or "")
    del state.tree.nodes[orphan.id]
    state.tree.low = 1
    assert "1 is stable" in (watch.stepped(0, replica.engine) or "")
    assert qc_for(block_on(None, 1)) != GENESIS_QC
