"""Reads of simulated clients, through the log and at one member, and the member's side of the latter."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.inputs import Read
from bftkit.core.outputs import ReadReady
from bftkit.core.quorum import FaultModel
from bftkit.plugins import installed_engines, load_engine
from bftkit.replica import read_queue
from bftkit.replica.client_messages import ReadReply, ReadRequest, decode_request, request_statement
from bftkit.runtime import ordered_reads
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.testing.checkers import Violation
from bftkit.testing.profile import Profile
from bftkit.testing.reader import MOST_OPEN, RETRY_MS, SimulatedReader
from bftkit.testing.simulation import finish, make_world, run_schedule
from bftkit.testing.solo import solo_spec

KEY = b"k" * 32


class Watched:
    """A reader in a world where nobody answers but the test."""

    def __init__(self, engine: str = "pbft") -> None:
        spec = solo_spec() if engine == "solo" else load_engine(engine)
        self.world = make_world(1, spec, 1 if engine == "solo" else 4, Profile(clients=0))
        self.key = self.world.signatures.public_key("reader")
        self.sent: list[tuple[int, bytes]] = []
        self.judged: list[tuple] = []
        self.world.request = lambda member, data, client=None: self.sent.append((member, data))
        self.world.read = lambda member, key, data: self.sent.append((member, data))
        self.world.checkers.read = lambda *judged: self.judged.append(judged)
        self.reader = SimulatedReader(self.world, 3, self.key)

    def run(self, ms: int) -> None:
        self.world.events.run(self.world.events.now_us + 1_000 * ms)

    def requests(self) -> list[ReadRequest]:
        return [request for _, data in self.sent if isinstance(request := decode_request(data), ReadRequest)]

    def asks(self) -> list[AdminAsk]:
        return [msgspec.msgpack.decode(data, type=AdminAsk) for _, data in self.sent]


def test_a_read_through_the_log_is_signed_and_believed_when_enough_say_the_same():
    watched = Watched()
    watched.world.checkers.told(7)
    watched.reader.read()
    watched.world.checkers.told(8)
    (request,) = watched.requests()
    assert request.public_key == watched.key
    statement = request_statement(watched.world.client_domain, request)
    assert watched.world.signatures.verify(watched.key, statement, request.signature)
    reply = ReadReply(request.nonce, 9, b"a")
    lower = msgspec.structs.replace(reply, height=8)
    for member, said in ((0, reply), (0, reply), (1, lower), (2, reply)):
        assert watched.judged == []
        watched.reader.receive(member, said)
    assert watched.judged == [(request.request, b"a", 9, 7)], "what was told after the call does not count"
    assert watched.reader.idle
    watched.reader.receive(1, reply)
    assert len(watched.judged) == 1


def test_who_is_not_answered_asks_everybody_in_the_end():
    watched = Watched()
    watched.reader.read()
    watched.run(2 * ordered_reads.RETRY_MS)
    assert {member for member, _ in watched.sent} == {0, 1, 2, 3}
    assert len(set(watched.requests())) == 1


def test_few_are_open_at_once_and_all_have_names_and_questions_of_their_own():
    watched, other = Watched(), Watched()
    other.reader = SimulatedReader(other.world, 4, other.key)
    for _ in range(MOST_OPEN + 3):
        watched.reader.read()
        other.reader.read()
    requests = [*watched.requests(), *other.requests()]
    assert len(requests) == 2 * MOST_OPEN
    assert len({request.nonce for request in requests}) == len(requests)
    assert len({request.request for request in requests}) == len(requests)


def test_a_read_at_one_member_is_answered_by_it_and_asked_again_when_it_cannot():
    watched = Watched("solo")
    watched.reader.read()
    (ask,) = watched.asks()
    watched.reader.answered(AdminAnswer(ask.id, False, b"not yet", 0, retry=True))
    assert not watched.reader.idle
    watched.run(3 * RETRY_MS)
    assert len(watched.asks()) > 1
    watched.reader.answered(AdminAnswer(ask.id, True, b"a", 5))
    watched.reader.answered(AdminAnswer(ask.id, True, b"a", 6))
    assert watched.judged == [(ask.body, b"a", 5, 0)]


def test_a_read_that_is_refused_for_good_is_a_finding():
    watched = Watched("solo")
    watched.reader.read()
    with pytest.raises(Violation, match="was not answered: it raised"):
        watched.reader.answered(AdminAnswer(1, False, b"it raised", 0))


READS = Profile(clients=2, envelopes=6, think_ms=20, reads=1.0)


def members_for(engine: str) -> int:
    """Return how many members tolerate one fault, where the engine has others than one."""
    if engine == "solo":
        return 1
    return 3 if load_engine(engine).fault_model is FaultModel.CRASH else 4


@pytest.mark.parametrize("engine", installed_engines())
def test_reads_of_a_run_are_answered_and_counted(engine):
    outcome = run_schedule(1, engine=engine, replicas=members_for(engine), profile=READS)
    assert outcome.ok, outcome.violations
    assert 4 < outcome.counters["reads"] <= 12


@pytest.mark.parametrize("engine", installed_engines())
def test_reads_stay_recent_while_members_crash_and_are_cut_off(engine):
    rough = msgspec.structs.replace(
        READS, crashes=5, partitions=3, cuts=2, pauses=2, loss=0.1, envelopes=12, apply_us=(20, 20_000)
    )
    reads = 0
    for seed in range(8):
        outcome = run_schedule(seed, engine=engine, replicas=members_for(engine), profile=rough)
        assert outcome.ok, f"seed {seed}: {outcome.violations[0]}"
        reads += outcome.counters["reads"]
    assert reads > 8 * 8


def test_without_reads_in_the_profile_nobody_reads():
    outcome = run_schedule(1, engine="solo", replicas=1, profile=msgspec.structs.replace(READS, reads=0.0))
    assert "reads" not in outcome.counters


# --- The member's side -----------------------------------------------------------------------------------------------


class Member:
    """A member of one, whose engine does not answer by itself."""

    def __init__(self) -> None:
        self.world = make_world(1, solo_spec(), 1, Profile(clients=0))
        self.answers: list[tuple[int, bytes, AdminAnswer]] = []
        self.questions: list[Read] = []
        self.world.answer_read = lambda *answer: self.answers.append(answer)
        (self.node,) = self.world.nodes
        self.node.start()
        self.node.turn = lambda *events: self.questions.extend(events)

    def ask(self, number: int = 1) -> None:
        self.node.edge.read(KEY, msgspec.msgpack.encode(AdminAsk(number, "read", b"q")))

    def run(self, ms: int) -> None:
        self.world.events.run(self.world.events.now_us + 1_000 * ms)


def test_a_member_waits_for_its_engine_and_for_its_application():
    member = Member()
    member.ask()
    (question,) = member.questions
    member.node.edge.ready(ReadReady(question.token, 2))
    assert member.answers == []
    member.node.replica.commits.executed = 2
    member.node.edge.serve()
    ((index, key, answer),) = member.answers
    assert (index, key, answer.id, answer.ok) == (0, KEY, 1, True)


def test_a_member_asks_its_engine_again_and_lets_go_who_has_waited_too_long():
    member = Member()
    member.ask()
    member.run(read_queue.ASK_AGAIN_MS + 100)
    assert len(member.questions) >= 2
    member.run(read_queue.PATIENCE_MS)
    ((_, _, answer),) = member.answers
    assert (answer.ok, answer.retry) == (False, True)
    asked = len(member.questions)
    member.run(read_queue.PATIENCE_MS)
    assert len(member.questions) == asked, "nobody waits"


def test_a_member_takes_so_many_readers_and_no_more(monkeypatch):
    monkeypatch.setattr(read_queue, "MOST_READERS", 2)
    member = Member()
    for number in range(3):
        member.ask(number)
    ((_, _, answer),) = member.answers
    assert (answer.id, answer.body, answer.retry) == (2, b"overloaded", True)


def test_each_life_has_tokens_of_its_own():
    member = Member()
    member.ask()
    first = member.questions[0].token
    del member.node.turn
    member.world.crashed(member.node)
    member.run(1_000)
    member.node.turn = lambda *events: member.questions.extend(events)
    member.ask()
    assert abs(member.questions[-1].token - first) > 1_000


def test_a_machine_that_fails_at_a_question_is_a_finding():
    world = make_world(1, solo_spec(), 1, READS)
    for node in world.nodes:
        node.start = Failing(node)
    (violation,) = finish(world).violations
    assert "a read was not answered: query() raised" in violation


class Failing:
    """Starts a member whose state machine fails at every question."""

    def __init__(self, node) -> None:
        self.node, self.start = node, node.start

    def __call__(self) -> None:
        self.start()
        self.node.machine.query = self.fail

    def fail(self, request: bytes) -> bytes:
        raise ZeroDivisionError


def test_a_liar_invents_answers_to_reads_and_is_not_believed():
    in_all_but_reads = {3: lambda receiver, message: [(receiver, message)]}
    profile = msgspec.structs.replace(READS, clients=3)
    world = make_world(2, load_engine("pbft"), 4, profile, liars=in_all_but_reads)
    outcome = finish(world)
    assert outcome.ok, outcome.violations
    assert outcome.faults_hit["invented answers"] > 0
