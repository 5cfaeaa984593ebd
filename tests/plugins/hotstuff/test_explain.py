"""What a replica says of itself."""

from bftkit_hotstuff.messages import GENESIS_QC, Timeout
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import batch, block_on, chain_of

A = batch("a")


def said(replica: Lone) -> tuple[str, tuple[int, ...]]:
    status = replica.engine.status()
    return status.waiting_for, status.waiting_on


def test_who_has_nothing_to_do_waits_for_nothing():
    replica = Lone()
    status = replica.engine.status()
    assert (status.view, status.leader, status.mode, status.position) == (1, 1, "normal", 0)
    assert said(replica) == ("", ())


def test_each_thing_that_may_be_missing_is_named():
    replica = Lone()
    replica.have(A)
    assert said(replica) == ("a block of round 1", (1,))
    block = block_on(None, 1, [A, batch("b")])
    replica.see(block)
    assert said(replica) == ("bodies of 1 batches of the block of round 1", (1, 2, 3))
    replica.have(batch("b"))
    assert said(replica) == ("a certificate for the block of round 1", (2,))


def test_a_collector_says_whose_votes_are_missing():
    replica, block = Lone(own=2), block_on(None, 1, [A])
    replica.have(A)
    replica.see(block)
    replica.votes_of((3,), block)
    assert said(replica) == ("votes for the block of round 1", (0, 1))


def test_an_unknown_parent_is_named():
    replica, chain = Lone(), chain_of(2)
    replica.have(*chain[1].refs)
    replica.see(chain[1])
    assert said(replica) == ("the certified block of round 1", (1, 2, 3))


def test_who_has_given_up_says_for_whom_it_waits():
    replica = Lone(members=7)
    replica.have(A)
    for sender in (1, 2, 3):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    assert replica.engine.status().mode == "timed out"
    assert said(replica) == ("a quorum of timeouts of round 1", (4, 5, 6))
