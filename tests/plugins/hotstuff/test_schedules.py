"""Random schedules: whatever the network and f members do, all agree; once it heals, all work gets done."""

import pytest

from bftkit.testing.engine_group import EngineGroup
from bftkit.testing.scenario import all_decided
from bftkit.testing.simulation import run_schedule
from tests.plugins.hotstuff.parts import group_of

CAP_MS = 8_000


@pytest.mark.parametrize("members", [4, 5, 6, 7])
@pytest.mark.parametrize("settings", [(), (("rules", "three_chain"),), (("leaders", "round_robin"),)], ids=str)
def test_whole_replicas_come_through(members, settings):
    for seed in range(4):
        outcome = run_schedule(seed + members, engine="hotstuff", replicas=members, settings=settings)
        assert outcome.violations == ()


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["all", "byzantine"])
@pytest.mark.parametrize("settings", [(), (("rules", "three_chain"),), (("leaders", "round_robin"),)], ids=str)
def test_whole_replicas_come_through_many_more(profile, settings):
    for seed in range(100, 140):
        assert run_schedule(seed, engine="hotstuff", profile=profile, settings=settings).violations == ()


def without(group: EngineGroup, *dead: int) -> list[int]:
    """Stop some members for good; return the others."""
    for number in dead:
        group.crash(number)
    return [number for number in range(group.members) if number not in dead]


def give_work(group: EngineGroup, count: int, alive: list[int]) -> list[int]:
    """Give a group so many batches one after the other; return how long each took to be decided everywhere."""
    took: list[int] = []
    live = [group.instances[number] for number in alive]
    for number in range(count):
        group.submit(f"work {number}", alive[number % len(alive)])
        took.append(group.run_until(lambda: all_decided(live), CAP_MS))
    return took


@pytest.mark.parametrize(("members", "dead"), [(4, (2,)), (7, (2, 5)), (7, (3, 4))])
def test_silent_leaders_in_turn_cost_a_bounded_time(members, dead):
    """Each turn of a silent leader costs a timeout, and a quarter for the votes that he was to count."""
    group = group_of(members, 1, view_timeout_ms=400, interval=64)
    took = give_work(group, 24, without(group, *dead))
    assert max(took) <= (2 * group.quorum.faults + 1) * 2 * 400


@pytest.mark.parametrize(("members", "dead"), [(4, (2,)), (7, (2, 5)), (7, (3, 4))])
def test_with_reputation_silent_leaders_are_passed_over(members, dead):
    group = group_of(members, 1, view_timeout_ms=400, interval=64, leaders="reputation")
    alive = without(group, *dead)
    give_work(group, 3 * members, alive)
    assert max(give_work(group, 24, alive)) < 100


def test_a_member_that_comes_back_leads_again():
    group = group_of(4, 1, view_timeout_ms=400, interval=64, leaders="reputation")
    alive = without(group, 0)
    give_work(group, 12, alive)
    assert 0 not in {past.author for past in group.instances[1].engine.state.history}
    group.restart(0)
    led: set[int] = set()
    for number in range(24):
        group.submit(f"more {number}", number % 4)
        group.run_until(lambda: all_decided(group.instances), CAP_MS)
        led |= {past.author for past in group.instances[1].engine.state.history}
    assert 0 in led


def test_f_plus_one_members_that_know_of_work_take_the_others_along():
    group = group_of(4, 1, view_timeout_ms=400)
    group.crash(1)
    group.submit("here", 0, (0,))
    assert group.run_until(lambda: all_decided([group.instances[number] for number in (0, 2, 3)]), 4 * 400) > 0


def test_the_bound_after_healing_does_not_depend_on_how_long_the_fault_lasted():
    for duration in (5_000, 500_000):
        group = group_of(4, 3)
        group.deliverable = lambda sender, receiver, what: False
        group.submit("before", 1)
        group.run(duration)
        group.deliverable = None
        assert group.run_until(lambda group=group: all_decided(group.instances), 2 * CAP_MS) <= 2 * CAP_MS  # type: ignore[misc]


def test_a_group_with_nothing_to_do_is_quiet():
    group = group_of(4, 1)
    for number in range(5):
        group.submit(f"b{number}", number % 4)
    group.run(5_000)
    before = group.sent
    group.run(60_000)
    assert group.sent == before
    assert all(not instance.timers for instance in group.instances)
