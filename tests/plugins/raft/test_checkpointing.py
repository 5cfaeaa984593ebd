"""Compaction at stable checkpoints, and what was decided by other means: the thesis' §5, and what differs."""

from __future__ import annotations

import pytest

from bftkit.core.inputs import Available, Received, Sealed
from bftkit.core.outputs import Persist
from bftkit_raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    HardState,
    RequestVote,
    Snapshot,
    Vote,
)
from bftkit_raft.state import Role
from tests.plugins.raft.lone import Lone, batch, commits, entry, log_of, reads, sent
from tests.plugins.raft.parts import checkpoint_at

A, B, C, D = (batch(name) for name in "abcd")


def following(*terms: int, term: int = 5, commit: int = 0, **options) -> Lone:
    lone = Lone(**options)
    lone.append(0, 0, *map(entry, terms), term=term, commit=commit)
    return lone


# --- Compaction (§5.1) ------------------------------------------------------------------------------------------------


def test_a_stable_checkpoint_compacts_the_log():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(2, B), entry(2, C), term=2, commit=3)
    (persist,) = [one for one in lone.stable(2) if isinstance(one, Persist)]
    assert persist == Persist(Snapshot(2, None, 2, 1, 2, 0, (entry(2, B), entry(2, C))), replaces_earlier=True)
    assert lone.again(checkpoint_at(2)).state.log.base == 2
    assert A.digest not in lone.state.held
    assert A.digest not in lone.state.ordered
    assert lone.append(4, 2, entry(2), term=2)
    assert lone.state.log.last == 5


def test_in_memory_a_window_of_entries_stays_for_those_who_lag():
    lone = Lone(interval=2, window_factor=2)
    for number in range(12):
        lone.append(number, min(number, 1), entry(1, batch(f"m{number}")), commit=number + 1)
        if number % 2:
            lone.stable(number + 1)
    assert (lone.state.low, lone.state.log.base, lone.state.log.last) == (12, 8, 12)
    assert (lone.state.held, lone.state.ordered) == ({}, {}), "but their batches are let go"


def test_the_record_holds_the_vote_too():
    lone = Lone()
    lone.append(0, 0, entry(1), commit=1)
    lone.now += 2_000
    lone.ask(2, 4, 9, 3)
    lone.stable(1)
    again = lone.again(checkpoint_at(1))
    assert (again.state.term, again.state.vote) == (4, 2)
    assert not again.ask(1, 4, 9, 3).granted


def test_an_earlier_checkpoint_changes_nothing():
    lone = following(1, 1, 1, commit=3)
    lone.stable(3)
    assert lone.stable(2) == []
    assert lone.state.low == 3


# --- Decided by other means -------------------------------------------------------------------------------------------


def test_what_the_log_holds_is_not_dropped():
    lone = following(1, 2, 2, commit=1)
    out = lone.synced(2, term=2)
    assert commits(out) == []
    assert (lone.state.commit, lone.state.log.base, log_of(lone)) == (2, 0, [1, 2, 2])


def test_the_log_begins_anew_behind_what_it_does_not_hold():
    lone = following(1, 1)
    lone.synced(9, term=4)
    assert (lone.state.log.base, lone.state.log.base_term, lone.state.log.last_term) == (9, 4, 4)
    lone.append(9, 4, entry(5), term=5)
    assert log_of(lone.again()) == [5]
    assert lone.again().state.log.base == 9


def test_what_contradicts_a_decision_is_dropped_with_all_behind_it():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(1, B), entry(1, C))
    lone.synced(2, term=3, refs=(D,))
    assert (lone.state.log.base, lone.state.log.base_term, log_of(lone)) == (2, 3, [])
    assert lone.state.term == 3, "no log holds an entry of a term that its owner has not reached"
    assert list(lone.state.pending) == [B, C, A], "they wait for another entry"
    lone.append(2, 3, entry(4, A), term=4, leader=2)
    assert (lone.again().state.log.base, log_of(lone.again())) == (2, [4])


def test_acknowledged_entries_stay_while_the_term_of_a_decision_is_not_known():
    lone = following(1, 2, 2, 2, commit=1)
    lone.synced(3)
    assert (lone.state.log.base, lone.state.log.base_term, log_of(lone)) == (3, 0, [2])
    assert lone.state.log.last_term == 2


def test_a_leader_steps_down_when_others_decide_what_it_does_not_hold():
    lone = Lone()
    lone.win()
    lone.synced(7, term=1)
    assert lone.state.role is Role.FOLLOWER
    assert lone.state.log.base == 7


def test_a_leader_goes_on_when_it_holds_what_others_know_to_be_decided():
    lone = following(1, 1, term=1)
    lone.win()
    lone.synced(2, term=1)
    assert lone.state.role is Role.LEADER
    assert lone.state.commit == 2
    assert commits(lone.accept(3)) == [3]


def test_the_leader_hears_how_far_its_follower_is():
    lone = following(1, term=1)
    assert sent(lone.synced(6), AppendAccepted) == [AppendAccepted(1, 6, 1)]


def test_what_is_decided_waits_no_longer():
    lone = Lone()
    lone.have(A, B)
    lone.synced(1, term=1, refs=(A,))
    assert list(lone.state.pending) == [B]
    assert A.digest not in lone.state.held


# --- A transferred state says nothing of terms ------------------------------------------------------------------------


def test_behind_a_transferred_state_a_member_votes_with_the_highest_term_that_it_held():
    """It has acknowledged entries of term 5; a log that ends in term 4, however long, may lack them."""
    lone = following(1, 5, 5)
    lone.synced(20)
    lone.now += 2_000
    assert lone.state.log.last_term == 5
    assert not lone.ask(2, 7, 99, 4).granted
    assert not lone.ask(2, 7, 19, 5).granted
    assert lone.ask(2, 7, 20, 5).granted


def test_it_is_durable_with_the_next_checkpoint():
    lone = following(1, 5, 5)
    lone.synced(20)
    lone.stable(20)
    again = lone.again(checkpoint_at(20))
    assert (again.state.log.base, again.state.log.base_term, again.state.log.last_term) == (20, 0, 5)


def test_a_crash_between_the_state_and_its_record_forgets_nothing():
    lone = following(1, 5, 5)
    again = lone.again(checkpoint_at(20))
    assert (again.state.log.base, again.state.log.last_term) == (20, 5)
    again = lone.again(checkpoint_at(2))
    assert (again.state.log.base, again.state.log.base_term, log_of(again)) == (2, 0, [5])


def test_an_unknown_term_matches_nobody_who_has_not_decided_as_far():
    """A follower whose own entry there has, by chance, the term that was guessed, must not take it for the same."""
    leader = following(1, 5, 5)
    leader.synced(20)
    leader.win()
    (probe,) = [one for one in sent(leader.outputs, AppendEntries) if one.entries][-1:]
    assert (probe.previous_position, probe.previous_term) == (20, 0)
    stale = Lone(1)
    stale.append(0, 0, *(entry(5) for _ in range(20)), term=5, leader=2)
    out = stale.step(Received(stale.now, 0, probe))
    assert len(sent(out, AppendRejected)) == 1
    decided = Lone(1)
    decided.synced(20)
    assert decided.step(Received(decided.now, 0, probe))
    assert decided.state.log.last == 21


# --- The end of an epoch ----------------------------------------------------------------------------------------------


def test_behind_the_end_nothing_is_said():
    lone = Lone()
    lone.win()
    lone.accept(1)
    out = lone.step(Sealed(lone.now, 1))
    assert "heartbeat" not in lone.timers
    assert sent(out, AppendEntries) == []
    assert lone.step(Available(lone.now, (A,))) == []
    assert lone.hear(1, RequestVote(9, 9, 8)) == []
    assert lone.hear(1, AppendEntries(9, 1, 1, (), 1, 1)) == []
    assert lone.hear(1, Vote(9, 9, granted=True)) == []
    assert reads(lone.read(1)) == []
    assert lone.engine.status().mode == "sealed"
    lone.synced(4, term=1)
    assert lone.state.commit == 4
    assert lone.records[-1] != HardState(9, None)


@pytest.mark.parametrize("role", ["leader", "follower", "candidate"])
def test_whatever_it_was_it_stops(role):
    lone = Lone()
    if role == "leader":
        lone.win()
    elif role == "candidate":
        lone.fire("election", 1_200)
    lone.step(Sealed(lone.now, 0))
    assert not {"election", "heartbeat"} & set(lone.timers)
