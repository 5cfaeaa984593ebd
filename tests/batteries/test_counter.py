"""The counter: a sum, whatever is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.batteries.counter import LONGEST_COMMAND, MALFORMED, Counter
from bftkit.core.batch import CommittedBatch
from bftkit.errors import ApplicationError, Rejected

NUMBERS = st.integers(-(10**18), 10**18).map(lambda number: b"%d" % number)
COMMANDS = st.lists(
    st.one_of(NUMBERS, st.binary(max_size=25), st.sampled_from([b"", b"+5", b"1,2", b" 1", b"1_0", b"-"]))
)


def apply(counter, commands):
    return counter.apply(CommittedBatch(1, 1, commands))


def test_each_result_is_the_sum_so_far():
    counter = Counter()
    assert apply(counter, [b"5", b"-2", b"+10"]) == [b"5", b"3", b"13"]
    assert apply(counter, []) == []
    assert apply(counter, [b"1"]) == [b"14"]
    assert counter.query(b"") == b"14"


@given(COMMANDS)
def test_a_batch_gives_what_its_commands_give_one_by_one(commands):
    together, single = Counter(), Counter()
    assert apply(together, commands) == [apply(single, [command])[0] for command in commands]
    assert together.total == single.total


@given(COMMANDS)
def test_what_is_checked_is_what_is_counted(commands):
    counter = Counter()
    for command in commands:
        try:
            counter.check(command)
        except Rejected:
            assert apply(counter, [command]) == [MALFORMED]
        else:
            before = counter.total
            assert apply(counter, [command]) == [b"%d" % (before + int(command))]


@pytest.mark.parametrize(
    "command", [b"", b"one", b"1.0", b"1,2", b" 1", b"1_0", b"9" * (LONGEST_COMMAND + 1), b"\xd9\xa1"]
)
def test_malformed_commands_change_nothing(command):
    counter = Counter()
    assert apply(counter, [b"1", command, b"1"]) == [b"1", MALFORMED, b"2"]
    with pytest.raises(Rejected):
        counter.check(command)


@given(st.lists(NUMBERS))
def test_a_snapshot_restores_the_same_state(commands):
    counter, copy = Counter(), Counter()
    apply(counter, commands)
    copy.restore(counter.snapshot())
    assert copy.total == counter.total
    assert copy.state_root() == counter.state_root()
    assert len(copy.state_root()) == 32


def test_another_sum_has_another_root():
    counter = Counter()
    roots = {counter.state_root()}
    for _ in range(10):
        apply(counter, [b"1"])
        roots.add(counter.state_root())
    assert len(roots) == 11


@pytest.mark.parametrize("data", [b"", b"x", b"1 ", b"9" * 5000])
def test_what_is_no_snapshot_is_refused(data):
    with pytest.raises(ApplicationError):
        Counter().restore(data)


def test_people_type_numbers():
    assert Counter.command_from_text(["-3"]) == b"-3"
    assert Counter.query_from_text([]) == b""
    assert Counter.result_to_text(b"7") == "7"
    with pytest.raises(Rejected):
        Counter.command_from_text(["one"])
    with pytest.raises(Rejected):
        Counter.command_from_text(["1", "2"])
