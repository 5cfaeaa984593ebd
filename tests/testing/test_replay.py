"""The line that plays a schedule again does so, whatever the schedule was made of."""

from __future__ import annotations

import shlex
from enum import Enum
from functools import partial

import msgspec
import pytest

from bftkit import testing
from bftkit.batteries.kv import KeyValue
from bftkit.core.epoch import Limits
from bftkit.plugins import load_engine
from bftkit.testing import CrashMode, Profile, Workload, World, finish, run_schedule, simulate
from bftkit.testing.replay import as_python, installed_name, replay_line
from bftkit.testing.solo import solo_spec

NAMES = {**vars(testing), **{name: getattr(testing, name) for name in testing.__all__}, "Limits": Limits}
STORM = Profile(crashes=2, crash_modes=(CrashMode.KILL, CrashMode.TORN), link_us=(50, 900), clients=1, envelopes=3)


def put(random):
    """Make a command for the store."""
    return KeyValue.command_from_text(["put", f"k{random.randrange(3)}", f"{random.randrange(9)}"])


def get(random):
    """Make a question for the store."""
    return KeyValue.query_from_text(["get", f"k{random.randrange(3)}"])


def test_what_a_command_can_say_is_a_command():
    line = run_schedule(3, engine="solo", replicas=1, profile="crash", settings=(("batches_per_position", "2"),)).replay
    assert line == "bftkit sim replay 3 --engine solo --replicas 1 --profile crash --option batches_per_position=2"
    assert shlex.split(line)[-1] == "batches_per_position=2"
    assert (
        replay_line(1, load_engine("pbft"), 4, "all") == "bftkit sim replay 1 --engine pbft --replicas 4 --profile all"
    )


@pytest.mark.parametrize(
    "how",
    [
        {"profile": STORM, "engine": "solo", "replicas": 1},
        {"profile": STORM, "engine": "solo", "replicas": 1, "settings": (("batches_per_position", "1"),)},
        {"profile": "calm", "engine": "solo", "replicas": 1, "workload": Workload(KeyValue, put, make_query=get)},
        {"profile": "network", "engine": msgspec.structs.replace(solo_spec(), name="mine"), "replicas": 1},
    ],
)
def test_what_is_a_program_s_own_is_a_line_of_python(how):
    outcome = run_schedule(7, **how)
    assert outcome.replay.startswith("run_schedule(7, engine=")
    names = {**NAMES, "KeyValue": KeyValue, "put": put, "get": get, "mine": how["engine"]}
    again = eval(outcome.replay, names)
    assert again == outcome


def test_a_simulated_machine_of_one_s_own_has_its_line_with_its_limits():
    outcome = simulate(KeyValue, seed=2, faults=STORM, commands=put, engine="solo", replicas=1)
    assert "workload=Workload(make_machine=KeyValue, make_command=put, limits=Limits(" in outcome.replay
    assert eval(outcome.replay, {**NAMES, "KeyValue": KeyValue, "put": put}) == outcome


def test_a_run_that_follows_decisions_has_no_line():
    assert finish(World(1, "calm", engine="solo", replicas=1, decisions={})).replay == ""


class Colour(Enum):
    """Something that has no expression of its own."""

    RED = "red"


class Sample(msgspec.Struct):
    """A Struct with every kind of default."""

    first: int
    names: list[str] = []
    colours: tuple[Colour, ...] = ()
    inner: Profile | None = None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Sample(1), "Sample(first=1)"),
        (Sample(1, ["a"], (Colour.RED,)), "Sample(first=1, names=['a'], colours=(Colour.RED,))"),
        (Sample(2, inner=Profile(loss=0.5)), "Sample(first=2, inner=Profile(loss=0.5))"),
        ((1, b"x"), "(1, b'x',)"),
        (put, "put"),
        (Profile, "Profile"),
        (partial(put, 1), repr(partial(put, 1))),
    ],
    ids=["one", "names", "inner", "tuple", "function", "class", "partial"],
)
def test_values_are_said_as_short_as_their_defaults_allow(value, text):
    assert as_python(value) == text


def test_an_engine_goes_by_its_name_only_where_it_is_the_installed_one():
    assert installed_name("whatever") == "whatever"
    assert installed_name(load_engine("raft")) == "raft"
    assert installed_name(msgspec.structs.replace(load_engine("raft"), version="other")) is None
    assert installed_name(msgspec.structs.replace(load_engine("raft"), name="of nobody")) is None
