"""The workload: commands of the right length, and a state that shows what was lost or done twice."""

import pytest

from bftkit.batteries.kv import KeyValue, get
from bftkit.bench.workload import counted, counter_key, expected_root, make_lanes
from bftkit.core.batch import CommittedBatch
from bftkit.errors import ConfigurationError


@pytest.mark.parametrize("payload", [32, 64, 128, 200, 1024, 60_000])
def test_commands_have_the_length_that_is_asked_for(payload):
    for lane in make_lanes(12, payload, 100):
        commands = lane.commands()
        assert len(commands) == 100
        assert set(map(len, commands)) == {payload}


def test_all_commands_are_welcome():
    store = KeyValue()
    for command in make_lanes(1, 128, 100)[0].commands():
        store.check(command)


@pytest.mark.parametrize("payload", [31, 60_001])
def test_other_payloads_are_refused(payload):
    with pytest.raises(ConfigurationError):
        make_lanes(1, payload, 1)


def play(script, envelope=10, payload=64):
    """Execute the envelopes of lanes in the order of a script of (lane, times); return lanes and store."""
    lanes = make_lanes(3, payload, envelope)
    store = KeyValue()
    for height, (number, times) in enumerate(script, 1):
        commands = lanes[number].commands()
        for _ in range(times):
            store.apply(CommittedBatch(0, height, commands))
        lanes[number].executed += 1
    return lanes, store


def test_the_expected_root_is_that_of_executing_each_once():
    lanes, store = play([(0, 1), (1, 1), (0, 1), (0, 1)])
    assert expected_root(lanes, 64) == store.state_root()


@pytest.mark.parametrize("script", [[(0, 1), (0, 0)], [(0, 1), (0, 2)], [(0, 0), (0, 2)], [(2, 0)]])
def test_what_is_lost_or_done_twice_shows(script):
    lanes, store = play(script)
    wrong = [lane.number for lane in lanes if counted(store.query(get(counter_key(lane.number, 64)))) != lane.executed]
    swapped = script == [(0, 0), (0, 2)]
    assert bool(wrong) is not swapped
    assert (expected_root(lanes, 64) == store.state_root()) is swapped


def test_a_single_put_that_is_missing_shows_in_the_root():
    lanes, store = play([(0, 1), (1, 1)])
    commands = lanes[1].commands()
    lanes[1].executed += 1
    store.apply(CommittedBatch(0, 9, commands[:-1]))
    assert counted(store.query(get(counter_key(1, 64)))) == 2
    assert expected_root(lanes, 64) != store.state_root()
