"""Reads through the log: what they see, what they leave as it is, and that nothing asked stops anybody."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.ids import canonical
from bftkit.replica import log_reads
from bftkit.replica.client_messages import ReadReply, ReadRequest, Reply, SessionOpened, decode_request, request_key
from bftkit.replica.execution import Executor
from bftkit.replica.log_reads import ANSWER_TOO_LARGE, CROWDED, NO_BYTES, NO_QUERIES, QUERY_FAILED
from bftkit.replica.sessions import MAX_RESULTS_BYTES
from bftkit.wire.auth import verify
from tests.replica.parts import (
    CLIENT,
    KEYS,
    LIMITS,
    Journal,
    batch_of,
    envelope,
    genesis_of,
    open_session,
    read_request,
)

GENESIS = genesis_of()


class Library(Journal):
    """Says how many commands it has executed, and what it was asked; large, broken and wrong answers when asked."""

    def query(self, request: bytes) -> bytes:
        match request:
            case b"raise":
                raise ValueError(f"{id(self)} is this object's own number")
            case b"recurse":
                return self.query(request)
            case b"text":
                return "text"  # type: ignore[return-value]  # what a broken state machine does
            case _ if request.startswith(b"size "):
                return bytes(int(request[5:]))
        return b"%d %s" % (len(self.commands), request)


def executor_of(application: Journal | None = None) -> Executor:
    return Executor(application or Library(), GENESIS, verify)


def run(executor: Executor, *requests):
    body = batch_of(*requests)
    return [answer.reply for answer in executor.execute(body.ref, body.blob, executor.height + 1)]


def named(number: int, request: bytes = b"q") -> ReadRequest:
    return read_request(request, number.to_bytes(16, "big"))


def test_a_read_sees_every_command_of_its_batch_wherever_it_stands_there():
    executor = executor_of()
    assert run(executor, named(1), open_session()) == [
        ReadReply(named(1).nonce, 1, b"0 q"),
        SessionOpened(bytes(16), (1, 1)),
    ]
    first, answer, second = run(executor, envelope((1, 1), 1, [b"a"]), named(2), envelope((1, 1), 2, [b"b"]))
    assert answer == ReadReply(named(2).nonce, 2, b"2 q")
    assert [type(reply) for reply in (first, second)] == [Reply, Reply]
    assert run(executor, named(3)) == [ReadReply(named(3).nonce, 3, b"2 q")]


def test_the_answer_is_for_whoever_signed():
    body = batch_of(read_request(key=KEYS[3]))
    (answer,) = executor_of().execute(body.ref, body.blob, 1)
    assert answer.public_key == KEYS[3].public_key


def test_a_read_changes_neither_state_nor_sessions():
    executor = executor_of()
    run(executor, open_session())
    run(executor, envelope((1, 0), 1, [b"a"]))
    roots = executor.roots()
    run(executor, named(1), named(2, b"raise"), named(3, b"x" * 1000))
    assert executor.roots() == roots
    assert executor.height == 3


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (b"raise", QUERY_FAILED),
        (b"recurse", QUERY_FAILED),
        (b"text", NO_BYTES),
        (b"size %d" % (MAX_RESULTS_BYTES + 1), ANSWER_TOO_LARGE),
        (b"x" * (LIMITS.max_command_bytes + 1), "a query is longer than 64 bytes"),
    ],
)
def test_what_cannot_be_answered_is_said_in_the_same_words_everywhere(request_, problem):
    replies = [run(executor_of(), named(1, request_)) for _ in range(2)]
    assert replies[0] == replies[1] == [ReadReply(named(1).nonce, 1, b"", problem)]


def test_a_state_machine_without_queries_says_so():
    assert run(executor_of(Journal()), named(1)) == [ReadReply(named(1).nonce, 1, b"", NO_QUERIES)]


def test_the_longest_answer_and_the_longest_question_are_answered():
    longest = named(1, b"size %d" % MAX_RESULTS_BYTES)
    (reply,) = run(executor_of(), longest)
    assert len(reply.answer) == MAX_RESULTS_BYTES
    assert len(canonical(reply)) < 1 << 20, "a reply is one frame"
    (reply,) = run(executor_of(), named(2, b"x" * LIMITS.max_command_bytes))
    assert not reply.problem


def test_the_answers_of_one_batch_have_so_much_room_and_the_next_batch_has_as_much_again(monkeypatch):
    monkeypatch.setattr(log_reads, "MAX_ANSWERS_BYTES", 100)
    executor = executor_of()
    replies = run(executor, *(named(number, b"size 40") for number in range(3)), named(9, b"size 20"), named(10))
    assert [(len(reply.answer), reply.problem) for reply in replies] == [
        (40, ""),
        (40, ""),
        (0, CROWDED),
        (20, ""),
        (0, CROWDED),
    ]
    (reply,) = run(executor, named(11, b"size 40"))
    assert not reply.problem


def test_a_read_that_stands_twice_in_a_batch_is_answered_once_and_a_forgery_takes_nobodys_place():
    forged = msgspec.structs.replace(named(1), request=b"another question")
    (reply,) = run(executor_of(), forged, named(1), named(1))
    assert reply.answer == b"0 q"


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.structs.replace(named(1), signature=bytes(64)),
        msgspec.structs.replace(named(1), signature=b""),
        msgspec.structs.replace(named(1), request=b"another"),
        msgspec.structs.replace(named(1), nonce=b"n" * 16),
        msgspec.structs.replace(named(1), public_key=KEYS[0].public_key),
        msgspec.structs.replace(named(1), public_key=b""),
        read_request(nonce=b"short"),
        read_request(nonce=b"x" * 17),
    ],
)
def test_what_nobody_has_signed_so_is_not_answered(bad):
    assert run(executor_of(), bad) == []


def test_a_read_counts_as_one_command_of_its_batch():
    executor = executor_of()
    body = batch_of(named(1), named(2), count=3)
    assert executor.execute(body.ref, body.blob, 1) == []
    assert executor.height == 1


def test_reads_have_names_of_their_own():
    keys = {
        request_key(request)
        for request in (named(1), named(2), open_session(nonce=named(1).nonce), read_request(key=KEYS[0]))
    }
    assert len(keys) == 4
    assert request_key(named(1)) == request_key(decode_request(canonical(named(1))))
    assert named(1).public_key == CLIENT.public_key
