"""What a member knows after a crash: the thesis' §3.8, "persistent state"."""

from __future__ import annotations

import pytest

from bftkit_raft.messages import Appended, HardState, Reader, Snapshot
from bftkit_raft.state import Role
from tests.plugins.raft.lone import Lone, batch, commits, entry, log_of
from tests.plugins.raft.parts import checkpoint_at, group_of

A, B, C = (batch(name) for name in "abc")


def test_term_vote_and_log_come_back():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(2, B), term=2)
    lone.now += 2_000
    lone.ask(2, 6, 9, 5)
    again = lone.again()
    assert (again.state.term, again.state.vote, log_of(again)) == (6, 2, [1, 1, 2])
    assert again.state.role is Role.FOLLOWER
    assert again.state.commit == 0, "what is committed is learnt anew"
    assert again.state.held == {A.digest: A, B.digest: B}
    assert again.state.ordered == {A.digest: 2, B.digest: 3}


def test_records_are_replayed_in_their_order():
    records = [
        HardState(1, None),
        Appended(1, 0, (entry(1), entry(1, A), entry(1, B))),
        HardState(3, 2),
        Appended(2, 1, (entry(3, C),)),
        Reader(4),
    ]
    lone = Lone(records=records)
    assert [one.refs for one in lone.state.log.entries] == [(), (C,)]
    assert (lone.state.term, lone.state.vote, lone.state.reads.life) == (3, 2, 4)
    assert lone.state.log.highest_term == 3


@pytest.mark.parametrize("previous_term", [0, 7])
def test_a_gap_in_the_records_is_what_was_learnt_by_other_means(previous_term):
    records = [HardState(9, None), Appended(1, 0, (entry(1), entry(1, A))), Appended(6, previous_term, (entry(8, B),))]
    lone = Lone(records=records)
    log = lone.state.log
    assert (log.base, log.base_term, log_of(lone)) == (5, previous_term, [8])


def test_entries_that_contradict_what_was_learnt_are_gone():
    records = [HardState(9, None), Appended(1, 0, (entry(1), entry(1, A), entry(1, B))), Appended(3, 4, (entry(8, C),))]
    lone = Lone(records=records)
    assert (lone.state.log.base, lone.state.log.base_term, log_of(lone)) == (2, 4, [8])


def test_a_checkpoint_replaces_what_was_before():
    snapshot = Snapshot(5, 1, 8, 4, 5, 2, (entry(5, A),))
    lone = Lone(records=[snapshot, Appended(10, 5, (entry(5, B),))], checkpoint=checkpoint_at(8))
    assert (lone.state.term, lone.state.vote, lone.state.low, lone.state.commit) == (5, 1, 8, 8)
    assert (lone.state.log.base, lone.state.log.base_term, lone.state.log.last) == (8, 4, 10)


def test_what_it_had_decided_is_told_by_its_replica():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(1, B), commit=2)
    again = lone.again()
    assert commits(again.synced(2, term=1, refs=(A,))) == []
    assert again.state.commit == 2
    assert commits(again.append(3, 1, entry(1), commit=4)) == [3, 4]


def test_its_first_question_comes_soon_and_harms_nobody():
    lone = Lone()
    due, jitter = lone.timers["election"]
    assert due - lone.now == 100
    assert jitter == 600


@pytest.mark.parametrize("seed", range(5))
def test_a_group_whose_members_all_crash_goes_on(seed):
    group = group_of(3, seed)
    for number in range(6):
        group.submit(f"b{number}", number % 3)
        group.run(400 + 37 * seed)
        for member in range(3):
            group.crash(member)
        for member in range(3):
            group.restart(member)
    group.run_until(lambda: all(len(one.decided) == 6 for one in group.instances), limit=20_000)
