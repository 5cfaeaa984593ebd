"""Timers and offers: whom a replica waits for, and when it is quiet."""

from itertools import pairwise

from bftkit.core.outputs import Offer, SetTimer
from bftkit_hotstuff.messages import Proposal, Vote
from bftkit_hotstuff.watching import deadline
from tests.plugins.hotstuff.lone import Lone, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, group_of, tc_for


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


def delays(outputs, timer: str) -> list[int]:
    return [one.delay_ms for one in outputs if isinstance(one, SetTimer) and one.timer == timer]


def test_with_a_commit_the_rounds_timer_is_as_impatient_as_ever():
    replica, chain = Lone(), [block_on(None, 7, [batch("a")])]
    chain.append(block_on(chain[0], 8, [batch("b")]))
    replica.have(batch("a"), batch("b"), batch("c"))
    replica.state.failures = 6
    out = replica.see(chain[0], tc_for(6))
    out += replica.fire("round", after=1_000)
    assert delays(out, "round") == [8_000 - 1_000], "after a rough phase"
    replica.see(chain[1])
    out = replica.certify(chain[1])
    assert replica.state.committed == 1
    assert delays(out, "round")[-1:] == [1_000]
    assert not delays(replica.see(block_on(chain[1], 9)), "round"), "and is not moved without need"


def test_after_a_rough_phase_a_dead_leader_is_noticed_within_one_timeout():
    group = group_of(4, 1, interval=64, leaders="round_robin")
    at: list[int] = []
    group.on_commit = lambda instance, entry: at.append(group.now) if instance.number == 0 else None
    number = 0

    def load(until: int, live: tuple[int, ...], every: int = 1) -> None:
        nonlocal number
        while group.now < until:
            group.submit(f"w{number}", live[number % len(live)], live)
            number += 1
            group.run(every)

    group.deliverable = lambda sender, receiver, what: not isinstance(what, Proposal)
    load(40_000, (0, 1, 2, 3), 400)
    before = group.instances[0].engine.state.round
    while group.instances[0].engine.state.round == before:
        load(group.now + 10, (0, 1, 2, 3), 10)
    assert group.instances[0].engine.state.timeout_ms == 8_000
    group.deliverable = None
    while not at:
        load(group.now + 1, (0, 1, 2, 3))
    load(group.now + 100, (0, 1, 2, 3))
    group.crash(3)
    load(group.now + 9_000, (0, 1, 2))
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert 1_000 <= max(gaps) <= 1_000 + 250 + 100, "a timeout, and a quarter of one for the votes that he was to count"


def test_what_brought_nothing_is_said_again_a_quarter_after_the_round_began():
    replica, chain = Lone(), chain_of(2)
    replica.have(*(ref for block in chain for ref in block.refs))
    assert delays(replica.outputs, "retransmit") == [250]
    replica.see(chain[0])
    replica.now = 100
    replica.see(chain[1])
    assert replica.state.round == 2
    out = replica.fire("retransmit", after=150)
    assert not sent(out, Vote), "the round is 150 ms old"
    assert delays(out, "retransmit") == [100]
    out = replica.fire("retransmit", after=100)
    assert sent(out, Vote)
    assert delays(out, "retransmit") == [250]
