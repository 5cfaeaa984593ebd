"""Reads: the thesis' §6.4, and leases (§6.4.1) with a stated bound on clocks."""

from __future__ import annotations

import pytest

from bftkit.core.inputs import Read
from bftkit_raft.messages import AppendEntries, AppendRejected, Reader, ReadIndex, ReadIndexReply, TimeoutNow
from bftkit_raft.roles import become_follower
from tests.plugins.raft.lone import Lone, batch, index_of, reads, sent, sent_to
from tests.plugins.raft.parts import elected, group_of, leader_of

T = 600
A, B = batch("a"), batch("b")


def leading(**options) -> Lone:
    """A leader that has committed the entry that begins its term."""
    lone = Lone(**options)
    lone.win(voters=range(1, lone.state.quorum.quorum))
    lone.accept(1, by=range(1, lone.members), round_=1)
    return lone


# --- ReadIndex at the leader (§6.4) -----------------------------------------------------------------------------------


def test_a_read_waits_for_one_round_of_heartbeats():
    lone = leading()
    lone.have(A)
    lone.accept(2)
    out = lone.read(7)
    assert reads(out) == []
    (heartbeat,) = sent_to(out, 1, AppendEntries)
    assert heartbeat.round == lone.state.round
    assert reads(lone.accept(2, round_=heartbeat.round - 1)) == [], "an answer to an earlier round is not enough"
    assert reads(lone.accept(2, round_=heartbeat.round)) == [(7, 2)]


def test_one_round_serves_all_reads_that_came_before_it():
    lone = leading()
    first = sent_to(lone.read(1), 1, AppendEntries)[0].round
    for token in (2, 3, 4):
        assert sent(lone.read(token), AppendEntries) == [], "they wait for the next round, all together"
    out = lone.accept(1, round_=first)
    assert reads(out) == [(1, 1)], "those that came after the round began are not confirmed by it"
    assert len(sent_to(out, 1, AppendEntries)) == 1
    assert reads(lone.accept(1, round_=lone.state.round)) == [(2, 1), (3, 1), (4, 1)]


def test_no_read_before_the_first_commit_of_the_term():
    """ "the leader has the latest information on which entries are committed ... [not] at the start of its term" """
    lone = Lone()
    lone.win()
    assert reads(lone.read(1)) == []
    assert reads(lone.accept(0, by=(1, 2), round_=lone.state.round)) == []
    out = lone.accept(1, round_=lone.state.round)
    assert reads(out) == [], "only now does its round begin"
    assert reads(lone.accept(1, round_=lone.state.round)) == [(1, 1)]


def test_a_member_alone_serves_at_once():
    lone = Lone(members=1)
    assert reads(lone.read(1)) == [(1, 1)]


def test_a_deposed_leader_serves_nothing():
    lone = leading()
    lone.read(1)
    lone.append(0, 0, term=5, leader=2)
    assert lone.state.reads.confirming is None
    (question,) = sent_to(lone.outputs, 2, ReadIndex)
    assert reads(lone.hear(2, ReadIndexReply(5, question.life, question.number, 9))) == [(1, 9)], "the next leader does"


def test_waiting_reads_are_bounded():
    lone = Lone(waiting_reads=3)
    for token in range(9):
        lone.read(token)
    assert lone.state.reads.tokens == [0, 1, 2]


# --- Followers (§6.4) -------------------------------------------------------------------------------------------------


def test_a_follower_asks_for_the_index():
    lone = Lone()
    lone.read(1)
    lone.read(2)
    out = lone.append(0, 0)
    (question,) = sent_to(out, 1, ReadIndex)
    assert lone.records[-1] == Reader(1)
    lone.read(3)
    assert reads(lone.hear(1, ReadIndexReply(1, 1, question.number, 5))) == [(1, 5), (2, 5)]
    assert sent_to(lone.outputs, 1, ReadIndex)[-1].number == question.number + 1, "the third has a question of its own"


def test_a_question_is_behind_the_record_of_its_life():
    lone = Lone()
    lone.append(0, 0)
    out = lone.read(1)
    assert index_of(out, type(out[0]), Reader) == 0


def test_a_question_is_repeated_until_it_is_answered():
    lone = Lone()
    lone.append(0, 0)
    (question,) = sent(lone.read(1), ReadIndex)
    assert "read" in lone.timers
    assert sent(lone.fire("read", 200), ReadIndex) == [question]
    lone.hear(1, ReadIndexReply(1, question.life, question.number, 0))
    assert sent(lone.fire("read", 200), ReadIndex) == []


@pytest.mark.parametrize(("life", "number"), [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_answers_to_other_questions_are_ignored(life, number):
    lone = Lone()
    lone.append(0, 0)
    lone.read(1)
    assert reads(lone.hear(1, ReadIndexReply(1, life, number, 3))) == []


def test_an_answer_to_an_earlier_life_is_ignored():
    lone = Lone()
    lone.append(0, 0)
    (question,) = sent(lone.read(1), ReadIndex)
    again = lone.again()
    again.append(0, 0)
    again.read(1)
    assert reads(again.hear(1, ReadIndexReply(1, question.life, question.number, 0))) == []
    assert again.state.reads.life == 2


def test_the_next_leader_is_asked_when_the_first_is_gone():
    lone = Lone()
    lone.append(0, 0)
    lone.read(1)
    out = lone.append(0, 0, term=4, leader=2)
    assert len(sent_to(out, 2, ReadIndex)) == 1


def test_a_leader_confirms_for_its_followers():
    lone = leading()
    out = lone.hear(2, ReadIndex(1, 4, 9))
    lone.hear(2, ReadIndex(1, 4, 9))
    assert sent(out, ReadIndexReply) == []
    out = lone.accept(1, round_=lone.state.round)
    assert sent_to(out, 2, ReadIndexReply) == [ReadIndexReply(1, 4, 9, 1)]
    lone.accept(1, by=(1, 2), round_=lone.state.round)
    for number in range(20):
        lone.hear(2, ReadIndex(1, 4, 10 + number))
    assert len(lone.state.reads.questions) <= 4


def test_who_does_not_lead_answers_nothing():
    lone = Lone()
    lone.append(0, 0)
    assert lone.hear(2, ReadIndex(1, 1, 1)) == []
    assert lone.state.reads.questions == []


def test_reads_of_all_members_are_served_in_a_group():
    group = group_of(5, seed=3)
    group.delay_ms, group.loss = (1, 20), 0.1
    for number in range(20):
        group.submit(f"b{number}", number % 5)
        for member in range(5):
            group.step(group.instances[member], Read(group.now, 100 * number + member))
        group.run(50)
    group.run_until(lambda: len(group.reads) == 100, limit=20_000)


# --- Leases (§6.4.1) --------------------------------------------------------------------------------------------------


def leased(**options) -> Lone:
    lone = leading(lease_reads=True, **options)
    lone.fire("heartbeat", 50)
    lone.now += 30
    lone.accept(1, round_=lone.state.round)
    return lone


def test_within_its_lease_a_leader_serves_without_asking():
    lone = leased()
    out = lone.read(1)
    assert reads(out) == [(1, 1)]
    assert sent(out, AppendEntries) == []


def test_the_lease_counts_from_when_the_heartbeat_was_sent():
    """T by a clock that may be 10 % fast, counted by one that may be 10 % slow: T * 90 / 110, from the sending."""
    lone = leased()
    lone.now += 490 - 30 - 1
    assert reads(lone.read(1)) == [(1, 1)]
    lone.now += 1
    assert reads(lone.read(2)) == []


def test_a_wider_bound_on_clocks_makes_leases_shorter():
    lone = leased(clock_drift_percent=50)
    lone.now += 200 - 30
    assert reads(lone.read(1)) == []


def test_without_the_option_there_is_no_lease():
    lone = leading()
    lone.fire("heartbeat", 50)
    lone.accept(1, round_=lone.state.round)
    assert reads(lone.read(1)) == []


def test_a_lease_ends_for_good_when_another_is_told_to_stand():
    lone = leased()
    out = lone.transfer(1)
    assert len(sent(out, TimeoutNow)) == 1
    assert reads(lone.read(1)) == []
    lone.now += T
    lone.accept(1, by=(1, 2), round_=lone.state.round)
    lone.fire("heartbeat", 50)
    assert lone.state.handover is None
    lone.accept(1, by=(1, 2), round_=lone.state.round)
    assert reads(lone.read(2)) == [], "the target may stand at any later time"


def test_a_lease_dies_with_the_lead():
    lone = leased()
    become_follower(lone.state, None)
    assert lone.state.lease_from is None


def test_a_promise_outlives_the_term_in_which_it_was_given():
    """A rejection of an earlier time brings a later term: the leader that was heard may still serve reads."""
    lone = Lone(lease_reads=True)
    lone.append(0, 0, term=2, leader=1)
    lone.now += 1
    lone.hear(3, AppendRejected(3, 0, 0, 1, 0))
    assert (lone.state.term, lone.state.leader) == (3, None)
    assert not lone.ask(2, 4, 9, 2, pre=True).granted
    assert not lone.ask(2, 5, 9, 2).granted
    assert lone.ask(2, 6, 9, 2, transfer=True).granted, "its leader has ended the lease itself"
    lone.now += T - 1
    assert lone.ask(2, 7, 9, 2).granted


def test_without_leases_a_later_term_ends_everything():
    lone = Lone()
    lone.append(0, 0, term=2, leader=1)
    lone.hear(3, AppendRejected(3, 0, 0, 1, 0))
    assert lone.ask(2, 4, 9, 2).granted


def test_rounds_that_nobody_asks_about_are_forgotten():
    lone = leading(lease_reads=True)
    for _ in range(200):
        lone.fire("heartbeat", 50)
        lone.accept(1, by=(1, 2), round_=lone.state.round)
    assert len(lone.state.round_sent_at) <= 600 // 50 + 1
    assert reads(lone.read(1)) == [(1, 1)]


def test_with_leases_a_restarted_member_neither_votes_nor_stands_for_a_while():
    """One longest election timeout and the drift of its clock: 2 T * 1.1."""
    lone = Lone(lease_reads=True)
    lone.append(0, 0)
    again = lone.again(lease_reads=True)
    assert not again.ask(2, 5, 9, 4, pre=True).granted
    assert not again.ask(2, 5, 9, 4).granted
    assert again.timers["election"][0] - again.now == 1_320
    assert again.ask(2, 6, 9, 4, transfer=True).granted, "the leader has ended its lease itself"
    again.now += 1_320
    assert again.ask(2, 7, 9, 4).granted


def test_a_first_start_waits_for_nothing():
    lone = Lone(lease_reads=True)
    assert lone.ask(2, 1, 0, 0).granted


def test_groups_with_leases_elect_and_serve():
    group = group_of(3, seed=2, lease_reads=True)
    leader = elected(group)
    group.run(200)
    group.step(leader, Read(group.now, 1))
    assert [answer.token for _, answer in group.reads] == [1]
    group.crash(leader.number)
    group.run_until(lambda: (now := leader_of(group)) is not None and now is not leader, limit=6 * T)
