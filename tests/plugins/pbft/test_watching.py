"""Whom a replica blames, and whom it must not."""

from bftkit.core.inputs import Stable
from bftkit.core.outputs import Offer, SetTimer
from bftkit_pbft.messages import PrePrepare, Suspect
from bftkit_pbft.watching import deadline
from tests.plugins.pbft.lone import Lone, batch, new_view, sent, view_change
from tests.plugins.pbft.parts import checkpoint_at


def refs(name: str, count: int, origin: int) -> list:
    return [batch(f"{name}{index}", origin) for index in range(count)]


def test_no_timer_runs_while_nothing_waits():
    replica = Lone()
    assert not replica.state.armed
    replica.order(1, batch("a"))
    assert not replica.state.armed


def test_a_timer_runs_while_something_waits():
    replica = Lone()
    out = replica.have(batch("a"))
    assert {one.timer for one in out if isinstance(one, SetTimer)} == {"watch", "relay"}


def test_the_clock_of_a_batch_runs_from_when_the_primary_has_it():
    replica = Lone()
    replica.have(batch("a"))
    assert deadline(replica.state) is None
    replica.fire("relay", after=250)
    assert deadline(replica.state) == 1_250


def test_a_proposed_batch_is_not_offered():
    replica = Lone()
    replica.have(batch("a"))
    replica.now += 100
    replica.hear(0, PrePrepare(0, 1, (batch("a"),)))
    assert not [one for one in replica.fire("relay", after=150) if isinstance(one, Offer)]
    assert deadline(replica.state) == 1_100


def test_a_batch_far_down_the_queue_has_no_deadline_while_those_before_it_commit():
    replica = Lone()
    queue = refs("b", 6, 2)
    replica.have(*queue)
    replica.fire("relay", after=250)
    for position, ref in enumerate(queue[:5], 1):
        replica.now += 900
        assert not sent(replica.fire("watch"), Suspect)
        replica.order(position, ref)
    assert replica.now == 4_750
    assert deadline(replica.state) == replica.now + 1_000


def test_a_primary_that_serves_others_but_not_the_oldest_of_one_origin_is_suspected():
    """Censorship: commits of other batches do not stop the clock of the oldest one."""
    replica = Lone()
    victim = batch("victim", 3)
    replica.have(victim)
    replica.fire("relay", after=250)
    for position in range(1, 4):
        replica.now += 300
        replica.order(position, batch(f"other{position}", 2))
    assert deadline(replica.state) == 1_250
    assert sent(replica.fire("watch", after=200), Suspect)


def test_commits_of_later_batches_do_not_serve_the_oldest_one():
    replica = Lone()
    first, second = refs("b", 2, 3)
    replica.have(first, second)
    replica.fire("relay", after=250)
    replica.now += 500
    replica.order(1, second)
    assert deadline(replica.state) == 1_250


def test_a_new_primary_has_his_own_time():
    replica = Lone(own=3)
    replica.have(batch("a", 2))
    replica.fire("relay", after=250)
    replica.now = 1_200
    votes = {index: view_change(index, 1) for index in (0, 1, 2)}
    for signer, vote in votes.items():
        replica.hear(signer, vote)
    replica.hear(1, new_view(1, votes))
    assert deadline(replica.state) is None
    out = replica.fire("relay", after=250)
    assert [one.to for one in out if isinstance(one, Offer)] == [1]
    assert deadline(replica.state) == 1_450 + replica.state.view_timer.timeout_ms


def test_a_full_window_is_nobodys_fault():
    replica = Lone(interval=2)
    for position in range(1, 5):
        replica.order(position, batch(f"b{position}", 2))
    replica.have(batch("waits", 2))
    replica.fire("relay", after=250)
    assert not sent(replica.fire("watch", after=5_000), Suspect)
    status = replica.engine.status()
    assert "window is full" in status.waiting_for
    assert status.waiting_on == (), "the replica knows whose votes are missing"
    replica.step(Stable(replica.now, checkpoint_at(4, [0, 1, 2], 4)))
    assert sent(replica.fire("watch", after=5_000), Suspect)


def test_a_proposal_that_is_not_decided_in_time_is_held_against_its_primary():
    replica = Lone()
    replica.hear(0, PrePrepare(0, 1, (batch("nowhere"),)))
    assert sent(replica.fire("watch", after=1_000), Suspect)


def test_a_timer_that_fires_early_only_looks():
    replica = Lone()
    replica.have(batch("a"))
    replica.fire("relay", after=250)
    assert not sent(replica.fire("watch", after=100), Suspect)
    assert "watch" in replica.state.armed
    assert not replica.fire("unknown")


def test_offers_are_bounded():
    replica = Lone()
    replica.have(*refs("b", 100, 2))
    offers = [one for one in replica.fire("relay", after=250) if isinstance(one, Offer)]
    assert [len(one.refs) for one in offers] == [64]
    assert [len(one.refs) for one in replica.fire("relay", after=1) if isinstance(one, Offer)] == [36]
