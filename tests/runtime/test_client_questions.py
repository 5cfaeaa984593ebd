"""Questions to replicas: enough equal answers, or a definite no."""

import anyio
import pytest

from bftkit.core.quorum import FaultModel, Quorum
from bftkit.errors import ClientError, NotReady, Rejected
from bftkit.runtime import client_questions
from bftkit.runtime.admin_messages import AdminAnswer
from bftkit.runtime.client_questions import Questions

pytestmark = pytest.mark.anyio

SILENT = object()


class Later:
    """A replica that cannot answer now."""


NAMES = ("n0", "n1", "n2", "n3")


def make(answers):
    """Return questions and an `ask` that finds each replica's next answer in a list: bytes, a refusal, None."""
    questions = Questions(Quorum.of(FaultModel.BYZANTINE, 4), NAMES)
    asked = []
    replies: list[tuple[int, AdminAnswer]] = []

    def ask(replica, question):
        asked.append((replica, question))
        row = answers[replica]
        answer = row.pop(0) if len(row) > 1 else row[0]
        if answer is None:
            return False
        if answer is SILENT:
            return True
        if isinstance(answer, Later):
            replies.append((replica, AdminAnswer(question.id, False, b"not yet", 0, retry=True)))
            return True
        replies.append((replica, AdminAnswer(question.id, not isinstance(answer, str), _bytes(answer))))
        return True

    async def answer_all():
        while True:
            await anyio.sleep(0)
            while replies:
                questions.on_answer(*replies.pop(0))

    return questions, ask, answer_all, asked


def _bytes(answer):
    return answer.encode() if isinstance(answer, str) else answer


async def run(answers, function):
    questions, ask, answer_all, asked = make(answers)
    result = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_all)
        try:
            result = await function(questions, ask)
        except ClientError as error:
            result = error
        tasks.cancel_scope.cancel()
    if isinstance(result, ClientError):
        raise result
    return result, asked


async def test_equal_answers_of_enough_are_the_answer():
    answers = [[b"new"], [b"lie"], [b"new"], [None]]
    found, asked = await run(answers, _agree)
    assert found == b"new"
    assert [replica for replica, _ in asked] == [0, 1, 2, 3]


async def test_one_answer_is_not_enough():
    with pytest.raises(NotReady, match="2 equal answers are needed; there were answers from n1"):
        await run([[None], [b"alone"], [None], [None]], _agree)


async def test_those_who_disagree_are_asked_again():
    found, asked = await run([[b"0", b"2"], [b"1", b"2"], [None], [None]], _agree)
    assert found == b"2"
    assert len(asked) == 8


async def test_a_refusal_by_enough_is_a_refusal():
    with pytest.raises(Rejected, match="no queries here"):
        await run([["no queries here"], ["no queries here"], [b"x"], [None]], _agree)


async def test_each_is_asked_and_the_absent_show():
    async def each(questions, ask):
        return await questions.ask_each("status", ask, 5)

    found, _ = await run([[b"a"], [None], [b"c"], ["broken"]], each)
    assert [answer.body if answer else None for answer in found] == [b"a", None, b"c", b"broken"]
    assert [answer.ok if answer else None for answer in found] == [True, None, True, False]


async def test_nobody_waits_for_one_who_has_gone():
    questions = Questions(Quorum.of(FaultModel.BYZANTINE, 4), NAMES)
    found = []

    async def ask_each():
        found.extend(await questions.ask_each("status", lambda replica, question: True, 60))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_each)
        await anyio.wait_all_tasks_blocked()
        for replica in range(4):
            questions.on_down(replica)
    assert found == [None] * 4


async def _agree(questions, ask):
    return await questions.agree("query", b"q", ask, 0.3)


async def first(answers, timeout=2.0):
    async def ask_in_turn(questions, ask):
        questions._helpful = 0
        found = [await questions.first("read", b"q", ask, timeout) for _ in range(2)]
        assert not questions._open
        return [answer.body for answer in found]

    return await run(answers, ask_in_turn)


async def test_one_answer_is_enough_where_nobody_lies_and_the_helpful_one_is_asked_again():
    found, asked = await first([[None], [b"a", b"b"], [b"x"], [b"y"]])
    assert found == [b"a", b"b"]
    assert [replica for replica, _ in asked] == [0, 1, 1]


async def test_another_is_asked_when_one_is_silent_or_cannot_answer_now(monkeypatch):
    monkeypatch.setattr(client_questions, "ASK_ANOTHER_S", 0.02)
    found, asked = await first([[SILENT], [Later()], [b"a", b"b"], [b"x"]])
    assert found == [b"a", b"b"]
    assert [replica for replica, _ in asked] == [0, 1, 2, 2]


async def test_replicas_that_all_refuse_are_not_pestered(monkeypatch):
    monkeypatch.setattr(client_questions, "ASK_AGAIN_S", 10.0)
    counted = []

    async def ask_once(questions, ask):
        def counting(replica, question):
            counted.append(replica)
            return ask(replica, question)

        return await questions.first("read", b"q", counting, 0.1)

    with pytest.raises(NotReady, match="not yet"):
        await run([[Later()]] * 4, ask_once)
    assert sorted(counted) == [0, 1, 2, 3]


async def test_a_refusal_for_good_by_one_is_one():
    with pytest.raises(Rejected, match="no queries here"):
        await first([["no queries here"], [b"a"], [b"a"], [b"a"]])


async def test_no_answer_in_time_says_what_was_heard(monkeypatch):
    monkeypatch.setattr(client_questions, "ASK_AGAIN_S", 0.01)
    with pytest.raises(NotReady, match="no answer in time: not yet"):
        await first([[None], [Later()], [None], [Later()]], 0.1)
    with pytest.raises(NotReady, match="no replica answers"):
        await first([[None]] * 4, 0.05)
