"""What the clients of a simulated member reach: its replica for requests, and the reads that it answers alone."""

from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.core.inputs import Read
from bftkit.core.outputs import ReadReady
from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    AnyRequest,
    Envelope,
    client_domain,
    decode_commands,
    decode_request,
    request_key,
    request_statement,
)
from bftkit.replica.execution import Answer
from bftkit.replica.inputs import Submission, Submitted
from bftkit.replica.read_queue import TOKEN_BITS, ReadQueue
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.client_edge import LAGGING_RETRY_MS, check_problem
from bftkit.runtime.reads import ask_machine
from bftkit.testing.checkers import Violation
from bftkit.testing.lies_to_clients import lies_about

if TYPE_CHECKING:
    from bftkit.testing.node import SimulatedNode

TICK_US = 50_000
"""How often is looked whether readers have waited too long, while there are any."""

LIES_BEFOREHAND = 0.3
"""Share of requests that a liar answers before anybody has executed them."""

_asks: msgspec.msgpack.Decoder[AdminAsk] = msgspec.msgpack.Decoder(AdminAsk)


class SimulatedEdge:
    """The client edge and the readers of one life of a member. The queue is the real one."""

    def __init__(self, node: "SimulatedNode") -> None:
        self._node = node
        config = node.settings.genesis.config
        self._domain = client_domain(config.cluster, config.group)
        random = node.world.choices.random("readers", node.instance, node.life)
        self._readers: ReadQueue[tuple[bytes, AdminAsk]] = ReadQueue(random.getrandbits(TOKEN_BITS))
        self._ticking = False

    @property
    def readers(self) -> int:
        """Count the readers who wait."""
        return len(self._readers)

    def submit(self, token: int, data: bytes) -> None:
        """Take an encoded request, as the client edge does."""
        node = self._node
        request = decode_request(data)
        if isinstance(request, Envelope):
            problem = self._problem(request)
            if problem:
                node.world.refused(node.index, token, problem)
                return
            session = node.executor.sessions.get(request.session)
            if session is None:
                node.world.refused(node.index, token, UNKNOWN_SESSION, LAGGING_RETRY_MS)
                return
            public_key, count = session.public_key, request.count
        else:
            public_key, count = request.public_key, 1
        statement = request_statement(self._domain, request)
        if not node.world.signatures.verify(public_key, statement, request.signature):
            raise Violation("a client's signature is not valid")
        self._lie(public_key, request)
        submission = Submission(token, request_key(request), data, count)
        node.turn(Submitted(node.clock.now_ms(), (submission,)))

    def _problem(self, envelope: Envelope) -> str:
        """Return what the state machine has against a command, where it looks at them before they are ordered."""
        node = self._node
        check = getattr(node.machine, "check", None)
        if check is None:
            return ""
        commands = tuple(decode_commands(envelope.commands))
        problem = check_problem(check, commands)
        if node.honest:
            node.world.checkers.checked(node.index, commands, problem)
        return problem

    def _lie(self, public_key: bytes, request: AnyRequest) -> None:
        """Answer at once what nobody has ordered yet, where a liar feels like it."""
        node = self._node
        byzantine = node.world.choices.byzantine
        if node.speak is not None and byzantine.chance("answers beforehand", node.index, LIES_BEFOREHAND):
            node.world.hits["invented answers"] += 1
            lie = byzantine.among("beforehand", node.index, lies_about(request))
            node.world.answer(node.index, Answer(public_key, lie))

    def read(self, public_key: bytes, data: bytes) -> None:
        """Take an encoded question of a client who believes this member alone."""
        ask = _asks.decode(data)
        if self._readers.is_full:
            self._reply(public_key, AdminAnswer(ask.id, False, b"overloaded", 0, retry=True))
            return
        question = self._readers.add((public_key, ask), self._node.clock.now_ms())
        if not self._ticking:
            self._ticking = True
            self._node.later(TICK_US, self._tick)
        self._ask(question)
        self.serve()

    def _ask(self, question: Read | None) -> None:
        if question is not None:
            self._node.turn(question)

    def ready(self, answer: ReadReady) -> Read | None:
        """Take the engine's answer; return what it is to be asked next."""
        question = self._readers.ready(answer, self._node.clock.now_ms())
        self.serve()
        return question

    def serve(self) -> None:
        """Answer the readers for whom this member is recent enough."""
        executor = self._node.executor
        for public_key, ask in self._readers.due(self._node.replica.commits.executed):
            self._reply(public_key, ask_machine(executor, ask.body).answer(ask))

    def _tick(self) -> None:
        self._ticking = False
        late, question = self._readers.tick(self._node.clock.now_ms())
        for public_key, ask in late:
            self._reply(public_key, AdminAnswer(ask.id, False, b"not in time", 0, retry=True))
        self._ask(question)
        if len(self._readers) and not self._ticking:
            self._ticking = True
            self._node.later(TICK_US, self._tick)

    def _reply(self, public_key: bytes, answer: Any) -> None:
        self._node.world.answer_read(self._node.index, public_key, answer)
