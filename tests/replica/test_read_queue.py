"""The queue of readers: one question at a time, nobody served too early, nobody kept for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.inputs import Read
from bftkit.core.outputs import ReadReady
from bftkit.core.quorum import FaultModel
from bftkit.plugins import load_engine
from bftkit.replica import read_queue
from bftkit.replica.read_queue import ASK_AGAIN_MS, PATIENCE_MS, ReadQueue, one_answer_is_enough
from bftkit.testing.solo import solo_spec
from tests.replica.parts import scripted_spec


def test_a_reader_is_served_when_the_position_that_the_engine_names_is_executed():
    queue: ReadQueue[str] = ReadQueue(70)
    assert queue.add("a", 5) == Read(5, 70)
    assert queue.due(100) == []
    assert queue.ready(ReadReady(70, 8), 6) is None
    assert queue.due(7) == []
    assert queue.due(8) == ["a"]
    assert queue.due(9) == []
    assert len(queue) == 0


def test_readers_who_come_meanwhile_share_the_next_question():
    queue: ReadQueue[str] = ReadQueue(1)
    assert queue.add("a", 0) == Read(0, 1)
    assert queue.add("b", 0) is None
    assert queue.add("c", 0) is None
    assert queue.ready(ReadReady(1, 3), 4) == Read(4, 2)
    assert queue.due(3) == ["a"]
    assert queue.ready(ReadReady(2, 2), 4) is None
    assert queue.due(3) == ["b", "c"]


def test_nobody_is_served_by_an_answer_to_a_question_from_before_he_came():
    queue: ReadQueue[str] = ReadQueue(1)
    queue.add("a", 0)
    queue.add("late", 0)
    for token in (0, 2, 99):
        assert queue.ready(ReadReady(token, 3), 0) is None
    assert queue.due(100) == []
    queue.ready(ReadReady(1, 3), 0)
    queue.ready(ReadReady(1, 3), 0)
    assert queue.due(100) == ["a"]


def test_a_question_without_an_answer_is_put_again_and_either_answer_will_do():
    queue: ReadQueue[str] = ReadQueue(1)
    queue.add("a", 0)
    assert queue.tick(ASK_AGAIN_MS - 1) == ([], None)
    assert queue.tick(ASK_AGAIN_MS) == ([], Read(ASK_AGAIN_MS, 2))
    assert queue.tick(ASK_AGAIN_MS + 1) == ([], None)
    queue.ready(ReadReady(1, 3), 0)
    assert queue.due(3) == ["a"]
    assert queue.ready(ReadReady(2, 2), 0) is None


@pytest.mark.parametrize("answered", [True, False])
def test_who_has_waited_too_long_is_let_go_and_the_others_go_on(answered):
    queue: ReadQueue[str] = ReadQueue(1)
    queue.add("a", 0)
    queue.add("b", 10)
    queue.add("c", 20)
    if answered:
        queue.ready(ReadReady(1, 7), 5)
    late, question = queue.tick(PATIENCE_MS)
    assert late == ["a"]
    assert question == Read(PATIENCE_MS, 3 if answered else 2)
    late, _ = queue.tick(PATIENCE_MS + 10)
    assert late == ["b"]
    assert len(queue) == 1
    assert queue.clear() == ["c"]
    assert queue.tick(3 * PATIENCE_MS) == ([], None)


def test_the_queue_is_bounded_and_gives_everybody_back(monkeypatch):
    monkeypatch.setattr(read_queue, "MOST_READERS", 3)
    queue: ReadQueue[str] = ReadQueue(1)
    for reader in "abc":
        assert not queue.is_full
        queue.add(reader, 0)
    assert queue.is_full
    queue.ready(ReadReady(1, 5), 0)
    assert queue.is_full
    assert sorted(queue.clear()) == ["a", "b", "c"]
    assert not queue.is_full


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "ready", "decide", "execute", "tick"]), st.integers(0, 400)), max_size=60
)


@given(STEPS)
def test_whatever_happens_each_reader_leaves_once_and_never_with_an_old_state(steps):
    """The engine answers a token with what is decided at some moment after it was asked."""
    queue: ReadQueue[int] = ReadQueue(1)
    now = decided = executed = 0
    asked: list[int] = []
    called: dict[int, int] = {}
    left: list[int] = []

    def ask(question: Read | None) -> None:
        if question is not None:
            asked.append(question.token)

    for what, number in steps:
        match what:
            case "add":
                called[len(called)] = decided
                ask(queue.add(len(called) - 1, now))
            case "ready" if asked:
                ask(queue.ready(ReadReady(asked.pop(number % len(asked)), decided), now))
            case "decide":
                decided += 1
            case "execute":
                executed = min(decided, executed + number)
                served = queue.due(executed)
                assert all(called[reader] <= executed for reader in served)
                left += served
            case "tick":
                now += number
                late, question = queue.tick(now)
                left += late
                ask(question)
    left += queue.clear()
    assert sorted(left) == sorted(called)


def test_one_replica_is_believed_where_it_knows_what_is_decided_and_does_not_lie():
    assert one_answer_is_enough(solo_spec())
    assert not one_answer_is_enough(load_engine("pbft"))
    assert not one_answer_is_enough(scripted_spec(FaultModel.CRASH))
