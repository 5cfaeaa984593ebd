"""Reads at a position: asked of the engine together, and held until the application has executed what it names.

For engines that answer `Read`. One question is under way at a time: readers who come meanwhile share the next one,
so that the engine is asked once for each round trip and not once for each reader. A question is put again, under
another token, when the engine has not answered it for a while; it may have been lost with a message or a leader.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.inputs import Read
from bftkit.core.outputs import ReadReady
from bftkit.core.quorum import FaultModel

MOST_READERS = 1_024
"""Readers that may wait."""

ASK_AGAIN_MS = 200
"""After so long without an answer the engine is asked again."""

PATIENCE_MS = 4_000
"""How long a reader waits at most."""

TOKEN_BITS = 62
"""Length of a queue's first token, which is drawn: no life of a replica uses the tokens of another."""

R = TypeVar("R")


def one_answer_is_enough(spec: EngineSpec) -> bool:
    """Say whether clients may read at one replica: it must know what is decided, and it must not lie."""
    return spec.answers_reads and spec.fault_model is FaultModel.CRASH


class _Waiting(msgspec.Struct, Generic[R], eq=False):
    """A reader, and until when it waits."""

    reader: R
    until: int


class _Question(msgspec.Struct, Generic[R], eq=False):
    """What the engine is asked, for readers who were all there before it was asked first."""

    readers: list[_Waiting[R]]
    tokens: list[int] = []
    """An answer to any of them will do."""
    asked_at: int = 0


class ReadQueue(Generic[R]):
    """Readers of one life of a replica. Methods return the input that the replica is to be given, if any.

    `first_token` must be drawn at random. An answer to a question of an earlier life, which may still be on its way,
    would let a reader see a position from before its call.
    """

    def __init__(self, first_token: int) -> None:
        self._next = first_token
        self._gathering: list[_Waiting[R]] = []
        self._asked: _Question[R] | None = None
        self._ready: list[tuple[int, int, list[_Waiting[R]]]] = []
        """Heap of positions, each with the readers that wait for it to be executed."""
        self._answers = 0

    def __len__(self) -> int:
        asked = 0 if self._asked is None else len(self._asked.readers)
        return len(self._gathering) + asked + sum(len(readers) for _, _, readers in self._ready)

    @property
    def is_full(self) -> bool:
        """Say whether nobody else may be added."""
        return len(self) >= MOST_READERS

    def add(self, reader: R, now: int) -> Read | None:
        """Let one more reader wait."""
        self._gathering.append(_Waiting(reader, now + PATIENCE_MS))
        return self._ask(now)

    def _ask(self, now: int) -> Read | None:
        if self._asked is not None or not self._gathering:
            return None
        self._asked = _Question(self._gathering)
        self._gathering = []
        return self._put(self._asked, now)

    def _put(self, question: _Question[R], now: int) -> Read:
        token, self._next = self._next, self._next + 1
        question.tokens.append(token)
        question.asked_at = now
        return Read(now, token)

    def ready(self, answer: ReadReady, now: int) -> Read | None:
        """Take the engine's answer; one to a question that nobody waits for is none."""
        question = self._asked
        if question is None or answer.token not in question.tokens:
            return None
        self._asked = None
        self._answers += 1
        heappush(self._ready, (answer.position, self._answers, question.readers))
        return self._ask(now)

    def due(self, executed: int) -> list[R]:
        """Take out the readers whose position has been executed."""
        found: list[R] = []
        while self._ready and self._ready[0][0] <= executed:
            found += [waiting.reader for waiting in heappop(self._ready)[2]]
        return found

    def tick(self, now: int) -> tuple[list[R], Read | None]:
        """Take out those who have waited too long, and ask again where the engine has not answered."""
        late: list[R] = []
        self._gathering = _split(self._gathering, now, late)
        self._ready = [entry for entry in self._ready if _keep(entry[2], now, late)]
        heapify(self._ready)
        question = self._asked
        if question is None or not _keep(question.readers, now, late):
            self._asked = None
            return late, self._ask(now)
        return late, self._put(question, now) if now - question.asked_at >= ASK_AGAIN_MS else None

    def clear(self) -> list[R]:
        """Take out everybody: the replica stops."""
        asked = [] if self._asked is None else self._asked.readers
        everybody = [*asked, *self._gathering, *(waiting for _, _, readers in self._ready for waiting in readers)]
        self._gathering, self._asked, self._ready = [], None, []
        return [waiting.reader for waiting in everybody]


def _split(waiting: Iterable[_Waiting[R]], now: int, late: list[R]) -> list[_Waiting[R]]:
    """Return those who still wait; the others join the late ones."""
    kept: list[_Waiting[R]] = []
    for one in waiting:
        if one.until > now:
            kept.append(one)
        else:
            late.append(one.reader)
    return kept


def _keep(waiting: list[_Waiting[R]], now: int, late: list[R]) -> bool:
    """Leave only those in the list who still wait; say whether there are any."""
    waiting[:] = _split(waiting, now, late)
    return bool(waiting)
