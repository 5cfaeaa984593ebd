"""Questions of a client to replicas, outside the log, and the tally of their answers."""

import secrets
from collections.abc import Callable, Sequence

import anyio

from bftkit.core.quorum import Quorum
from bftkit.errors import NotReady, Rejected
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk

ASK_AGAIN_S = 0.05
"""Pause before replicas that disagree are asked again: some of them had executed less than others."""

ASK_ANOTHER_S = 0.5
"""How long one replica is waited for before another is asked too."""

Ask = Callable[[int, AdminAsk], bool]
"""Sends a question to one replica; False where it cannot be reached."""


class _Question:
    """One question on its way."""

    def __init__(self, asked: set[int]) -> None:
        self.missing = asked
        self.answers: dict[int, AdminAnswer] = {}
        self.changed = anyio.Event()

    def note(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Questions:
    """Questions that wait for answers, by their number."""

    def __init__(self, quorum: Quorum, names: Sequence[str]) -> None:
        self._quorum = quorum
        self._names = names
        self._open: dict[int, _Question] = {}
        self._next = 0
        self._closed = False
        self._helpful = secrets.randbelow(quorum.members)
        """Who is asked first where one answer is enough: whoever answered last."""

    def on_answer(self, replica: int, answer: AdminAnswer) -> None:
        """Take one replica's answer; the first to a question counts."""
        question = self._open.get(answer.id)
        if question is not None and replica in question.missing:
            question.missing.discard(replica)
            question.answers[replica] = answer
            question.note()

    def on_down(self, replica: int) -> None:
        """Stop waiting for a replica that cannot be reached any more."""
        for question in self._open.values():
            question.missing.discard(replica)
            question.note()

    def close(self) -> None:
        """Stop waiting altogether."""
        self._closed = True
        for question in self._open.values():
            question.missing.clear()
            question.note()

    def _open_one(self) -> tuple[int, _Question]:
        self._next += 1
        question = self._open[self._next] = _Question(set())
        return self._next, question

    def _start(self, verb: str, body: bytes, ask: Ask) -> tuple[int, _Question]:
        number, question = self._open_one()
        for replica in range(self._quorum.members):
            if ask(replica, AdminAsk(number, verb, body)):
                question.missing.add(replica)
        return number, question

    async def ask_each(self, verb: str, ask: Ask, timeout: float) -> list[AdminAnswer | None]:
        """Ask all replicas and return their answers by index; None of those who gave none in time."""
        number, question = self._start(verb, b"", ask)
        try:
            with anyio.move_on_after(timeout):
                while question.missing:
                    await question.changed.wait()
        finally:
            del self._open[number]
        return [question.answers.get(replica) for replica in range(self._quorum.members)]

    async def agree(self, verb: str, body: bytes, ask: Ask, timeout: float) -> bytes:
        """Ask until enough replicas give equal answers, and return it; NotReady where they do not in time."""
        heard: dict[int, AdminAnswer] = {}
        with anyio.move_on_after(timeout):
            while not self._closed:
                number, question = self._start(verb, body, ask)
                try:
                    answer = await self._agreed(question)
                finally:
                    heard = question.answers
                    del self._open[number]
                if answer is not None:
                    if not answer.ok:
                        raise Rejected(answer.body.decode("utf-8", "replace"))
                    return answer.body
                await anyio.sleep(ASK_AGAIN_S)
        names = ", ".join(self._names[replica] for replica in sorted(heard)) or "nobody"
        raise NotReady(f"{self._quorum.weak} equal answers are needed; there were answers from {names}")

    async def first(self, verb: str, body: bytes, ask: Ask, timeout: float) -> AdminAnswer:
        """Ask one replica, and another as well when it does not answer soon; return the first answer.

        For groups whose members do not lie. `Rejected` where one refuses for good, `NotReady` where none answers.
        """
        number, question = self._open_one()
        reason, refusals = "no replica answers", 0
        try:
            with anyio.move_on_after(timeout):
                while not self._closed:
                    replica = self._helpful
                    if replica not in question.missing and ask(replica, AdminAsk(number, verb, body)):
                        question.missing.add(replica)
                    reason = await self._one_answer(question) or reason
                    answer = next((each for each in question.answers.values() if not each.retry), None)
                    if answer is not None:
                        if not answer.ok:
                            raise Rejected(answer.body.decode("utf-8", "replace"))
                        return answer
                    refusals += len(question.answers)
                    if question.answers and refusals % self._quorum.members == 0:
                        # All that can be reached have refused: they would say the same at once.
                        await anyio.sleep(ASK_AGAIN_S)
                    question.answers.clear()
                    self._helpful = (replica + 1) % self._quorum.members
        finally:
            del self._open[number]
        raise NotReady(f"no answer in time: {reason}")

    async def _one_answer(self, question: _Question) -> str:
        """Wait until somebody answers, but not for long; return what a replica says that cannot answer now."""
        with anyio.move_on_after(ASK_ANOTHER_S if question.missing else ASK_AGAIN_S):
            while not question.answers:
                await question.changed.wait()
        return next((each.body.decode("utf-8", "replace") for each in question.answers.values() if each.retry), "")

    async def _agreed(self, question: _Question) -> AdminAnswer | None:
        """Return the first answer that enough replicas give, or None once all have answered without agreeing."""
        while True:
            tally: dict[tuple[bool, bytes], int] = {}
            for answer in question.answers.values():
                content = (answer.ok, answer.body)
                tally[content] = tally.get(content, 0) + 1
                if tally[content] >= self._quorum.weak:
                    return answer
            if not question.missing:
                return None
            await question.changed.wait()
