"""Reads that one replica answers by itself: the engine names a position, the state machine gets there, and is asked."""

import secrets
from collections.abc import Callable

import anyio
import msgspec

from bftkit.core.inputs import Read
from bftkit.core.outputs import ReadReady
from bftkit.errors import ApplicationError
from bftkit.replica.execution import Executor
from bftkit.replica.log_reads import ANSWER_TOO_LARGE
from bftkit.replica.read_queue import TOKEN_BITS, ReadQueue
from bftkit.replica.sessions import MAX_RESULTS_BYTES
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.application import ApplicationStage
from bftkit.runtime.clock import Clock

TICK_S = 0.05
"""How often is looked whether readers have waited too long, while there are any."""

AT_ONCE = 64
"""Readers served in one visit to the application's thread."""


class ReadOutcome(msgspec.Struct, frozen=True, gc=False):
    """What came of a read."""

    ok: bool
    body: bytes
    """The answer, or why there is none."""
    height: int = 0
    """Height that the state machine had executed when it was asked."""
    retry: bool = False
    """Whether it may be tried again, elsewhere or later."""

    def answer(self, ask: AdminAsk) -> AdminAnswer:
        """Return it as the answer to a question."""
        return AdminAnswer(ask.id, self.ok, self.body, self.height, self.retry)


Done = Callable[[ReadOutcome], None]


def ask_machine(executor: Executor, request: bytes) -> ReadOutcome:
    """Ask a replica's state machine as it is; whatever comes of it fits a frame."""
    try:
        answer = executor.query(request)
    except ApplicationError as error:
        return ReadOutcome(False, str(error).encode(), executor.height)
    if len(answer) > MAX_RESULTS_BYTES:
        return ReadOutcome(False, ANSWER_TOO_LARGE.encode(), executor.height)
    return ReadOutcome(True, answer, executor.height)


class _Reader(msgspec.Struct, eq=False):
    """Who asks, and what."""

    request: bytes
    done: Done


class ReadStage:
    """Readers of one node. Each gets exactly one outcome, if only that the node stops."""

    def __init__(
        self, application: ApplicationStage, clock: Clock, tell: Callable[[Read], None], executed: Callable[[], int]
    ) -> None:
        """Prepare; `tell` gives the replica an input, `executed` says up to which position everything is executed."""
        self._application = application
        self._clock = clock
        self._tell = tell
        self._executed = executed
        self._queue: ReadQueue[_Reader] = ReadQueue(secrets.randbits(TOKEN_BITS))
        self._due: list[_Reader] = []
        self._wake = anyio.Event()
        self._closed = ""
        self.count = 0
        """Reads that were answered since the start."""

    def read(self, request: bytes, done: Done) -> None:
        """Ask the state machine once it is recent enough; `done` is called later, or at once with a refusal."""
        if self._closed:
            done(_again(self._closed))
        elif self._queue.is_full:
            done(_again("overloaded"))
        else:
            question = self._queue.add(_Reader(request, done), self._clock.now_ms())
            self._wake.set()
            self._ask(question)

    def _ask(self, question: Read | None) -> None:
        if question is not None:
            self._tell(question)

    def on_ready(self, answer: ReadReady) -> None:
        """Take the engine's answer."""
        self._ask(self._queue.ready(answer, self._clock.now_ms()))
        self._wake.set()

    def on_executed(self) -> None:
        """Learn that the application is further."""
        if len(self._queue):
            self._wake.set()

    async def run(self) -> None:
        """Serve readers until cancelled."""
        while True:
            with anyio.move_on_after(TICK_S if len(self._queue) else None):
                await self._wake.wait()
            self._wake = anyio.Event()
            late, question = self._queue.tick(self._clock.now_ms())
            for reader in late:
                reader.done(_again("the replica does not learn in time how recent its state is"))
            self._ask(question)
            self._due += self._queue.due(self._executed())
            while self._due:
                await self._serve(self._due[:AT_ONCE])

    async def _serve(self, readers: list[_Reader]) -> None:
        outcomes = await self._application.call(self._answer, [reader.request for reader in readers])
        if self._closed:
            return
        del self._due[: len(readers)]
        self.count += len(readers)
        for reader, outcome in zip(readers, outcomes, strict=True):
            reader.done(outcome)

    def _answer(self, requests: list[bytes]) -> list[ReadOutcome]:
        return [ask_machine(self._application.executor, request) for request in requests]

    def close(self, reason: str) -> None:
        """Give everybody who waits, and whoever comes, a refusal."""
        self._closed = self._closed or reason
        due, self._due = self._due, []
        for reader in [*due, *self._queue.clear()]:
            reader.done(_again(self._closed))


def _again(reason: str) -> ReadOutcome:
    return ReadOutcome(False, reason.encode(), 0, retry=True)
