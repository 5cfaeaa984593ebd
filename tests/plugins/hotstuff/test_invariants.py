"""Each invariant of HotStuff, broken once."""

import msgspec
import pytest

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.statement import Statement
from bftkit.testing.invariants import load_invariants
from bftkit_hotstuff.check import links_of
from bftkit_hotstuff.invariants import HotStuffInvariants, _branch_problem
from bftkit_hotstuff.messages import GaveUp
from bftkit_hotstuff.state import Wanted, Watched
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import GENESIS_QC, batch, block_on, chain_of, qc_for, tc_for

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


def test_no_restart_takes_back_what_was_recorded():
    watch, replica, chain = HotStuffInvariants(4), Lone(), chain_of(3)
    state = replica.state
    replica.certify(chain[2])
    state.voted_round, state.gave_up = 4, GaveUp(4, qc_for(chain[1]), None, None)
    state.lock = qc_for(chain[0])
    assert watch.stepped(1, replica.engine) is None
    watch.recorded(1, replica.engine)
    watch.restarted(1)
    state.high_qc, state.round = qc_for(chain[1]), 3
    assert watch.stepped(1, replica.engine) is None, "the newest certificate was on no disk"
    for name, value in (("voted_round", 3), ("lock", None), ("high_qc", qc_for(chain[0]))):
        before = getattr(state, name)
        setattr(state, name, value)
        assert "marks fall" in (watch.stepped(1, replica.engine) or ""), name
        setattr(state, name, before)


def test_a_timeout_certificate_hides_nothing_and_is_of_a_quorum():
    watch, replica, chain = HotStuffInvariants(4), Lone(), chain_of(2)
    newest = qc_for(chain[1])
    replica.state.tc = fine = tc_for(5, (newest, GENESIS_QC, GENESIS_QC))
    replica.state.round = 6
    assert watch.stepped(1, replica.engine) is None
    replica.state.tc = msgspec.structs.replace(fine, high_qc=GENESIS_QC)
    assert "hides one of round 2" in (watch.stepped(1, replica.engine) or "")
    replica.state.tc = msgspec.structs.replace(fine, votes=(*fine.votes[:2], fine.votes[1]))
    assert "of the members [0, 1]" in (watch.stepped(1, replica.engine) or "")


def test_what_is_certified_later_stands_on_what_is_committed():
    watch, replica = HotStuffInvariants(4), Lone()
    state, committed, other = replica.state, block_on(None, 2), block_on(None, 3)
    state.tree.commit(state.tree.add(committed))
    fine = state.tree.add(block_on(committed, 4))
    astray = state.tree.add(block_on(other, 4))
    above = state.tree.add(block_on(block_on(other, 5), 6))
    for lock, found in (
        (None, False),
        (qc_for(committed), False),
        (qc_for(fine.block), False),
        (qc_for(above.block), False),
        (qc_for(block_on(None, 1)), False),
        (qc_for(astray.block), True),
        (qc_for(block_on(committed, 2)), True),
    ):
        assert (_branch_problem(state, lock, "lock") is not None) is found
    state.lock = qc_for(astray.block)
    assert "its lock, of round 4, is on another branch" in (watch.stepped(1, replica.engine) or "")


@pytest.mark.parametrize(
    ("rules", "rounds", "fine"),
    [
        ("jolteon", (1, 2), True),
        ("jolteon", (1, 3), False),
        ("three_chain", (1, 2), False),
        ("three_chain", (1, 2, 3), True),
        ("three_chain", (1, 3, 4), False),
    ],
)
def test_a_chain_in_successive_rounds_decides(rules, rounds, fine):
    watch, replica = HotStuffInvariants(4), Lone(rules=rules)
    chain = []
    for number in rounds:
        chain.append(block_on(chain[-1] if chain else None, number))
    headers = [block.header() for block in reversed(chain)]
    entry = CommitEntry(1, (), CommitProof(qc_for(chain[-1]), links_of(headers)))
    assert (watch.proved(0, replica.engine, entry) is None) is fine


def test_a_decision_has_a_proof_that_leads_to_it():
    watch, replica, chain = HotStuffInvariants(4), Lone(), chain_of(3)
    headers = [block.header() for block in reversed(chain)]

    def judged(certificate, links):
        return watch.proved(0, replica.engine, CommitEntry(1, (), CommitProof(certificate, links_of(links)))) or ""

    assert judged(qc_for(chain[2]), headers) == ""
    assert "without a chain" in judged(None, headers)
    assert "without a chain" in judged(qc_for(chain[2]), [])
    assert "votes for another block" in judged(qc_for(chain[1]), headers)
    broken = [*headers[:2], msgspec.structs.replace(headers[2], author=3)]
    assert "do not stand on each other" in judged(qc_for(chain[2]), broken)


def test_work_without_a_timer_of_its_kind_is_found():
    watch, replica = HotStuffInvariants(4), Lone()
    state = replica.state
    assert watch.forgotten(replica.engine, set()) is None
    state.wanted[A] = Wanted([1])
    assert watch.forgotten(replica.engine, {"round", "relay"}) == "words to be said again"
    assert watch.forgotten(replica.engine, {"retransmit"}) is None
    state.watched[A] = Watched(batch("a"), 0)
    assert watch.forgotten(replica.engine, {"retransmit", "relay"}) == "blocks"
    assert watch.forgotten(replica.engine, {"retransmit", "round"}) == "batches for the leader"
    assert watch.forgotten(replica.engine, {"retransmit", "round", "relay"}) is None
    state.gave_up = GaveUp(state.round, GENESIS_QC, None, None)
    assert watch.forgotten(replica.engine, {"retransmit"}) is None
    state.sealed = 3
    assert watch.forgotten(replica.engine, set()) is None
