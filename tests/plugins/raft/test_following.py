"""What a follower does with its leader's log: the thesis' §3.5, and bodies that come late."""

from __future__ import annotations

import pytest

from bftkit.core.outputs import Behind, Persist, Send, Want
from bftkit_raft.messages import AppendAccepted, Appended, AppendEntries, AppendRejected, SnapshotNeeded
from tests.plugins.raft.lone import Lone, batch, commits, entry, index_of, log_of, sent

A, B, C = batch("a"), batch("b"), batch("c")

# --- Fig. 3.1, AppendEntries RPC ------------------------------------------------------------------------------------


def test_the_acknowledgement_is_behind_the_record_of_the_entries():
    lone = Lone()
    lone.have(A)
    out = lone.hear(1, AppendEntries(1, 0, 0, (entry(1, A),), 0, 4))
    assert index_of(out, Persist, Appended) < index_of(out, Send, AppendAccepted)
    assert sent(out, AppendAccepted) == [AppendAccepted(1, 1, 4)]
    assert not any(getattr(one, "early", False) for one in out)
    assert log_of(lone.again()) == [1]


def test_entries_are_refused_where_the_log_before_them_is_another():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(2), entry(2), term=3)
    out = lone.append(3, 3, entry(4), term=4, leader=2)
    assert sent(out, AppendRejected) == [AppendRejected(4, 3, 2, 2, 1)], "the first position of the term that conflicts"
    out = lone.append(7, 3, entry(4), term=4, leader=2)
    assert sent(out, AppendRejected) == [AppendRejected(4, 7, 0, 4, 1)], "the position behind the last"
    assert log_of(lone) == [1, 2, 2]


def test_a_conflicting_entry_goes_with_all_that_follow_it():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(1, B))
    lone.append(1, 1, entry(2, C), term=2, leader=2)
    assert log_of(lone) == [1, 2]
    assert [ref.digest for ref in lone.state.pending] == [A.digest, B.digest], "they wait for another entry"
    assert log_of(lone.again()) == [1, 2]


def test_a_late_message_truncates_nothing_that_came_after_it():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(1, B))
    out = lone.append(0, 0, entry(1), entry(1, A))
    assert log_of(lone) == [1, 1, 1]
    assert not any(isinstance(one, Persist) for one in out)
    assert sent(out, AppendAccepted)[0].position == 3


def test_what_is_decided_is_never_truncated():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), commit=2)
    out = lone.append(1, 1, entry(2, B), term=2, leader=2)
    assert out[-1:] != [] and sent(out, AppendAccepted) == [], "such a leader was deposed, and does not know"
    assert log_of(lone) == [1, 1]
    lone.append(0, 0, entry(2), term=2, leader=2)
    assert log_of(lone) == [1, 1]


def test_it_commits_what_is_the_leaders_and_no_more():
    """ "set commitIndex = min(leaderCommit, index of last new entry)" """
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A), entry(1, B))
    out = lone.append(1, 1, term=2, commit=3, leader=2)
    assert commits(out) == [1], "positions 2 and 3 may not be the new leader's"
    assert commits(lone.append(1, 1, entry(1, A), term=2, commit=3, leader=2)) == [2]
    assert commits(lone.append(2, 1, entry(2, C), term=2, commit=9, leader=2)) == [3]
    assert lone.state.log.term_at(3) == 2


def test_entries_that_arrive_in_a_wrong_order_are_refused_and_come_again():
    lone = Lone()
    lone.have(A, B)
    out = lone.hear(1, AppendEntries(1, 2, 1, (entry(1, B),), 0, 1))
    assert sent(out, AppendRejected)[0].conflict_position == 1
    lone.append(0, 0, entry(1), entry(1, A))
    lone.append(2, 1, entry(1, B))
    assert log_of(lone) == [1, 1, 1]


@pytest.mark.parametrize(
    "terms",
    [
        [1, 1, 1, 4, 4, 5, 5, 6, 6],
        [1, 1, 1, 4],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 1, 4, 4, 4, 4],
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ],
    ids="abcdef",
)
def test_the_followers_of_the_figure_become_like_their_leader(terms):
    """Raft paper Fig. 7, thesis Fig. 3.6: missing entries, extra entries, or both, over several terms."""
    theirs = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    leader, follower = Lone(0, interval=16), Lone(1, interval=16)
    leader.append(0, 0, *map(entry, theirs), term=7, leader=2)
    follower.append(0, 0, *map(entry, terms), term=7, leader=2)
    leader.win()
    assert leader.state.term == 8
    outputs = leader.fire("heartbeat", 50)
    for _ in range(30):
        answers = []
        for message in [one.message for one in outputs if isinstance(one, Send) and one.to == 1]:
            answers += [one.message for one in follower.hear(0, message) if isinstance(one, Send)]
        if log_of(follower) == [*theirs, 8]:
            break
        outputs = [out for answer in answers for out in leader.hear(1, answer)]
    assert log_of(follower) == log_of(leader) == [*theirs, 8]


# --- Bodies ---------------------------------------------------------------------------------------------------------


def test_an_entry_waits_for_the_body_of_its_batch():
    lone = Lone()
    lone.have(A)
    out = lone.hear(1, AppendEntries(1, 0, 0, (entry(1), entry(1, A), entry(1, B), entry(1)), 4, 2))
    assert log_of(lone) == [1, 1], "complete as far as the first that is missing"
    assert sent(out, AppendAccepted) == [AppendAccepted(1, 2, 2)]
    (want,) = [one for one in out if isinstance(one, Want)]
    assert (want.refs, want.sources[0]) == ((B,), 1)
    assert commits(out) == [1, 2]
    out = lone.have(B)
    assert log_of(lone) == [1, 1, 1, 1]
    assert sent(out, AppendAccepted) == [AppendAccepted(1, 4, 2)]
    assert index_of(out, Persist, Appended) < index_of(out, Send, AppendAccepted)
    assert commits(out) == [3, 4]


def test_what_is_deferred_can_be_continued():
    lone = Lone()
    lone.hear(1, AppendEntries(1, 0, 0, (entry(1), entry(1, B)), 0, 1))
    out = lone.hear(1, AppendEntries(1, 2, 1, (entry(1, A),), 0, 1))
    assert sent(out, AppendRejected) == []
    lone.hear(1, AppendEntries(1, 0, 0, (entry(1), entry(1, B), entry(1, A), entry(1)), 0, 2))
    assert len(lone.state.deferred) == 3
    lone.have(A, B)
    assert log_of(lone) == [1, 1, 1, 1]


def test_nothing_is_truncated_for_an_entry_that_still_waits():
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1, A))
    lone.hear(2, AppendEntries(2, 1, 1, (entry(2, B),), 0, 1))
    assert log_of(lone) == [1, 1]
    lone.have(B)
    assert log_of(lone) == [1, 2]


def test_a_tail_of_an_earlier_leader_is_not_taken_for_what_is_deferred_in_its_place():
    """Each of the leader's messages fits what waits, and none of them the log: nothing may be acknowledged (§3.5)."""
    lone = Lone()
    lone.append(0, 0, entry(1), entry(1), entry(1), entry(1))
    lone.hear(2, AppendEntries(2, 0, 0, (entry(2, A), entry(2)), 0, 1))
    out = lone.hear(2, AppendEntries(2, 2, 2, (entry(2, B),), 0, 1))
    assert sent(out, AppendAccepted) in ([], [AppendAccepted(2, 0, 1)])
    out = lone.hear(2, AppendEntries(2, 3, 2, (), 3, 2))
    assert commits(out) == []
    assert len(lone.state.deferred) == 3
    lone.have(A, B)
    assert log_of(lone) == [2, 2, 2]
    assert [one.refs for one in lone.state.log.entries] == [(A,), (), (B,)]


def test_what_is_deferred_dies_with_its_leader():
    lone = Lone()
    lone.hear(1, AppendEntries(1, 0, 0, (entry(1), entry(1, B)), 0, 1))
    lone.append(1, 1, entry(2, A), term=2, leader=2)
    lone.have(B)
    assert [one.refs for one in lone.state.log.entries] == [(), (A,)]
    assert B.digest in lone.state.pending


def test_a_batch_that_was_decided_before_is_nothing_to_append_again():
    lone = Lone()
    lone.hear(1, AppendEntries(1, 0, 0, (entry(1, B),), 0, 1))
    lone.have(B, decided=True)
    assert log_of(lone) == [1]
    lone.have(A, decided=True)
    assert A.digest not in lone.state.pending
    assert A.digest not in lone.state.held


def test_batches_beyond_the_window_are_left_for_later():
    lone = Lone(interval=2, window_factor=2)
    many = [batch(f"m{number}") for number in range(6)]
    lone.append(0, 0, *(entry(1, ref) for ref in many))
    assert lone.state.log.last == 4
    lone.append(4, 1, entry(1), term=1)
    assert lone.state.log.last == 5, "what names no batch may stand behind the window"


# --- Too far behind (§5) ---------------------------------------------------------------------------------------------


def test_a_follower_too_far_behind_asks_for_what_was_decided():
    lone = Lone()
    out = lone.hear(1, SnapshotNeeded(3, 40, 7))
    assert [one for one in out if isinstance(one, Behind)] == [Behind(40, (1,))]
    assert sent(out, AppendAccepted) == [AppendAccepted(3, 0, 7)]
    out = lone.synced(40)
    assert sent(out, AppendAccepted) == [AppendAccepted(3, 40, 7)]
    out = lone.hear(1, SnapshotNeeded(3, 40, 8))
    assert not any(isinstance(one, Behind) for one in out)
