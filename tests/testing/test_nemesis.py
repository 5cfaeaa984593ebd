"""Planning what goes wrong."""

from __future__ import annotations

from random import Random

from bftkit.testing.nemesis import draw_faults
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import make_world
from bftkit.testing.solo import solo_spec

STORM = Profile(crashes=3, crashes_at_output=2, crashes_in_disk=2, power_cuts=1, partitions=2, cuts=2, sync_errors=1)


def test_the_plan_holds_every_fault_in_order_of_time():
    faults = draw_faults(STORM, 4, Random("1"))
    assert len(faults) == STORM.faults
    assert [fault.at_us for fault in faults] == sorted(fault.at_us for fault in faults)
    assert all(0 < fault.at_us < STORM.duration_ms * 1_000 for fault in faults)
    assert faults == draw_faults(STORM, 4, Random("1"))
    for fault in faults:
        assert len(set(fault.members)) == len(fault.members)
        assert all(0 <= member < 4 for member in fault.members)
        if fault.kind == "cuts":
            assert len(fault.members) == 2
        if fault.kind == "partitions":
            assert 1 <= len(fault.members) < 4


def test_a_member_alone_has_nobody_to_be_cut_from():
    kinds = {fault.kind for fault in draw_faults(STORM, 1, Random("1"))}
    assert "crashes" in kinds
    assert not kinds & {"cuts", "partitions"}


def test_a_healed_world_suffers_no_more():
    world = make_world(1, solo_spec(), 1, Profile(crashes=5, duration_ms=1_000))
    world.start()
    world.heal()
    world.events.run(2_000_000)
    assert world.counters["crashes"] == 0
    assert world.nodes[0].alive


def test_a_crashed_member_comes_back_after_the_time_that_was_drawn():
    world = make_world(1, solo_spec(), 1, Profile(crashes=1, down_ms=(100, 0), duration_ms=1_000))
    (fault,) = world.faults
    world.start()
    world.events.run(fault.at_us + 99_000)
    assert not world.nodes[0].alive
    world.events.run(fault.at_us + 101_000)
    assert world.nodes[0].alive
    assert world.counters["crashes"] == 1
