"""What makes reads recent and believable, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import EpochConfig, Genesis
from bftkit.core.membership import Member
from bftkit.core.outputs import ReadReady
from bftkit.core.quorum import FaultModel
from bftkit.replica import client_messages
from bftkit.replica.client_messages import ReadReply, ReadRequest, client_domain
from bftkit.replica.execution import Answer, Executor
from bftkit.replica.log_reads import BatchReads
from bftkit.replica.read_queue import ReadQueue
from bftkit.testing.mutant_catalogue.schedules import LYING, READING
from bftkit.testing.mutants import Check, Mutant, Schedules, agreeing_at_once
from bftkit.wire.auth import SigningKey, verify

KEY = SigningKey(bytes(range(32)))
NONCE = bytes(16)


def _at_once(original: Any) -> Any:
    def add(self: Any, reader: Any, now: int) -> Any:
        question = original(self, reader, now)
        return None if question is None else self.ready(ReadReady(question.token, 0), now)

    return add


def _whatever_is_executed(original: Any) -> Any:
    return lambda self, executed: original(self, 1 << 62)


def _joins_late(original: Any) -> Any:
    def add(self: Any, reader: Any, now: int) -> Any:
        question = original(self, reader, now)
        if question is None and self._asked is not None:
            self._asked.readers.append(self._gathering.pop())
        return question

    return add


def _look_at_late_readers() -> str | None:
    """Who comes while a question is under way is not served by its answer."""
    queue: ReadQueue[str] = ReadQueue(1)
    queue.add("early", 0)
    queue.add("late", 0)
    queue.ready(ReadReady(1, 5), 0)
    return "somebody reads who came after the question" if "late" in queue.due(5) else None


def _any_question(original: Any) -> Any:
    return lambda domain, public_key, nonce, request: original(domain, public_key, nonce, b"")


def _look_at_exchanged_questions() -> str | None:
    """A read under somebody's signature asks what he asked."""
    config = EpochConfig("c", 0, 0, "none", "1", FaultModel.CRASH, b"", (Member("n0", KEY.public_key),))
    executor = Executor(_Echo(), Genesis(config, EMPTY_CHECKPOINT), verify)
    statement = client_messages.read_statement(client_domain("c", 0), KEY.public_key, NONCE, b"mine")
    asked = ReadRequest(KEY.public_key, NONCE, b"mine", KEY.sign(statement))
    forged = [(0, msgspec.structs.replace(asked, request=b"another"))]
    return "a question that was exchanged on its way is answered" if list(executor._read(1, forged)) else None


class _Echo:
    """A state machine that answers with the question."""

    def query(self, request: bytes) -> bytes:
        return request

    def apply(self, batch: Any) -> list[bytes]:
        return batch.commands  # type: ignore[no-any-return]  # a mutant's prop executes nothing

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None:
        return None


def _before_its_batch(original: Any) -> Any:
    def execute(self: Any, ref: Any, blob: Any, height: int) -> list[Answer]:
        early = BatchReads(self._application, height, 1 << 16)
        replies = {
            request.nonce: early.answer(request)
            for request, _ in self._open(ref, blob)
            if isinstance(request, ReadRequest)
        }
        return [
            Answer(each.public_key, replies[each.reply.nonce]) if isinstance(each.reply, ReadReply) else each
            for each in original(self, ref, blob, height)
        ]

    return execute


MUTANTS = (
    Mutant(
        "reads: the state as it is will do",
        "A replica answers a read from its state without asking whether that is recent.",
        "bftkit.replica.read_queue:ReadQueue.add",
        _at_once,
        (Schedules("solo", 1, READING),),
    ),
    Mutant(
        "reads: the position is not awaited",
        "A replica answers a read before it has executed what the engine named.",
        "bftkit.replica.read_queue:ReadQueue.due",
        _whatever_is_executed,
        (Schedules("solo", 1, READING),),
    ),
    Mutant(
        "reads: a late reader joins a question under way",
        "A position that was asked for before the call of a read serves it.",
        "bftkit.replica.read_queue:ReadQueue.add",
        _joins_late,
        (Check(_look_at_late_readers),),
    ),
    Mutant(
        "reads: answered before the commands of their batch",
        "A read says that it saw a height, and did not see the commands of that height.",
        "bftkit.replica.execution:Executor.execute",
        _before_its_batch,
        (Schedules(profile=READING),),
    ),
    Mutant(
        "reads: one answer is enough in a byzantine group",
        "A client takes the first answer to a read, whoever gives it.",
        "bftkit.runtime.ordered_reads:OrderedReads._agreed",
        agreeing_at_once,
        (Schedules(profile=LYING),),
    ),
    Mutant(
        "reads: the signature does not cover the question",
        "Another question is answered under the name of a client's read.",
        "bftkit.replica.client_messages:read_statement",
        _any_question,
        (Check(_look_at_exchanged_questions),),
    ),
)
"""All of them."""
