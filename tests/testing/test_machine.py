"""A state machine under watch. What the checkers make of what they hear stands in `test_checkers.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.batteries.counter import Counter
from bftkit.core.batch import CommittedBatch
from bftkit.testing.checkers import Checkers, Violation
from bftkit.testing.machine import TAG_BYTES, WatchedMachine, tagged, untagged


class Notes:
    """Remembers the batches that it sees; it has no root of its own."""

    def __init__(self) -> None:
        self.seen: list[CommittedBatch] = []

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        self.seen.append(batch)
        return [command.upper() for command in batch.commands]

    def snapshot(self) -> bytes:
        return b"notes"

    def restore(self, data: bytes) -> None:
        self.seen = [CommittedBatch(0, 0, [data])]


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_the_machine_sees_commands_without_their_tags(commands):
    batch = CommittedBatch(3, 7, [tagged(number, command) for number, command in enumerate(commands)])
    assert untagged(batch) == CommittedBatch(3, 7, commands)


@given(st.binary(max_size=4), st.binary(max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_no_two_commands_are_equal_and_their_number_is_why(one, other, first, second):
    assert (tagged(first, one) == tagged(second, other)) is ((first, one) == (second, other))
    assert len(tagged(first, one)) == TAG_BYTES + len(one)


def test_results_and_snapshots_are_the_machine_s_own():
    notes = Notes()
    watched = WatchedMachine(notes, None, 0)
    assert watched.apply(CommittedBatch(0, 1, [tagged(1, b"a"), tagged(2, b"b")])) == [b"A", b"B"]
    assert notes.seen == [CommittedBatch(0, 1, [b"a", b"b"])]
    assert watched.snapshot() == b"notes"
    watched.restore(b"old")
    assert notes.seen == [CommittedBatch(0, 0, [b"old"])]


def test_a_root_is_offered_where_the_machine_has_one():
    """The executor takes a digest of the snapshot where there is none, so the watch must not invent one."""
    assert not hasattr(WatchedMachine(Notes(), None, 0), "state_root")
    counter = Counter()
    assert WatchedMachine(counter, None, 0).state_root() == counter.state_root()


def test_checkers_hear_the_tagged_commands_and_try_the_bare_ones():
    checkers = Checkers(Counter())
    command = tagged(1, b"5")
    with pytest.raises(Violation, match="never submitted"):
        WatchedMachine(Counter(), checkers, 0).apply(CommittedBatch(0, 1, [command]))
    checkers = Checkers(Counter())
    checkers.submitted(command)
    assert WatchedMachine(Counter(), checkers, 0).apply(CommittedBatch(0, 1, [command])) == [b"5"]
    behind = Counter()
    behind.apply(CommittedBatch(0, 0, [b"1"]))
    with pytest.raises(Violation, match="n1 has other results"):
        WatchedMachine(behind, checkers, 1).apply(CommittedBatch(0, 1, [command]))
