"""Users' state machines with all that they offer: what `query` and `check` get wrong in a run is found."""

from __future__ import annotations

import itertools

import pytest

from bftkit.batteries.counter import Counter
from bftkit.batteries.kv import KeyValue
from bftkit.errors import Rejected
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import simulate

READS = Profile(clients=2, envelopes=10, think_ms=20, reads=1.0)
ENGINES = pytest.mark.parametrize(("engine", "replicas"), [("pbft", 4), ("raft", 3), ("solo", 1)])
KEYS = ("k0", "k1", "k2")
BAD = b"bad"


def put(random) -> bytes:
    return KeyValue.command_from_text(["put", random.choice(KEYS), f"{random.randrange(9)}"])


def get(random) -> bytes:
    return KeyValue.query_from_text(["get", random.choice(KEYS)])


def number_or_bad(random) -> bytes:
    return BAD if random.random() < 0.3 else b"%d" % random.randrange(9)


@ENGINES
def test_a_machine_s_own_queries_are_asked_and_right(engine, replicas):
    asked: list[bytes] = []

    class Asked(KeyValue):
        def query(self, request):
            asked.append(request)
            return super().query(request)

    outcome = simulate(Asked, faults=READS, engine=engine, replicas=replicas, commands=put, queries=get)
    assert outcome.ok, outcome.violations
    assert len(asked) > outcome.counters["reads"] > 10
    assert {KeyValue.query_from_text(["get", key]) for key in KEYS} == set(asked)


@ENGINES
def test_an_answer_that_is_no_function_of_the_state_is_found(engine, replicas):
    numbers = itertools.count()

    class Counting(Counter):
        def query(self, request):
            return b"%d" % next(numbers)

    outcome = simulate(Counting, faults=READS, engine=engine, replicas=replicas)
    assert "answer" in outcome.violations[0]


def test_a_query_that_changes_the_state_is_found():
    class Careless(Counter):
        def query(self, request):
            self.total += 1
            return super().query(request)

    outcome = simulate(Careless, faults=READS, engine="pbft")
    assert not outcome.ok


def test_a_question_of_one_s_own_must_have_an_answer_and_one_of_nobody_s_need_not():
    class Strict(Counter):
        def query(self, request):
            raise ValueError(request)

    assert simulate(Strict, faults=READS, engine="solo", replicas=1).ok
    outcome = simulate(Strict, faults=READS, engine="solo", replicas=1, queries=lambda random: b"sum")
    assert "a read was not answered" in outcome.violations[0]


class Checked(Counter):
    """Refuses bad commands before they are ordered, and would fall over them."""

    def check(self, command):
        if command == BAD:
            raise Rejected("a bad command")

    def apply(self, batch):
        assert BAD not in batch.commands
        return super().apply(batch)


@ENGINES
def test_commands_are_checked_before_they_are_ordered(engine, replicas):
    outcome = simulate(Checked, faults=READS, engine=engine, replicas=replicas, commands=number_or_bad)
    assert outcome.ok, outcome.violations
    assert outcome.counters["refused: a bad command"] > 5
    assert outcome.acknowledged > 5


def test_who_checks_by_more_than_the_command_is_found():
    verdicts = itertools.cycle([True, True, False])

    class Moody(Counter):
        def check(self, command):
            if not next(verdicts):
                raise Rejected("not today")

    profile = Profile(clients=2, envelopes=10, think_ms=20, repeat=1.0)
    outcome = simulate(Moody, faults=profile, engine="pbft")
    assert "where another said" in outcome.violations[0]


def test_a_check_that_fails_is_found():
    class Failing(Counter):
        def check(self, command):
            raise LookupError("no such thing")

    outcome = simulate(Failing, faults=READS, engine="solo", replicas=1)
    assert "the command cannot be checked: LookupError('no such thing')" in outcome.violations[0]
