"""Planning what goes wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from bftkit.plugins import load_engine
from bftkit.testing.nemesis import draw_faults
from bftkit.testing.profile import PLANNED, Profile
from bftkit.testing.simulation import make_world, run, run_schedule
from bftkit.testing.solo import solo_spec

STORM = Profile(crashes=3, crashes_at_output=2, crashes_in_disk=2, power_cuts=1, partitions=2, cuts=2, sync_errors=1)


def test_the_plan_holds_every_fault_in_order_of_time():
    faults = draw_faults(STORM, 4, Random("1"))
    assert len(faults) == STORM.faults
    assert [fault.at_us for fault in faults] == sorted(fault.at_us for fault in faults)
    assert all(0 < fault.at_us < STORM.duration_ms * 1_000 for fault in faults)
    assert faults == draw_faults(STORM, 4, Random("1"))
    for fault in faults:
        assert sorted(fault.members) == [0, 1, 2, 3]
        assert 1 <= fault.share < 4


@pytest.mark.parametrize("kind", PLANNED)
def test_every_planned_fault_happens(kind):
    counted = {
        "rot": ("bit_flips", "misdirected_reads", "misdirected_writes"),
        "failpoints": ("at failpoints",),
    }.get(kind, (kind,))
    hits: Counter[str] = Counter()
    for seed in range(12):
        world = make_world(seed, load_engine("pbft"), 4, Profile(**{kind: 4}, clients=2, envelopes=20, think_ms=50))
        run(world)
        hits.update(world.hits)
        hits["at failpoints"] += sum(name.startswith("failpoint: ") for name in world.hits)
        assert len(world.faults) == 4
    assert all(hits[name] for name in counted), (kind, hits)


@pytest.mark.parametrize("kind", PLANNED)
def test_a_member_alone_survives_them_all(kind):
    outcome = run_schedule(3, engine="solo", replicas=1, profile=Profile(**{kind: 3}))
    assert outcome.ok, outcome.violations


def test_leaving_faults_out_leaves_the_others_as_they_are():
    world = make_world(1, solo_spec(), 1, STORM, record=True)
    plan = world.faults
    decisions = {name: answer for name, answer in (world.choices.recorded or {}).items() if name[2] not in (1, 3)}
    fewer = make_world(1, solo_spec(), 1, STORM, decisions=decisions).faults
    assert fewer == tuple(fault for number, fault in enumerate(plan) if number not in (1, 3))


@pytest.mark.parametrize("kind", PLANNED)
def test_a_healed_world_suffers_no_more(kind):
    """Whatever was planned, or had begun and was to go on: bits that rotted before are met, and that is all."""
    for seed, healed_us in enumerate((1, 300_000, 800_000)):
        profile = Profile(**{kind: 5}, duration_ms=1_000, clients=2, envelopes=30, think_ms=50)
        world = make_world(seed, load_engine("pbft"), 4, profile)
        world.start()
        world.events.run(healed_us)
        world.heal()
        hits, crashes = Counter(world.hits), world.counters["crashes"]
        world.events.run(healed_us + 1_200_000)
        assert world.counters["crashes"] == crashes
        assert {name: count for name, count in (world.hits - hits).items() if name != "bit_flips"} == {}
        assert all(node.alive or node.stopped for node in world.nodes)
        network = world.network
        assert not any([*network._cuts, *network._clogs, *network._pace_us, *network._held])


def test_a_crashed_member_comes_back_after_the_time_that_was_drawn():
    world = make_world(1, solo_spec(), 1, Profile(crashes=1, down_ms=(100, 0), duration_ms=1_000))
    (fault,) = world.faults
    world.start()
    world.events.run(fault.at_us + 99_000)
    assert not world.nodes[0].alive
    world.events.run(fault.at_us + 101_000)
    assert world.nodes[0].alive
    assert world.counters["crashes"] == 1
