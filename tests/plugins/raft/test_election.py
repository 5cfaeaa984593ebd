"""Elections: what the thesis says in §3.4, §3.6.1, §4.2.3, §6.2 and §9.6."""

from __future__ import annotations

import pytest

from bftkit.core.outputs import Persist, Send, SetTimer
from bftkit_raft.messages import AppendEntries, AppendRejected, HardState, RequestVote, Vote
from bftkit_raft.state import Role
from tests.plugins.raft.lone import Lone, entry, index_of, log_of, sent
from tests.plugins.raft.parts import elected, group_of, leader_of

T = 600


# --- "If a follower receives no communication over a period of time called the election timeout" (§3.4) -------------


def test_a_follower_waits_between_one_and_two_timeouts():
    lone = Lone()
    lone.append(0, 0)
    out = lone.fire("election", 100)
    assert sent(out, RequestVote) == [], "the leader was heard 100 ms ago"
    (again,) = [one for one in out if isinstance(one, SetTimer)]
    assert (again.delay_ms, again.jitter_ms) == (T - 100, T)
    assert sent(lone.fire("election", T - 100), RequestVote) != []


def test_it_first_asks_and_then_stands():
    lone = Lone(echo=False)
    (request,) = sent(lone.fire("election", 2 * T), RequestVote)
    assert request == RequestVote(1, 0, 0, pre=True)
    assert (lone.state.term, lone.state.vote, lone.records) == (0, None, []), "asking changes nothing"
    lone.hear(0, Vote(0, 1, granted=True, pre=True))
    out = lone.hear(1, Vote(0, 1, granted=True, pre=True))
    assert lone.records == [HardState(1, 0)], "term and vote are one record"
    assert sent(out, RequestVote) == [RequestVote(1, 0, 0)]
    lone.hear(0, Vote(1, 1, granted=True))
    assert lone.state.role is Role.CANDIDATE
    lone.hear(2, Vote(1, 1, granted=True))
    assert lone.state.role is Role.LEADER


def test_the_request_for_a_vote_is_behind_the_record_of_the_own_vote():
    lone = Lone(echo=False)
    lone.fire("election", 2 * T)
    lone.hear(0, Vote(0, 1, granted=True, pre=True))
    out = lone.hear(1, Vote(0, 1, granted=True, pre=True))
    assert isinstance(out[0], Persist)
    assert not any(getattr(one, "early", False) for one in out)


def test_votes_of_one_member_count_once_and_only_for_what_was_asked():
    lone = Lone(members=5)
    lone.fire("election", 2 * T)
    for _ in range(3):
        lone.hear(1, Vote(0, 1, granted=True, pre=True))
    assert lone.state.role is Role.PRE_CANDIDATE
    lone.hear(2, Vote(0, 1, granted=False, pre=True))
    lone.hear(3, Vote(0, 7, granted=True, pre=True))
    lone.hear(3, Vote(1, 1, granted=True))
    assert lone.state.role is not Role.LEADER


def test_a_member_alone_leads_by_itself():
    lone = Lone(members=1)
    assert lone.state.role is Role.LEADER
    assert lone.state.commit == 1, "with the entry that begins its term"
    assert "heartbeat" not in lone.timers


# --- "each server will vote for at most one candidate in a given term, on a first-come-first-served basis" (§3.4) -----


def test_one_vote_in_a_term():
    lone = Lone()
    assert lone.ask(1, 1, 0, 0).granted
    assert not lone.ask(2, 1, 0, 0).granted
    assert lone.ask(1, 1, 0, 0).granted, "the answer may have been lost"
    assert lone.ask(2, 2, 0, 0).granted, "in another term there is another vote"


def test_the_vote_is_durable_before_it_is_heard_of():
    lone = Lone()
    out = lone.hear(1, RequestVote(3, 0, 0))
    assert index_of(out, Persist, HardState) < index_of(out, Send, Vote)
    assert lone.records == [HardState(3, 1)]
    again = lone.again()
    assert (again.state.term, again.state.vote) == (3, 1)
    assert not again.ask(2, 3, 0, 0).granted


def test_a_later_term_is_durable_also_without_a_vote():
    lone = Lone()
    lone.append(0, 0, entry(1))
    lone.now += 2 * T
    assert not lone.ask(2, 9, 0, 0).granted
    assert lone.again().state.term == 9


# --- "the voter denies its vote if its own log is more up-to-date than that of the candidate" (§3.6.1) ---------------


@pytest.mark.parametrize(
    ("last", "last_term", "granted"),
    [(3, 2, True), (9, 2, True), (1, 3, True), (2, 2, False), (9, 1, False), (0, 0, False)],
)
def test_the_election_restriction(last, last_term, granted):
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1), entry(2), term=2)
    lone.now += 2 * T
    assert lone.ask(2, 5, last, last_term, pre=True).granted is granted
    assert lone.ask(2, 5, last, last_term).granted is granted


# --- Pre-vote (§9.6) --------------------------------------------------------------------------------------------------


def test_granting_a_question_changes_nothing():
    lone = Lone()
    lone.append(0, 0, entry(1))
    lone.now += 2 * T
    before = (lone.state.term, lone.state.vote, lone.state.quiet_since, dict(lone.timers), list(lone.records))
    out = lone.hear(2, RequestVote(2, 5, 1, pre=True))
    assert out == [Send(2, Vote(1, 2, granted=True, pre=True))]
    assert before == (lone.state.term, lone.state.vote, lone.state.quiet_since, dict(lone.timers), list(lone.records))
    assert lone.ask(0, 2, 5, 1, pre=True).granted, "one may be granted to each"


def test_a_refusal_carries_the_own_term_and_the_candidate_takes_it_over():
    """The longest log at a low term, a short one at a high term: neither may wait for the other for ever."""
    longest, other = Lone(0), Lone(1)
    longest.append(0, 0, entry(1), entry(1), term=1, leader=2)
    other.append(0, 0, entry(1), term=1, leader=2)
    other.now += 2 * T
    other.ask(2, 9, 5, 1)
    longest.fire("election", 2 * T)
    refusal = other.ask(0, 2, 2, 1, pre=True)
    assert refusal == Vote(9, 2, granted=False, pre=True)
    longest.hear(1, refusal)
    assert longest.state.term == 9
    (request,) = sent(longest.fire("election", 2 * T), RequestVote)
    assert request.term == 10
    other.now += 2 * T
    assert other.ask(0, 10, 2, 1, pre=True).granted


def test_a_member_that_was_away_disturbs_nobody():
    group = group_of(3)
    leader = elected(group)
    term, away = leader.engine.state.term, (leader.number + 1) % 3
    group.deliverable = lambda sender, receiver, what: away not in (sender, receiver)
    group.run(20 * T)
    assert group.instances[away].engine.state.term == term, "asking raises no term"
    group.deliverable = None
    group.run(5 * T)
    assert leader_of(group) is leader
    assert leader.engine.state.term == term


# --- Stickiness (§4.2.3) ----------------------------------------------------------------------------------------------


def test_whoever_hears_a_leader_ignores_candidates():
    lone = Lone()
    lone.append(0, 0, entry(1))
    lone.now += T - 1
    for pre in (True, False):
        assert lone.ask(2, 7, 9, 6, pre=pre) == Vote(1, 7, granted=False, pre=pre)
    assert (lone.state.term, lone.records[0]) == (1, HardState(1, None))
    assert lone.ask(2, 7, 9, 6, transfer=True).granted, "unless the leader itself has asked for the election"


def test_a_leader_that_has_restarted_may_be_elected_again_at_once():
    lone = Lone()
    lone.append(0, 0, entry(1), leader=1)
    assert lone.ask(1, 2, 1, 1, pre=True).granted
    assert lone.ask(1, 2, 1, 1).granted
    group = group_of(3)
    leader = elected(group)
    group.run(200)
    group.crash(leader.number)
    group.run(1)
    group.restart(leader.number)
    assert group.run_until(lambda: leader_of(group) is not None, limit=2 * T) < 2 * T


def test_a_leader_ignores_candidates():
    lone = Lone()
    lone.win()
    assert not lone.ask(2, 7, 9, 6).granted
    assert lone.state.role is Role.LEADER


# --- Check-quorum (§6.2) ----------------------------------------------------------------------------------------------


def test_a_leader_that_hears_no_quorum_steps_down():
    lone = Lone(members=5)
    lone.win(voters=(1, 2))
    for _ in range(20):
        lone.accept(0, by=(1, 2))
        lone.fire("heartbeat", 50)
    assert lone.state.role is Role.LEADER
    for _ in range(13):
        lone.accept(0, by=(1,))
        lone.fire("heartbeat", 50)
    assert lone.state.role is Role.FOLLOWER
    assert "heartbeat" not in lone.timers
    assert "election" in lone.timers


def test_a_leader_that_is_not_heard_back_steps_down_and_others_go_on():
    group = group_of(3)
    old = elected(group)
    group.deliverable = lambda sender, receiver, what: receiver != old.number
    group.run(2 * T)
    assert not old.engine.state.leads
    assert elected(group) is not old


# --- Terms (§3.3) -----------------------------------------------------------------------------------------------------


def test_a_leader_of_an_earlier_term_is_told_so():
    lone = Lone()
    lone.append(0, 0, term=5)
    out = lone.append(0, 0, entry(3), term=3, leader=2)
    assert sent(out, AppendRejected) == [AppendRejected(5, 0, 0, 0, 0)]
    assert log_of(lone) == []


def test_a_leader_steps_down_for_a_later_term():
    lone = Lone()
    lone.win()
    lone.hear(2, AppendRejected(9, 0, 0, 0, 0))
    assert (lone.state.role, lone.state.term, lone.state.vote) == (Role.FOLLOWER, 9, None)
    assert lone.records[-1] == HardState(9, None)


def test_a_candidate_follows_who_was_elected():
    lone = Lone()
    lone.fire("election", 2 * T)
    lone.hear(1, Vote(0, 1, granted=True, pre=True))
    assert lone.state.role is Role.CANDIDATE
    lone.append(0, 0, term=1, leader=2)
    assert (lone.state.role, lone.state.leader) == (Role.FOLLOWER, 2)


def test_the_second_leader_of_a_term_is_reported():
    lone = Lone()
    lone.append(0, 0, leader=1)
    out = lone.hear(2, AppendEntries(1, 0, 0, (entry(1),), 0, 1))
    assert "second leader" in out[0].reason
    assert log_of(lone) == []


@pytest.mark.parametrize("members", [2, 3, 4, 5, 7])
def test_a_group_of_any_size_elects_one(members):
    group = group_of(members, seed=members)
    leader = elected(group)
    group.run(300)
    assert {one.engine.state.leader for one in group.instances} == {leader.number}


@pytest.mark.parametrize("members", [3, 5])
def test_the_next_is_elected_soon_after_a_crash(members):
    group = group_of(members, seed=1)
    group.submit("a")
    first = elected(group)
    group.crash(first.number)
    took = group.run_until(lambda: (now := leader_of(group)) is not None and now is not first, limit=4 * T)
    assert took >= T // 2
