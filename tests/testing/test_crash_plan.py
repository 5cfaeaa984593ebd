"""Where a simulated member is going to crash."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bftkit.testing.crash_plan import CrashPlan
from bftkit.testing.disk import CrashMode, SimulatedCrash
from bftkit.testing.nemesis import Fault
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world
from bftkit.testing.solo import solo_spec

FAULT = Fault(5, "crashes_at_output", (0,), 1, 40_000, CrashMode.TORN, 3)


def passes(plan: CrashPlan, *names: str) -> int:
    """Count the failpoints that are passed before the crash."""
    for number, name in enumerate(names):
        try:
            plan.reached(name)
        except SimulatedCrash:
            return number
    return len(names)


def test_nothing_is_planned_at_first():
    plan = CrashPlan(Counter())
    for _ in range(100):
        plan.performing()
    assert passes(plan, "a", "b", "") == 3
    assert not plan.armed


@pytest.mark.parametrize("left", [0, 1, 5])
def test_a_crash_takes_the_place_of_an_output_and_comes_once(left):
    hits: Counter[str] = Counter()
    plan = CrashPlan(hits)
    plan.after_outputs(left, FAULT)
    for _ in range(left):
        plan.performing()
    assert not hits, "it counts what happens, not what is planned"
    with pytest.raises(SimulatedCrash, match="in the middle of a step's outputs"):
        plan.performing()
    assert hits == {"crashes_at_output": 1}
    assert plan.fault is FAULT
    plan.performing()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_failpoint_is_passed_until_its_last_hit(count):
    hits: Counter[str] = Counter()
    plan = CrashPlan(hits)
    plan.arm("here", count, FAULT)
    assert passes(plan, *["there", "here"] * count) == 2 * count - 1
    assert hits == {"failpoint: here": 1}
    assert passes(plan, "here", "here", "here") == 3, "it is armed once"


def test_several_places_may_be_armed_and_each_knows_what_its_crash_leaves():
    plan = CrashPlan(Counter())
    other = msgspec.structs.replace(FAULT, mode=CrashMode.KILL)
    plan.arm("here", 1, FAULT)
    plan.arm("there", 1, other)
    plan.after_outputs(5, FAULT)
    assert passes(plan, "there") == 0
    assert plan.fault is other
    assert passes(plan, "here") == 0
    assert plan.fault is FAULT


def test_a_crash_ends_what_was_planned_for_that_life_and_keeps_what_is_for_the_next():
    hits: Counter[str] = Counter()
    plan = CrashPlan(hits)
    plan.after_outputs(0, FAULT)
    plan.happens("io_errors", FAULT)
    plan.in_recovery = [4]
    plan.arm("here", 1, FAULT)
    assert plan.fault is FAULT
    plan.crashed()
    plan.performing()
    assert (plan.fault, plan.in_recovery, plan.armed) == (None, [4], True)
    assert passes(plan, "here") == 0
    assert hits == {"io_errors": 1, "failpoint: here": 1}


def test_clearing_ends_everything():
    plan = CrashPlan(Counter())
    plan.in_recovery = [4]
    plan.arm("here", 1, FAULT)
    plan.clear()
    assert (plan.fault, plan.in_recovery, plan.armed) == (None, [], False)
    assert passes(plan, "here") == 1


def test_a_planned_crash_leaves_and_lasts_what_its_fault_says():
    world = make_world(1, solo_spec(), 1, Profile(clients=1))
    (node,) = world.nodes
    world.start()
    world.events.run(10_000)
    node.plan.after_outputs(0, msgspec.structs.replace(FAULT, mode=CrashMode.KILL))
    world.events.run(4_000_000, lambda: not node.alive)
    crashed_us = world.events.now_us
    assert world.hits["crashes_at_output"] == world.hits["processes killed"] == 1
    world.events.run(crashed_us + 39_999)
    assert not node.alive
    world.events.run(crashed_us + 40_000)
    assert node.alive
    assert node.plan.fault is None


def test_crashes_in_recovery_follow_each_other_until_a_start_succeeds():
    world = make_world(1, solo_spec(), 1, Profile(clients=1, envelopes=2))
    (node,) = world.nodes
    node.plan.in_recovery = [3, 2, 1]
    world.start()
    assert not node.alive
    assert world.events.run(1_000_000, lambda: node.alive)
    assert node.plan.in_recovery == []
    assert world.counters["crashes"] == world.hits["crashes_in_recovery"] == 3


def test_a_failpoint_may_be_armed_without_a_fault_to_say_what_its_crash_leaves():
    world = make_world(1, solo_spec(), 1, Profile(clients=1))
    world.nodes[0].arm("shard.before_sync")
    assert finish(world).ok
    assert world.hits["failpoint: shard.before_sync"] == world.counters["crashes"] == 1


@pytest.mark.parametrize("name", ["node.after_recovery", "node.before_listen", "node.after_listen"])
def test_a_failpoint_waits_for_the_next_start(name):
    world = make_world(2, solo_spec(), 1, Profile(clients=1, envelopes=3, crashes=1))
    world.nodes[0].arm(name, 2, FAULT)
    outcome = finish(world)
    assert outcome.violations == ()
    assert outcome.faults_hit[f"failpoint: {name}"] == 1
    assert outcome.counters["crashes"] == 2
