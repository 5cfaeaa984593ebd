"""The decided part of the log."""

from __future__ import annotations

import pytest

from bftkit.core.checkpoint import Checkpoint
from bftkit.core.log import CommitEntry, CommitProof, extend_log_root
from bftkit.replica.commits import CommitLog
from tests.replica.parts import body_of

ROOT = b"r" * 32


def log_at(position: int = 0, height: int = 0) -> CommitLog:
    return CommitLog(Checkpoint(position, height, ROOT, ROOT, ROOT), 4)


def entry(position: int, *texts: str) -> CommitEntry:
    return CommitEntry(position, tuple(body_of(text).ref for text in texts), CommitProof())


def filled(positions: int, start: int = 0) -> CommitLog:
    log = log_at(start)
    for position in range(start + 1, start + positions + 1):
        log.add(entry(position, f"batch {position}"), 100 + position)
    return log


def test_heights_count_batches_and_skip_empty_positions():
    log = log_at(8, 20)
    for added in (entry(9, "a", "b"), entry(10), entry(11, "c")):
        log.add(added, added.position)
    assert (log.position, log.height) == (11, 23)
    root = ROOT
    for height, text in enumerate("abc", 21):
        root = extend_log_root(root, height, body_of(text).ref.digest)
    assert log.log_root == root
    executes = [log.execute_next(100, 10**9) for _ in range(3)]
    places = [(each.position, each.first_height, len(each.refs)) for each in executes]
    assert places == [(9, 21, 2), (10, 23, 0), (11, 23, 1)]
    assert log.next_refs is None
    assert (log.executing, log.executed, log.waiting) == (11, 8, 3)


@pytest.mark.parametrize("position", [0, 2, 4])
def test_positions_follow_each_other(position):
    log = filled(2)
    with pytest.raises(ValueError, match="does not follow"):
        log.add(entry(position), 1)


def test_roots_are_remembered_at_checkpoints():
    log = log_at()
    seen = {}
    for position in range(1, 10):
        log.add(entry(position, str(position)), position)
        seen[position] = (log.height, log.log_root)
    assert log.roots_at(4) == seen[4]
    assert log.roots_at(8) == seen[8]
    assert log.roots_at(5) is None
    assert log.roots_at(0) == (0, ROOT)
    log.trim(8)
    assert log.roots_at(4) is None
    assert log.roots_at(8) == seen[8]


def test_roots_are_reported_at_checkpoints_and_snapshots_taken_when_due():
    log = filled(16)
    executes = [log.execute_next(6, 10**9) for _ in range(16)]
    assert [each.position for each in executes if each.roots] == [4, 8, 12, 16]
    assert [each.position for each in executes if each.snapshot] == [8, 16]
    log = filled(16)
    assert [each.position for each in (log.execute_next(100, 1) for _ in range(16)) if each.snapshot] == [4]


def test_a_snapshot_that_was_lost_is_taken_again_soon():
    log = filled(16)
    executes = [log.execute_next(8, 10**9) for _ in range(8)]
    assert executes[-1].snapshot
    log.snapshot_lost()
    assert [log.execute_next(8, 10**9).snapshot for _ in range(4)] == [False, False, False, True]


def test_after_a_lost_snapshot_all_checkpoints_have_one_until_one_is_kept():
    log = filled(40)
    log.snapshot_lost()
    executes = [log.execute_next(12, 10**9) for _ in range(12)]
    assert [each.position for each in executes if each.snapshot] == [4, 8, 12]
    log.snapshot_kept()
    executes = [log.execute_next(12, 10**9) for _ in range(28)]
    assert [each.position for each in executes if each.snapshot] == [24, 36]


def test_entries_after_a_position():
    log = filled(6, start=8)
    assert [each.position for each in log.after(8, 3) or ()] == [9, 10, 11]
    assert [each.position for each in log.after(12, 30) or ()] == [13, 14]
    assert log.after(14, 3) == ()
    assert log.after(99, 3) == ()
    assert log.after(7, 3) is None


def test_trimming_moves_the_base():
    log = filled(10)
    log.trim(4)
    assert (log.base, log.position, log.oldest_record) == (4, 10, 105)
    assert log.after(3, 1) is None
    assert [each.position for each in log.after(4, 2) or ()] == [5, 6]
    log.trim(4)
    assert log.base == 4
    log.trim(99)
    assert (log.base, log.oldest_record, list(log)) == (10, None, [])
    log.add(entry(11), 200)
    assert [each.position for each in log] == [11]


def test_a_transferred_state_starts_over():
    log = filled(5)
    log.execute_next(9, 9)
    log.reset(Checkpoint(20, 50, b"x" * 32, ROOT, ROOT))
    assert (log.base, log.position, log.executing, log.executed, log.height) == (20, 20, 20, 20, 50)
    assert log.log_root == b"x" * 32
    assert (log.next_refs, log.oldest_record, log.waiting) == (None, None, 0)
    assert log.roots_at(20) == (50, b"x" * 32)
    log.add(entry(21, "a"), 1)
    assert log.execute_next(99, 10**9).first_height == 51


def test_a_state_that_was_taken_over_skips_what_waits_below_it():
    log = filled(6)
    log.execute_next(99, 10**9)
    log.skip_to(4)
    assert (log.executing, log.executed, log.position, log.base) == (4, 4, 6, 0)
    following = log.execute_next(99, 10**9)
    assert (following.position, following.first_height) == (5, 5)
    log.skip_to(2)
    assert (log.executing, log.executed) == (5, 4)
