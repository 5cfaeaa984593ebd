"""Executing decided batches: whatever stands in them, all replicas make the same of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.batch import BatchRef, array_header, make_batch
from bftkit.core.ids import canonical
from bftkit.errors import ApplicationError, StorageError
from bftkit.replica.client_messages import Envelope, Refusal, Reply, SessionOpened
from bftkit.replica.execution import Executor
from bftkit.wire.auth import verify
from tests.replica.parts import CLIENT, KEYS, Journal, batch_of, body_of, envelope, genesis_of, open_session

GENESIS = genesis_of()


class Runner:
    def __init__(self, application=None) -> None:
        self.application = application or Journal()
        self.executor = Executor(self.application, GENESIS, verify)

    def run(self, *requests, count=None):
        body = batch_of(*requests, count=count)
        return self.executor.execute(body.ref, body.blob, self.executor.height + 1)

    def session(self, **fields) -> tuple[int, int]:
        (answer,) = self.run(open_session(**fields))
        assert isinstance(answer.reply, SessionOpened)
        return answer.reply.session


def test_a_session_is_opened_and_used():
    runner = Runner()
    session = runner.session()
    assert session == (1, 0)
    (answer,) = runner.run(envelope(session, 1, [b"a", b"b"]))
    assert answer.reply == Reply(session, 1, 2, 2, (b"1:a", b"2:b"))
    assert answer.public_key == open_session().public_key


def test_opening_and_using_many_in_one_batch_keeps_their_order():
    runner = Runner()
    answers = runner.run(open_session(nonce=b"1" * 16), open_session(nonce=b"2" * 16))
    assert [answer.reply.session for answer in answers] == [(1, 0), (1, 1)]
    answers = runner.run(
        envelope((1, 1), 1, [b"a"]),
        open_session(nonce=b"3" * 16),
        envelope((1, 0), 1, [b"b"]),
        envelope((1, 1), 2, [b"c"]),
    )
    assert [type(answer.reply) for answer in answers] == [Reply, SessionOpened, Reply, Reply]
    assert runner.application.commands == [b"a", b"b", b"c"]
    assert [reply.results for reply in (answers[0].reply, answers[2].reply, answers[3].reply)] == [
        (b"1:a",),
        (b"2:b",),
        (b"3:c",),
    ]


def test_heights_follow_each_other():
    runner = Runner()
    body = batch_of(open_session())
    for height in (0, 2):
        with pytest.raises(ApplicationError):
            runner.executor.execute(body.ref, body.blob, height)


def test_a_batch_that_is_no_batch_holds_nothing():
    runner = Runner()
    body = body_of("nonsense")
    assert runner.executor.execute(body.ref, body.blob, 1) == []
    assert runner.executor.execute(body.ref, b"\xff", 2) == []
    assert runner.executor.height == 2


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_that_lies_about_its_count_holds_nothing(count):
    runner = Runner()
    session = runner.session()
    assert runner.run(envelope(session, 1, [b"a", b"b"]), count=count) == []
    assert runner.application.commands == []
    assert len(runner.run(envelope(session, 1, [b"a", b"b"]))) == 1


def spoilt(good: Envelope, commands: bytes) -> Envelope:
    return msgspec.structs.replace(good, commands=msgspec.Raw(commands))


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(b"\x01", id="a number"),
        pytest.param(b"\x91\x01", id="not bytes"),
        pytest.param(b"\x91" * 400 + b"\x90", id="nested"),
        pytest.param(b"\x91" * 3000 + b"\x90", id="nested beyond every interpreter's patience"),
    ],
)
def test_commands_that_are_none_void_the_batch_however_an_interpreter_finds_it_out(commands):
    runner = Runner()
    session = runner.session()
    good, bad = envelope(session, 1, [b"a"]), spoilt(envelope(session, 2, [b"b"]), commands)
    fields = [1, list(session), 2, 1, 0, msgspec.Raw(commands), bad.signature]
    blob = array_header(2) + canonical(good) + canonical(fields)
    assert runner.executor.execute(BatchRef(bytes(32), 1, 2, len(blob)), blob, 2) == []
    assert runner.application.commands == []


def test_forged_signatures_execute_nothing_and_are_not_answered():
    runner = Runner()
    session = runner.session()
    forged = msgspec.structs.replace(open_session(nonce=b"x" * 16), nonce=b"y" * 16)
    answers = runner.run(envelope(session, 1, [b"a"], key=KEYS[0]), forged, envelope(session, 2, [b"b"]))
    assert len(answers) == 1
    assert runner.application.commands == [b"b"]


@pytest.mark.parametrize("fields", [{"nonce": b"short"}, {"public_key": b"k" * 31}])
def test_a_malformed_opening_is_not_answered(fields):
    runner = Runner()
    assert runner.run(msgspec.structs.replace(open_session(), **fields)) == []
    assert len(runner.executor.sessions) == 0


def test_an_unknown_session_executes_nothing():
    runner = Runner()
    assert runner.run(envelope((9, 9), 1, [b"a"])) == []
    assert runner.application.commands == []


def test_the_same_envelope_twice_in_a_batch_executes_once_and_is_answered_once():
    runner = Runner()
    session = runner.session()
    twice = envelope(session, 1, [b"a", b"b"])
    answers = runner.run(twice, twice, envelope(session, 2, [b"b"]), envelope(session, 3, [b"c"]))
    assert runner.application.commands == [b"a", b"b", b"c"]
    assert [answer.reply.first for answer in answers] == [1, 3]


def test_a_repetition_later_is_answered_from_memory():
    runner = Runner()
    session = runner.session()
    first = runner.run(envelope(session, 1, [b"a"]))
    assert runner.run(envelope(session, 1, [b"a"])) == first
    assert runner.application.commands == [b"a"]


def test_an_acknowledgement_that_passes_an_envelope_of_its_own_batch_stops_nobody():
    runner = Runner()
    session = runner.session()
    answers = runner.run(envelope(session, 9, [b"a"], acknowledged=8), envelope(session, 5, [b"b"]))
    assert [type(answer.reply) for answer in answers] == [Reply, Refusal]
    assert runner.application.commands == [b"a"]
    runner = Runner()
    session = runner.session()
    answers = runner.run(envelope(session, 1, [b"a"]), envelope(session, 2, [b"b"], acknowledged=1))
    assert [type(answer.reply) for answer in answers] == [Reply, Reply]


def test_a_leap_of_the_acknowledgement_harms_nobody():
    runner = Runner()
    session = runner.session()
    (answer,) = runner.run(envelope(session, 2**60, [b"a"], acknowledged=2**60 - 1))
    assert isinstance(answer.reply, Reply)


@pytest.mark.parametrize(("commands", "count"), [([b"a" * 65], None), ([b"a"], 2), ([b"a", b"b"], 1)])
def test_an_envelope_beyond_the_limits_is_refused_alone(commands, count):
    runner = Runner()
    session = runner.session()
    refused, accepted = runner.run(envelope(session, 1, commands, count=count), envelope(session, 5, [b"fine"]))
    assert isinstance(refused.reply, Refusal)
    assert not refused.reply.executed
    assert isinstance(accepted.reply, Reply)


def test_a_session_that_is_evicted_in_the_batch_that_uses_it_last():
    runner = Runner()
    session = runner.session()
    others = [open_session(nonce=bytes([index]) * 16) for index in range(1, 4)]
    runner.run(*others)
    answers = runner.run(envelope(session, 1, [b"a"]), open_session(nonce=b"z" * 16))
    assert [type(answer.reply) for answer in answers] == [Reply, SessionOpened]
    assert runner.executor.sessions.get(session) is not None, "it was just used"


class Broken(Journal):
    def __init__(self, **methods) -> None:
        super().__init__()
        for name, method in methods.items():
            setattr(self, name, method)


def failing(*_):
    raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize(
    "apply",
    [
        failing,
        lambda batch: [],
        lambda batch: [b"a", b"b"],
        lambda batch: ["text"],
        lambda batch: None,
        lambda batch: {0: b"a"},
    ],
)
def test_a_state_machine_that_breaks_its_word_stops_its_replica(apply):
    runner = Runner(Broken(apply=apply))
    session = runner.session()
    with pytest.raises(ApplicationError):
        runner.run(envelope(session, 1, [b"a"]))


@pytest.mark.parametrize("root", [failing, lambda: b"short", lambda: "x" * 32])
def test_a_root_that_is_none_is_an_error_of_the_application(root):
    with pytest.raises(ApplicationError):
        Runner(Broken(state_root=root)).executor.roots()


@pytest.mark.parametrize("snapshot", [failing, lambda: "text"])
def test_a_snapshot_that_is_none_is_an_error_of_the_application(snapshot):
    with pytest.raises(ApplicationError):
        Runner(Broken(snapshot=snapshot)).executor.snapshot()


@pytest.mark.parametrize("query", [failing, lambda request: "text", None])
def test_a_query_that_fails_is_an_error_of_the_application(query):
    with pytest.raises(ApplicationError):
        Runner(Broken(query=query)).executor.query(b"")


def test_a_query_is_answered():
    assert Runner(Broken(query=lambda request: request * 2)).executor.query(b"ab") == b"abab"


def test_without_a_root_of_its_own_the_snapshot_is_hashed():
    runner = Runner(Broken(state_root=None))
    before = runner.executor.roots()
    session = runner.session()
    assert runner.executor.roots()[0] == before[0]
    runner.run(envelope(session, 1, [b"a"]))
    assert runner.executor.roots()[0] != before[0]


def test_a_snapshot_brings_another_replica_to_the_same_state():
    runner, other = Runner(), Runner()
    session = runner.session()
    runner.run(envelope(session, 1, [b"a"]))
    other.executor.restore(runner.executor.snapshot())
    assert other.executor.height == 2
    assert other.executor.roots() == runner.executor.roots()
    assert other.run(envelope(session, 1, [b"a"])) == runner.run(envelope(session, 1, [b"a"]))
    assert other.application.commands == [b"a"]


@pytest.mark.parametrize("data", [b"", b"\x93\x01\xc4\x00\xc4\x00", b"\x93\x01\xc4\x01\x90\xc4\x01\x01", b"junk"])
def test_what_is_no_snapshot_is_refused(data):
    with pytest.raises((StorageError, ApplicationError)):
        Runner().executor.restore(data)


REQUESTS = st.one_of(
    st.builds(lambda nonce: open_session(nonce=bytes([nonce]) * 16), st.integers(0, 5)),
    st.builds(
        lambda session, first, commands, acknowledged, key: envelope(session, first, commands, acknowledged, key=key),
        st.tuples(st.integers(1, 4), st.integers(0, 3)),
        st.integers(0, 20),
        st.lists(st.binary(max_size=3), max_size=4),
        st.integers(-1, 18),
        st.sampled_from([CLIENT, CLIENT, CLIENT, KEYS[0]]),
    ),
)


@given(st.lists(st.lists(REQUESTS, min_size=1, max_size=8), max_size=8), st.integers(0, 8))
def test_two_replicas_that_execute_the_same_log_agree_wherever_one_restarts(batches, restart):
    one, other = Runner(), Runner()
    for number, requests in enumerate(batches):
        assert one.run(*requests) == other.run(*requests)
        assert one.executor.roots() == other.executor.roots()
        if number == restart:
            again = Runner()
            again.executor.restore(other.executor.snapshot())
            other = again
    assert one.executor.snapshot() == other.executor.snapshot()


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=12))
def test_in_one_batch_every_sequence_executes_at_most_once(runs):
    runner = Runner()
    session = runner.session()
    requests = [
        envelope(session, first, [b"%d" % sequence for sequence in range(first, first + count)])
        for first, count in runs
    ]
    runner.run(*requests)
    expected: list[bytes] = []
    for first, count in runs:
        own = [b"%d" % sequence for sequence in range(first, first + count)]
        if not set(own) & set(expected):
            expected += own
    assert runner.application.commands == expected


def test_an_empty_log_leaves_an_empty_state():
    body = make_batch(0, 1, [], 1)
    runner = Runner()
    assert runner.executor.execute(body.ref, body.blob, 1) == []


class Loud(Journal):
    """Answers every command with 250 kB."""

    def apply(self, batch):
        return [b"r" * 250_000 for _ in super().apply(batch)]


def test_results_that_no_reply_can_hold_are_refused_alike_now_and_later():
    runner = Runner(Loud())
    session = runner.session()
    large = envelope(session, 1, [b"c"] * 4)
    (first,), (again,) = runner.run(large), runner.run(large)
    assert isinstance(first.reply, Refusal)
    assert first.reply.executed
    assert "larger than a reply" in first.reply.reason
    assert again.reply == first.reply
    assert len(runner.application.commands) == 4
    restored = Runner(Loud())
    restored.executor.restore(runner.executor.snapshot())
    (later,) = restored.run(large)
    assert later.reply == first.reply
    (answer,) = runner.run(envelope(session, 5, [b"c"] * 3))
    assert isinstance(answer.reply, Reply)
