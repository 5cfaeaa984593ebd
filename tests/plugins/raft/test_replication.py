"""What a leader does: the thesis' §3.5, §3.6.2, §10.2.1."""

from __future__ import annotations

import pytest

from bftkit.core.outputs import Persist, Reject, Send
from bftkit_raft.messages import (
    AppendAccepted,
    Appended,
    AppendEntries,
    AppendRejected,
    SnapshotNeeded,
)
from bftkit_raft.progress import Mode
from tests.plugins.raft.lone import Lone, batch, commits, entry, log_of, sent, sent_to
from tests.plugins.raft.parts import elected, group_of

A, B, C = batch("a"), batch("b"), batch("c")


def leading(**options) -> Lone:
    """A leader whose followers have all that it has."""
    lone = Lone(**options)
    lone.win(voters=range(1, lone.state.quorum.quorum))
    lone.accept(lone.state.log.last, by=range(1, lone.members))
    return lone


# --- Commitment (§3.6.2) ---------------------------------------------------------------------------------------------


def test_a_term_begins_with_an_entry_that_names_no_batch():
    lone = Lone()
    lone.win()
    assert [one.refs for one in lone.state.log.entries] == [()]
    assert commits(lone.accept(1)) == [1]


def test_an_entry_is_committed_when_a_quorum_holds_it():
    lone = leading(members=5)
    lone.have(A)
    assert commits(lone.accept(2, by=(1,))) == []
    assert commits(lone.accept(2, by=(1,))) == [], "one member counts once"
    assert commits(lone.accept(2, by=(2,))) == [2]


def test_entries_of_earlier_terms_are_not_committed_by_counting():
    """Thesis Fig. 3.7: (c) the entry of term 2 is on a majority, and may still be overwritten, as in (d)."""
    lone = Lone(members=5)
    lone.append(0, 0, entry(1), entry(2), term=3)
    lone.win(voters=(1, 2))
    assert log_of(lone) == [1, 2, 4]
    assert commits(lone.accept(2, by=(1, 2))) == []
    assert commits(lone.accept(3, by=(1,))) == []
    assert commits(lone.accept(3, by=(2,))) == [1, 2, 3], "(e): the entry of its own term commits those before it"


def test_the_leader_counts_its_own_write_when_it_is_durable():
    lone = Lone(echo=False, members=3)
    lone.echo = True
    lone.win()
    lone.accept(1, by=(1, 2))
    lone.echo = False
    out = lone.have(A)
    own = [one for one in out if isinstance(one, Send) and one.to == 0]
    assert own == [Send(0, AppendAccepted(1, 2, 0))]
    assert out.index(own[0]) > next(i for i, one in enumerate(out) if isinstance(one, Persist))
    assert not own[0].early
    early = [one for one in out if isinstance(one, Send) and one.early]
    assert {one.to for one in early} == {1, 2}, "followers are told in parallel with the own write"
    assert commits(lone.accept(2, by=(1,))) == []
    assert commits(lone.accept(2, by=(2,))) == [2], "without its own disk, if need be"


def test_an_acknowledgement_of_what_nobody_sent_is_reported():
    lone = leading()
    out = lone.accept(50)
    assert isinstance(out[0], Reject)
    assert lone.state.progress[1].match == 1


def test_answers_of_other_terms_count_for_nothing():
    lone = leading()
    lone.have(A)
    for term in (lone.state.term - 1,):
        if term:
            lone.hear(1, AppendAccepted(term, 2, 0))
    lone.hear(1, AppendRejected(lone.state.term, 0, 0, 0, 0))
    assert lone.state.progress[1].match == 1


# --- Appending --------------------------------------------------------------------------------------------------------


def test_batches_go_into_few_entries_and_only_so_many_are_under_way():
    lone = leading(in_flight=2, batches_per_entry=2)
    lone.have(*(batch(f"m{number}") for number in range(7)))
    assert [len(one.refs) for one in lone.state.log.entries[1:]] == [2, 2]
    lone.accept(2)
    assert [len(one.refs) for one in lone.state.log.entries[1:]] == [2, 2, 2]


def test_one_message_for_each_follower_and_step():
    lone = leading()
    out = lone.have(A, B)
    assert [len(sent_to(out, peer, AppendEntries)) for peer in (1, 2)] == [1, 1]
    (record,) = [one.record for one in out if isinstance(one, Persist)]
    assert record == Appended(2, 1, (entry(1, A, B),))


def test_uncommitted_bytes_are_bounded():
    lone = leading(uncommitted_bytes=1_000, batches_per_entry=1)
    lone.have(*(batch(f"m{number}", size=600) for number in range(4)))
    assert lone.state.log.last == 3
    lone.accept(3)
    assert lone.state.log.last == 5
    assert lone.state.uncommitted_bytes == 1_200


def test_the_window_holds_appending_back_until_a_checkpoint():
    lone = leading(interval=2, window_factor=2, batches_per_entry=1, in_flight=16)
    lone.have(*(batch(f"m{number}") for number in range(9)))
    lone.accept(4)
    assert lone.state.log.last == 4
    status = lone.engine.status()
    assert "window is full" in status.waiting_for
    assert status.waiting_on == (), "the replica knows whose votes are missing"
    lone.stable(4)
    assert lone.state.log.last == 8


def test_a_new_leader_begins_its_term_behind_a_full_window():
    lone = Lone(interval=2, window_factor=2)
    lone.append(0, 0, *(entry(1, batch(f"m{number}")) for number in range(4)))
    lone.win()
    assert lone.state.log.last == 5
    assert commits(lone.accept(5)) == [1, 2, 3, 4, 5]


def test_what_was_appended_once_is_not_appended_again():
    lone = leading()
    lone.have(A)
    lone.have(A)
    assert lone.state.log.last == 2
    lone.accept(2)
    lone.have(A)
    assert lone.state.log.last == 2


# --- Followers one by one (§3.5, §10.2.1) ---------------------------------------------------------------------------


def test_a_probe_waits_for_its_answer():
    lone = Lone()
    out = lone.win()
    assert len(sent_to(out, 2, AppendEntries)) == 1
    assert lone.state.progress[2].mode is Mode.PROBE
    assert sent_to(lone.have(A), 2, AppendEntries) == []
    assert len(sent_to(lone.fire("heartbeat", 50), 2, AppendEntries)) == 1
    lone.accept(0, by=(2,))
    assert lone.state.progress[2].mode is Mode.REPLICATE


def test_a_rejection_goes_back_by_whole_terms():
    lone = Lone(members=3)
    lone.append(0, 0, *map(entry, [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]), term=7)
    lone.win()
    (probe,) = sent_to(lone.fire("heartbeat", 50), 2, AppendEntries)
    assert probe.previous_position == 10
    out = lone.hear(2, AppendRejected(8, 10, 3, 7, 1))
    assert sent_to(out, 2, AppendEntries)[0].previous_position == 6, "no entry of term 3 here: before its first one"
    out = lone.hear(2, AppendRejected(8, 6, 4, 4, 1))
    assert sent_to(out, 2, AppendEntries)[0].previous_position == 5, "term 4 is here: at the end of the own ones"


def test_a_stale_rejection_is_ignored():
    lone = leading()
    lone.have(A, B)
    lone.accept(2, by=(2,))
    lone.hear(2, AppendRejected(1, 1, 0, 1, 1))
    lone.hear(2, AppendRejected(1, 2, 0, 1, 1))
    assert lone.state.progress[2].mode is Mode.REPLICATE
    assert lone.state.progress[2].next == 3


def test_what_nobody_acknowledges_is_sent_again():
    lone = leading()
    lone.have(A)
    for _ in range(2):
        assert sent_to(lone.fire("heartbeat", 50), 2, AppendEntries)[0].entries == ()
    again = sent_to(lone.fire("heartbeat", 50), 2, AppendEntries)
    assert [len(one.entries) for one in again] == [1]


def test_only_so_much_is_on_its_way_to_one_follower():
    lone = leading(members=3, peer_messages=2, batches_per_entry=1)
    for number in range(4):
        lone.have(batch(f"m{number}"))
    assert lone.state.progress[1].next == 4
    lone.accept(2, by=(1,))
    assert lone.state.progress[1].next == 6, "the rest in one message"
    lone = leading(members=3, peer_bytes=100, batches_per_entry=1)
    for number in range(4):
        lone.have(batch(f"m{number}"))
    assert lone.state.progress[1].next == 4


def test_a_heartbeat_tells_what_is_committed():
    lone = leading()
    lone.have(A)
    out = lone.accept(2, by=(1,))
    assert [one.commit for one in sent_to(out, 1, AppendEntries)] == [2], "at once, to whom has all the rest"
    assert sent_to(out, 2, AppendEntries) == []
    assert [one.commit for one in sent_to(lone.accept(2, by=(2,)), 2, AppendEntries)] == [2]
    assert sent(lone.accept(2, by=(2,)), AppendEntries) == [], "once"


def test_a_follower_that_lacks_what_was_compacted_is_told_so():
    lone = leading(interval=2, window_factor=2, batches_per_entry=1)
    for position in range(2, 9):
        lone.have(batch(f"m{position}"))
        lone.accept(position, by=(1,))
        if position % 2 == 0:
            lone.stable(position)
    for _ in range(3):
        out = lone.fire("heartbeat", 50)
    assert sent_to(out, 2, SnapshotNeeded) == [SnapshotNeeded(1, 4, lone.state.round)]
    assert lone.state.progress[2].mode is Mode.SNAPSHOT
    assert sent_to(lone.have(B), 2, AppendEntries) == [], "entries would not help"
    out = lone.accept(4, by=(2,))
    assert [len(one.entries) for one in sent_to(out, 2, AppendEntries)] == [5]


# --- Groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_leaders_only_append_and_logs_match(seed):
    """Leader append-only, log matching, election safety: `RaftInvariants` looks after each step."""
    group = group_of(5, seed)
    group.delay_ms, group.loss = (1, 40), 0.1
    for number in range(30):
        group.submit(f"b{number}", number % 5)
        if number % 6 == 5:
            leader = elected(group)
            group.crash(leader.number)
            group.run(1_500)
            group.restart(leader.number)
        group.run(60)
    group.loss = 0.0
    group.run_until(lambda: all(len(one.decided) == 30 for one in group.instances), limit=30_000)


def test_with_nothing_to_do_there_are_heartbeats_and_nothing_else():
    group = group_of(3)
    group.submit("a")
    elected(group)
    group.run(2_000)
    group.traced = True
    group.run(1_000)
    said = {line.split()[2] for line in group.trace if "->" in line}
    assert said == {"AppendEntries", "AppendAccepted"}
    assert all("entries={}" in line for line in group.trace if " AppendEntries " in line)
