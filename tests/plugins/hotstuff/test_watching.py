"""Timers and offers: whom a replica waits for, and when it is quiet."""

from bftkit.core.outputs import Offer, SetTimer
from bftkit_hotstuff.watching import deadline
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import batch, block_on, chain_of


def test_no_timer_runs_while_nothing_waits():
    replica, chain = Lone(), chain_of(2)
    assert not replica.state.armed
    replica.have(*chain[0].refs)
    assert {one.timer for one in replica.outputs if isinstance(one, SetTimer)} == {"round", "relay", "retransmit"}
    replica.see(chain[0])
    replica.see(block_on(chain[0], 2))
    replica.certify(block_on(chain[0], 2))
    assert replica.state.committed == 1
    assert not replica.state.armed


def test_the_rounds_time_runs_from_when_the_leader_has_something_to_do():
    replica = Lone()
    replica.have(batch("a"))
    assert deadline(replica.state) is None
    out = replica.fire("relay", after=250)
    assert [(one.to, len(one.refs)) for one in out if isinstance(one, Offer)] == [(1, 1)]
    assert deadline(replica.state) == 1_250


def test_a_proposal_starts_it_at_once():
    replica = Lone()
    replica.see(block_on(None, 1, [batch("a")]))
    assert deadline(replica.state) == 1_000


def test_a_batch_is_offered_to_each_leader_once():
    replica = Lone()
    replica.have(batch("a"))
    replica.fire("relay", after=250)
    assert not [one for one in replica.fire("relay", after=250) if isinstance(one, Offer)]
    first = block_on(None, 1, [batch("other", 2)])
    replica.see(first)
    replica.certify(first)
    assert [one.to for one in replica.fire("relay", after=250) if isinstance(one, Offer)] == [2]


def test_what_is_in_a_block_is_not_offered():
    replica = Lone()
    replica.have(batch("a"))
    replica.see(block_on(None, 1, [batch("a")]))
    assert not [one for one in replica.fire("relay", after=250) if isinstance(one, Offer)]


def test_offers_are_bounded():
    replica = Lone()
    replica.have(*(batch(f"b{number}", number % 4) for number in range(100)))
    offers = [one for one in replica.fire("relay", after=250) if isinstance(one, Offer)]
    assert [len(one.refs) for one in offers] == [64]


def test_a_timer_that_fires_early_only_looks():
    replica = Lone()
    replica.have(batch("a"))
    replica.fire("relay", after=250)
    replica.fire("round", after=100)
    assert not replica.state.has_given_up
    assert "round" in replica.state.armed
    assert not replica.fire("unknown")
