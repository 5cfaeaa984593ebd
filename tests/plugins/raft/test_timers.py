"""Timers, and the offers that one of them makes."""

from __future__ import annotations

from bftkit.core.outputs import CancelTimer, Offer, SetTimer
from tests.plugins.raft.lone import Lone, batch, entry
from tests.plugins.raft.parts import elected, group_of

A, B = batch("a"), batch("b", 1)


def offers(outputs) -> list[Offer]:
    return [one for one in outputs if isinstance(one, Offer)]


def test_a_follower_waits_for_an_election_and_a_leader_beats():
    lone = Lone()
    assert set(lone.timers) == {"election"}
    lone.win()
    assert set(lone.timers) == {"heartbeat"}
    lone.append(0, 0, term=9)
    assert set(lone.timers) == {"election"}


def test_no_message_moves_a_timer():
    lone = Lone()
    lone.append(0, 0, entry(1, A))
    for number in range(5):
        out = lone.append(1 + number, 1, entry(1, batch(f"m{number}")))
        assert not any(isinstance(one, SetTimer | CancelTimer) for one in out)


def test_what_the_leader_does_not_append_is_offered_to_it():
    lone = Lone()
    lone.append(0, 0)
    lone.have(A, B)
    assert "relay" in lone.timers
    assert offers(lone.fire("relay", 150)) == [Offer((A, B), 1)]
    assert offers(lone.fire("relay", 150)) == [], "once, for a while"
    lone.now += 450
    assert offers(lone.fire("relay")) == [Offer((A, B), 1)], "offers get lost"


def test_a_batch_that_is_appended_in_time_is_not_offered():
    lone = Lone()
    lone.append(0, 0)
    lone.have(A)
    lone.append(0, 0, entry(1, A))
    assert offers(lone.fire("relay", 150)) == []
    assert "relay" not in lone.timers


def test_the_next_leader_is_offered_what_waits():
    lone = Lone()
    lone.append(0, 0)
    lone.have(A)
    lone.fire("relay", 150)
    lone.append(0, 0, entry(1, A))
    lone.append(0, 0, entry(2), term=2, leader=2)
    lone.now += 200
    assert offers(lone.fire("relay")) == [Offer((A,), 2)]


def test_a_leader_that_steps_down_offers_what_it_had_not_appended():
    lone = Lone(in_flight=1, batches_per_entry=1)
    lone.win()
    lone.accept(1)
    lone.have(A, B)
    lone.append(0, 0, term=9, leader=2)
    lone.now += 150
    assert offers(lone.fire("relay")) == [Offer((B,), 2)]


def test_a_batch_that_only_a_follower_has_is_decided():
    group = group_of(3)
    leader = elected(group)
    group.submit("a", 0, [(leader.number + 1) % 3])
    group.run_until(lambda: all(len(one.decided) == 1 for one in group.instances), limit=2_000)
