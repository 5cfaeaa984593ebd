"""Questions to replicas: enough equal answers, or a definite no."""

import anyio
import pytest

from bftkit.core.quorum import FaultModel, Quorum
from bftkit.errors import ClientError, NotReady, Rejected
from bftkit.runtime.admin_messages import AdminAnswer
from bftkit.runtime.client_questions import Questions

pytestmark = pytest.mark.anyio

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
