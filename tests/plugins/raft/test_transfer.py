"""Handing over the lead: the thesis' §3.10."""

from __future__ import annotations

from functools import partial

import pytest

from bftkit.core.inputs import Transfer
from bftkit_raft.messages import RequestVote, TimeoutNow
from bftkit_raft.state import Role
from tests.plugins.raft.lone import Lone, batch, sent, sent_to
from tests.plugins.raft.parts import elected, group_of, leader_of

T = 600
A, B = batch("a"), batch("b")


def leads(instance) -> bool:
    return bool(instance.engine.state.leads)


def leading() -> Lone:
    lone = Lone()
    lone.win()
    lone.accept(1, by=(1, 2))
    return lone


def test_a_target_that_has_everything_is_told_at_once():
    lone = leading()
    assert sent_to(lone.transfer(2), 2, TimeoutNow) == [TimeoutNow(1)]


def test_a_target_that_lags_is_told_when_it_has_caught_up():
    lone = leading()
    lone.have(A)
    assert sent(lone.transfer(2), TimeoutNow) == []
    lone.accept(2, by=(2,))
    assert sent_to(lone.fire("heartbeat", 50), 2, TimeoutNow) == [TimeoutNow(1)]
    assert sent_to(lone.fire("heartbeat", 50), 2, TimeoutNow) == [TimeoutNow(1)], "it may have been lost"


def test_nothing_is_appended_meanwhile():
    lone = leading()
    lone.transfer(2)
    lone.have(A)
    assert lone.state.log.last == 1
    assert "transfer" in lone.engine.status().waiting_for


def test_it_is_given_up_after_an_election_timeout():
    lone = leading()
    lone.transfer(2)
    lone.have(A)
    for _ in range(13):
        lone.fire("heartbeat", 50)
        lone.accept(1, by=(1, 2))
    assert lone.state.handover is None
    assert lone.state.log.last == 2, "what waited is appended"


def test_it_dies_with_its_term():
    """A leader that steps down and is elected again must not remember it (hashicorp/raft#696)."""
    lone = leading()
    lone.transfer(2)
    lone.now += T + 1
    lone.fire("heartbeat")
    assert lone.state.role is Role.FOLLOWER, "it has not heard a quorum"
    lone.win()
    assert lone.state.handover is None
    lone.have(A)
    assert lone.state.log.last == 3


@pytest.mark.parametrize("target", [0, 3, 99, -1])
def test_a_transfer_to_oneself_or_to_nobody_is_harmless(target):
    lone = leading()
    assert lone.transfer(target) == []
    assert lone.state.handover is None


def test_a_follower_hands_over_nothing():
    lone = Lone()
    lone.append(0, 0)
    assert lone.transfer(2) == []


def test_whoever_is_told_stands_at_once_and_says_why():
    lone = Lone(echo=False)
    lone.append(0, 0)
    (request,) = sent(lone.hear(1, TimeoutNow(1)), RequestVote)
    assert request == RequestVote(2, 0, 0, transfer=True)
    assert lone.state.role is Role.CANDIDATE


@pytest.mark.parametrize(("term", "sender"), [(1, 2)])
def test_only_the_leader_can_ask_for_it(term, sender):
    lone = Lone()
    lone.append(0, 0)
    assert lone.hear(sender, TimeoutNow(term)) == []
    lone.append(0, 0, term=3)
    assert lone.hear(1, TimeoutNow(term)) == [], "a late one of an earlier term"


@pytest.mark.parametrize("members", [2, 3, 5])
def test_the_lead_goes_round(members):
    group = group_of(members, seed=members)
    elected(group)
    for target in 2 * list(range(members)):
        leader = elected(group)
        group.run(200)
        group.step(leader, Transfer(group.now, target))
        group.submit(f"during {target} {group.now}", target)
        took = group.run_until(partial(leads, group.instances[target]), limit=2 * T)
        assert took < T, "no timeout runs out for it"
    everything = len(group.instances[0].bodies)
    group.run_until(lambda: all(len(one.decided) == everything for one in group.instances), limit=10_000)


def test_a_target_that_is_cut_off_costs_a_timeout():
    group = group_of(3)
    leader = elected(group)
    group.run(200)
    gone = (leader.number + 1) % 3
    group.crash(gone)
    group.step(leader, Transfer(group.now, gone))
    group.submit("a", leader.number)
    group.run_until(lambda: len(leader.decided) == 1, limit=2 * T)
    assert leader_of(group) is leader
