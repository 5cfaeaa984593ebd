"""The linearizability checkers: what they must refuse, and what they must not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bftkit.batteries import kv
from bftkit.core.batch import CommittedBatch
from bftkit.testing.linearizability import (
    COUNTER,
    KEY_VALUE,
    REGISTER,
    Model,
    Operation,
    check_by_index,
    check_history,
    history_problem,
)

GET = ("get",)


def put(value):
    return ("put", value)


def cas(expected, value):
    return ("cas", expected, value)


def add(number):
    return ("add", number)


DELETE = ("delete",)


def history(*rows, key=None) -> list[Operation]:
    """Operations as rows of (client, called, returned, input, output)."""
    return [
        Operation(client, called, returned, given_input, output, key)
        for client, called, returned, given_input, output in rows
    ]


BAD_REGISTERS: dict[str, list[tuple]] = {
    "a read of nothing after a write": [(0, 0, 1, put(1), None), (1, 2, 3, GET, None)],
    "a read of something never written": [(0, 0, 1, put(1), None), (1, 2, 3, GET, 2)],
    "a read from the future": [(1, 0, 1, GET, 1), (0, 2, 3, put(1), None)],
    "a stale read": [(0, 0, 1, put(1), None), (0, 2, 3, put(2), None), (1, 4, 5, GET, 1)],
    "a stale read by the writer": [(0, 0, 1, put(1), None), (0, 2, 3, put(2), None), (0, 4, 5, GET, 1)],
    "reads that go back": [(0, 0, 9, put(1), None), (1, 1, 2, GET, 1), (1, 3, 4, GET, None)],
    "reads that go back across clients": [(0, 0, 9, put(1), None), (1, 1, 2, GET, 1), (2, 3, 4, GET, None)],
    "reads that see two writes in two orders": [
        (0, 0, 9, put(1), None),
        (1, 0, 9, put(2), None),
        (2, 10, 11, GET, 1),
        (3, 12, 13, GET, 2),
    ],
    "overlapping reads that see two writes in two orders": [
        (0, 0, 1, put(1), None),
        (1, 0, 1, put(2), None),
        (2, 2, 3, GET, 1),
        (2, 4, 5, GET, 2),
        (3, 2, 3, GET, 2),
    ],
    "a write that came undone": [(0, 0, 1, put(1), None), (1, 2, 3, GET, 1), (1, 4, 5, GET, None)],
    "a deleted value that is back": [
        (0, 0, 1, put(1), None),
        (0, 2, 3, DELETE, True),
        (1, 4, 5, GET, 1),
    ],
    "a delete of nothing that found something": [(0, 0, 1, DELETE, True)],
    "a delete of something that found nothing": [(0, 0, 1, put(1), None), (1, 2, 3, DELETE, False)],
    "two deletes of one value": [
        (0, 0, 1, put(1), None),
        (1, 2, 5, DELETE, True),
        (2, 3, 6, DELETE, True),
    ],
    "a cas on a value that was gone": [
        (0, 0, 1, put(1), None),
        (0, 2, 3, put(2), None),
        (1, 4, 5, cas(1, 3), True),
    ],
    "a cas on a value that never was": [(0, 0, 1, cas(7, 8), True)],
    "a cas that should have succeeded": [(0, 0, 1, put(1), None), (1, 2, 3, cas(1, 2), False)],
    "two cas from one value": [
        (0, 0, 1, put(1), None),
        (1, 2, 5, cas(1, 2), True),
        (2, 3, 6, cas(1, 3), True),
    ],
    "a failed cas that took effect": [(0, 0, 1, cas(9, 1), False), (1, 2, 3, GET, 1)],
    "a cas that succeeded and left no trace": [
        (0, 0, 1, put(1), None),
        (0, 2, 3, cas(1, 2), True),
        (1, 4, 5, GET, 1),
    ],
    "a chain of cas with a broken link": [
        (0, 0, 1, cas(None, 1), True),
        (0, 2, 3, cas(1, 2), True),
        (1, 4, 5, cas(1, 3), True),
    ],
    "an unknown write that is seen, and then is not": [
        (0, 0, None, put(1), None),
        (1, 2, 3, GET, 1),
        (1, 4, 5, GET, None),
    ],
    "an unknown write that is seen twice": [
        (0, 0, None, put(1), None),
        (1, 2, 3, GET, 1),
        (1, 4, 5, put(2), None),
        (1, 6, 7, GET, 1),
    ],
    "an unknown write that is seen before its call": [(1, 0, 1, GET, 1), (0, 2, None, put(1), None)],
    "a lost write among many": [
        *[(client, client, 20 + client, put(client), None) for client in range(5)],
        (9, 30, 31, GET, None),
    ],
    "a write that is lost between two reads of it": [
        (0, 0, 1, put(1), None),
        (1, 2, 3, GET, 1),
        (2, 4, 5, DELETE, False),
        (1, 6, 7, GET, 1),
    ],
    "an operation that returned before its call": [(0, 5, 4, put(1), None)],
    "a read between two writes of one client that saw neither": [
        (0, 0, 1, put(1), None),
        (1, 2, 3, GET, None),
        (0, 4, 5, put(2), None),
    ],
    "a write of one client that overtook its own later one": [
        (0, 0, 1, put(1), None),
        (0, 2, 3, put(2), None),
        (1, 4, 5, GET, 2),
        (1, 6, 7, GET, 1),
    ],
}

BAD_COUNTERS: dict[str, list[tuple]] = {
    "an addition that was lost": [(0, 0, 1, add(1), 1), (0, 2, 3, add(1), 1)],
    "an addition that was done twice": [(0, 0, 1, add(1), 1), (0, 2, 3, GET, 2)],
    "two additions with one sum": [(0, 0, 5, add(1), 1), (1, 0, 5, add(1), 1)],
    "sums that leave a gap": [(0, 0, 1, add(1), 1), (1, 2, 3, add(1), 3)],
    "a sum below an earlier one": [(0, 0, 1, add(5), 5), (1, 2, 3, GET, 4)],
    "an unknown addition that counts twice": [(0, 0, None, add(1), None), (1, 2, 3, GET, 2)],
    "an unknown addition that comes and goes": [
        (0, 0, None, add(1), None),
        (1, 2, 3, GET, 1),
        (1, 4, 5, GET, 0),
    ],
    "a sum that needs a later addition": [(0, 0, 1, GET, 1), (1, 2, 3, add(1), 1)],
}

GOOD_REGISTERS: dict[str, list[tuple]] = {
    "nothing": [],
    "a write and a read": [(0, 0, 1, put(1), None), (1, 2, 3, GET, 1)],
    "a read that overlaps a write may see it": [(0, 0, 9, put(1), None), (1, 1, 2, GET, 1)],
    "a read that overlaps a write may miss it": [(0, 0, 9, put(1), None), (1, 1, 2, GET, None)],
    "reads of overlapping writes in one order": [
        (0, 0, 9, put(1), None),
        (1, 0, 9, put(2), None),
        (2, 1, 2, GET, 1),
        (3, 3, 4, GET, 2),
    ],
    "an unknown write that never happened": [(0, 0, None, put(1), None), (1, 2, 3, GET, None)],
    "an unknown write that happened late": [
        (0, 0, None, put(1), None),
        (1, 2, 3, GET, None),
        (1, 4, 5, GET, 1),
    ],
    "a cas that won against another": [
        (0, 0, 9, cas(None, 1), True),
        (1, 0, 9, cas(None, 2), False),
        (2, 10, 11, GET, 1),
    ],
    "touching times overlap": [(0, 0, 5, put(1), None), (1, 5, 6, GET, None)],
}


@pytest.mark.parametrize("name", BAD_REGISTERS)
def test_a_bad_history_of_a_register_is_refused(name):
    verdict = check_history(history(*BAD_REGISTERS[name]), REGISTER)
    assert verdict.linearizable is False
    assert verdict.stuck


@pytest.mark.parametrize("name", BAD_COUNTERS)
def test_a_bad_history_of_a_counter_is_refused(name):
    assert check_history(history(*BAD_COUNTERS[name]), COUNTER).linearizable is False


def test_there_are_enough_kinds_of_badness():
    assert len(BAD_REGISTERS) + len(BAD_COUNTERS) >= 30


@pytest.mark.parametrize("name", GOOD_REGISTERS)
def test_a_good_history_is_accepted(name):
    assert check_history(history(*GOOD_REGISTERS[name]), REGISTER).ok


def test_a_witness_says_how_far_it_went():
    verdict = check_history(history(*BAD_REGISTERS["a stale read"]), REGISTER)
    assert [one.input for one in verdict.prefix] == [put(1), put(2)]
    assert [one.input for one in verdict.stuck] == [GET]


def test_each_key_is_an_object_of_its_own():
    one = history((0, 0, 1, put(1), None), (0, 2, 3, GET, 1), key="a")
    other = history((1, 0, 1, GET, None), (1, 2, 3, GET, 1), key="b")
    verdict = check_history([*one, *other], REGISTER)
    assert verdict.linearizable is False
    assert verdict.key == "b"
    assert check_history(one, REGISTER).ok


def test_a_search_that_is_given_up_is_no_success():
    rows = [(client, 0, None, put(client), None) for client in range(24)]
    verdict = check_history(history(*rows, (99, 1, 2, GET, "never")), REGISTER, most_states=1_000)
    assert verdict.linearizable is None
    assert not verdict.ok


# --- The model of the key-value store ------------------------------------------------------------------------------


NUMBERS = [b"0", b"7", b"-12", b"9223372036854775807", b"x", b""]


def kv_calls():
    values = st.sampled_from(NUMBERS)
    return st.one_of(
        st.tuples(st.just("put"), values),
        st.tuples(st.just("delete")),
        st.tuples(st.just("cas"), st.none() | values, values),
        st.tuples(st.just("add"), st.sampled_from([1, -3, 1 << 62, -(1 << 63)])),
        st.tuples(st.just("get")),
    )


COMMANDS: dict[str, Callable[..., bytes]] = {
    "put": kv.put,
    "delete": kv.delete,
    "cas": kv.compare_and_set,
    "add": kv.add,
    "get": kv.read,
}


@given(st.lists(kv_calls(), max_size=30))
def test_the_model_of_a_key_answers_as_the_key_value_store_does(calls):
    store, state = kv.KeyValue(), KEY_VALUE.initial
    for height, (name, *given_input) in enumerate(calls, 1):
        (data,) = store.apply(CommittedBatch(0, height, [COMMANDS[name](b"key", *given_input)]))
        answer = kv.result(data)
        before = state
        state, output = KEY_VALUE.step(state, (name, *given_input))
        assert output == (answer.status, answer.value)
        if KEY_VALUE.reads((name, *given_input), output):
            assert state == before


@pytest.mark.parametrize("model", [REGISTER, COUNTER, KEY_VALUE])
def test_a_model_refuses_what_it_does_not_know(model):
    with pytest.raises(ValueError, match="takes no"):
        model.step(model.initial, ("launch",))


def inputs():
    values = st.integers(0, 2)
    return st.one_of(
        st.just(GET), st.just(DELETE), values.map(put), st.tuples(st.none() | values, values).map(lambda two: cas(*two))
    )


@given(st.none() | st.integers(0, 2), inputs())
def test_what_a_register_calls_a_read_changes_nothing(state, given_input):
    after, output = REGISTER.step(state, given_input)
    assert after == state or not REGISTER.reads(given_input, output)


# --- Clever against naive ---------------------------------------------------------------------------------------------


def naive(operations: list[Operation], model: Model) -> bool:
    """Try every order of every choice of the unknown operations."""
    sure = [one for one in operations if one.returned is not None]
    unsure = [one for one in operations if one.returned is None]
    for count in range(len(unsure) + 1):
        for chosen in itertools.combinations(unsure, count):
            for order in itertools.permutations([*sure, *chosen]):
                if _fits(order, model):
                    return True
    return False


def _fits(order, model) -> bool:
    state = model.initial
    for place, one in enumerate(order):
        if any(later.returned is not None and later.returned < one.called for later in order[place + 1 :]):
            return False
        state, output = model.step(state, one.input)
        if one.returned is not None and output != one.output:
            return False
    return True


@st.composite
def small_histories(draw):
    operations = []
    for client in range(draw(st.integers(1, 5))):
        called = draw(st.integers(0, 6))
        given_input = draw(inputs())
        returned = draw(st.none() | st.integers(called, 8))
        output = draw(st.sampled_from([None, 0, 1, 2, True, False])) if returned is not None else None
        operations.append(Operation(client, called, returned, given_input, output))
    return operations


@settings(max_examples=400)
@given(small_histories())
def test_the_search_agrees_with_trying_everything(operations):
    assert check_history(operations, REGISTER).ok == naive(operations, REGISTER)


@st.composite
def real_histories(draw):
    """A sequential run, with intervals around the moments at which it happened."""
    state, operations = None, []
    for place, given_input in enumerate(draw(st.lists(inputs(), max_size=25))):
        state, output = REGISTER.step(state, given_input)
        moment = 10 * place
        called = moment - draw(st.integers(0, 40))
        returned = draw(st.none() | st.integers(moment, moment + 40))
        index = (place,) if returned is not None else None
        operations.append(
            Operation(place, called, returned, given_input, output if returned is not None else None, index=index)
        )
    return draw(st.permutations(operations))


@given(real_histories())
def test_what_really_happened_is_accepted_by_both(operations):
    assert check_history(operations, REGISTER).ok
    assert check_by_index(operations, REGISTER).ok


# --- By index ---------------------------------------------------------------------------------------------------------


def indexed(*rows) -> list[Operation]:
    """Operations as rows of (called, returned, input, output, index)."""
    return [
        Operation(client, called, returned, given_input, output, index=index)
        for client, (called, returned, given_input, output, index) in enumerate(rows)
    ]


def test_the_order_of_the_log_is_replayed():
    good = indexed((0, 9, add(1), 2, (2, 0)), (0, 9, add(1), 1, (1, 5)), (10, 11, GET, 2, (2, 1)))
    assert check_by_index(good, COUNTER).ok
    bad = indexed((0, 9, add(1), 2, (1, 0)), (0, 9, add(1), 1, (2, 0)))
    assert check_history(bad, COUNTER).ok
    verdict = check_by_index(bad, COUNTER)
    assert verdict.linearizable is False, "possible, but not in this log"
    assert "in the order of the log" in verdict.reason


def test_the_log_must_agree_with_real_time_also_across_keys():
    early = Operation(0, 0, 1, put(1), None, key="a", index=(2, 0))
    late = Operation(1, 5, 6, put(1), None, key="b", index=(1, 0))
    assert check_history([early, late], REGISTER).ok
    assert "does not stand before it" in check_by_index([early, late], REGISTER).reason


def test_operations_of_one_batch_may_stand_in_any_order():
    together = indexed((0, 9, add(1), 2, (1,)), (0, 9, add(1), 1, (1,)), (20, 21, GET, 2, (2,)))
    assert check_by_index(together, COUNTER).ok
    assert check_by_index(indexed((0, 9, add(1), 2, (1,)), (0, 9, GET, 1, (1,))), COUNTER).linearizable is False


def test_what_returned_before_a_call_was_not_in_one_batch_with_it():
    rows = indexed((0, 1, add(1), 1, (1,)), (5, 6, GET, 1, (1,)))
    assert check_history(rows, COUNTER).ok
    assert "does not stand before it" in check_by_index(rows, COUNTER).reason
    assert check_by_index(indexed((0, 5, add(1), 1, (1,)), (5, 6, GET, 1, (1,))), COUNTER).ok


def test_an_unknown_outcome_may_stand_anywhere_in_the_log_but_before_its_call():
    read = (8, 9, GET, 1, (5, 0))
    assert check_by_index(indexed(read, (0, None, add(1), None, None)), COUNTER).ok
    never = indexed((8, 9, GET, 0, (5, 0)), (0, None, add(1), None, None))
    assert check_by_index(never, COUNTER).ok
    assert check_by_index(indexed(read, (10, None, add(1), None, None)), COUNTER).linearizable is False
    twice = indexed(read, (0, None, add(1), None, None), (10, 11, GET, 2, (6, 0)))
    assert check_by_index(twice, COUNTER).linearizable is False


def test_an_outcome_without_an_index_stands_where_real_time_lets_it():
    first, last = (0, 9, add(1), 1, (1, 0)), (0, 9, add(1), 3, (7, 0))
    assert check_by_index(indexed(first, last, (0, 9, add(1), 2, None)), COUNTER).ok
    # The log has 3 before 1, which real time alone would allow.
    swapped = indexed((0, 9, add(1), 1, (7, 0)), (0, 9, add(1), 3, (1, 0)), (0, 9, add(1), 2, None))
    assert check_history(swapped, COUNTER).ok
    assert check_by_index(swapped, COUNTER).linearizable is False
    early = indexed((0, 1, add(1), 1, (1, 0)), (5, 6, add(1), 3, (7, 0)), (7, 9, add(1), 2, None))
    assert check_by_index(early, COUNTER).linearizable is False


def test_a_history_may_come_from_a_generator():
    rows = indexed((0, 9, add(1), 2, (1, 0)), (0, 9, add(1), 1, (2, 0)))
    assert check_by_index(iter(rows), COUNTER).linearizable is False


# --- Runs that prove nothing ------------------------------------------------------------------------------------------


def test_too_few_operations_and_too_many_unknown_ones_are_no_evidence():
    sure = [Operation(0, time, time, GET, None) for time in range(80)]
    unsure = [Operation(0, time, None, GET) for time in range(21)]
    assert history_problem(sure, seconds=10, least_per_second=8) is None
    assert "fewer than" in (history_problem(sure, seconds=10, least_per_second=9) or "")
    assert history_problem([*sure, *unsure[:20]], seconds=10, least_per_second=8) is None
    assert "no known outcome" in (history_problem([*sure, *unsure], seconds=10, least_per_second=8) or "")


@pytest.mark.parametrize("seed", range(5))
def test_a_busy_key_is_searched_in_reasonable_work(seed):
    chance = random.Random(seed)
    state, operations, clock = 0, [], 0
    for _ in range(100):
        clock += 10
        number = chance.randrange(5)
        state += number
        returned = None if chance.random() < 0.05 else clock + chance.randrange(60)
        operations.append(Operation(0, clock - chance.randrange(60), returned, add(number), state))
    assert check_history(operations, COUNTER, most_states=50_000).ok
