"""Random schedules: whatever the network and f members do, all agree; once it heals, all work gets done."""

import random
from typing import Any

import pytest

from bftkit.testing.engine_group import NEVER, EngineGroup
from tests.plugins.pbft.byzantine import LIES
from tests.plugins.pbft.parts import group_of

OPTIONS: dict[str, Any] = {"in_flight": 4, "batches_per_proposal": 2, "view_timeout_ms": 1_000}
CAP_MS = 8_000


def partition(group: EngineGroup, chance: random.Random) -> None:
    """Cut the members in two, cut some links one way, or heal."""
    members = group.members
    match chance.randint(0, 3):
        case 0:
            side = chance.sample(range(members), chance.randint(1, members - 1))
            group.deliverable = lambda sender, receiver, what: (sender in side) == (receiver in side)
        case 1:
            links = [(chance.randrange(members), chance.randrange(members)) for _ in range(members)]
            group.deliverable = lambda sender, receiver, what: (sender, receiver) not in links
        case _:
            group.deliverable = None


def crash_and_restart(group: EngineGroup, chance: random.Random) -> None:
    """Let members crash between any two outputs, and bring some of them back."""
    for instance in group.instances:
        if instance.alive and chance.random() < 0.25:
            instance.crash_after = chance.randint(0, 30)
        elif not instance.alive and chance.random() < 0.5:
            group.restart(instance.number)


def trouble(group: EngineGroup, seed: int, *, crashes: bool) -> None:
    """Some phases of loss, delay, cuts and crashes, with work in each."""
    chance = random.Random(seed)
    group.loss = chance.choice([0, 0.05, 0.3])
    group.repeat = chance.choice([0, 0.3])
    group.delay_ms = chance.choice([(1, 1), (1, 30), (1, 300)])
    count = 0
    for _ in range(chance.randint(3, 7)):
        for _ in range(chance.randint(0, 6)):
            some = tuple(sorted(chance.sample(range(group.members), chance.randint(1, group.members))))
            group.submit(f"b{count}", chance.choice(some), some)
            count += 1
        partition(group, chance)
        if crashes:
            crash_and_restart(group, chance)
        group.run(chance.randint(10, 5_000))


def heal(group: EngineGroup) -> None:
    for instance in group.instances:
        instance.crash_after = NEVER
        group.restart(instance.number)
    still(group, (1, 20))


def still(group: EngineGroup, delay_ms: tuple[int, int] = (1, 1)) -> None:
    """End all trouble of the network."""
    group.deliverable, group.loss, group.repeat, group.delay_ms = None, 0.0, 0.0, delay_ms


def all_is_done(group: EngineGroup, correct: list[int]) -> bool:
    """Whether every correct member has committed every batch that a correct one holds."""
    chosen = [group.instances[index] for index in correct]
    return all(digest in one.decided for holder in chosen for digest in holder.bodies for one in chosen)


def bound_ms(group: EngineGroup) -> int:
    return (2 * group.quorum.faults + 4) * CAP_MS


def run_schedule(members: int, seed: int) -> EngineGroup:
    group = group_of(members, seed, **OPTIONS)
    trouble(group, seed * 31 + members, crashes=True)
    heal(group)
    group.submit("after all", seed % members)
    everybody = list(range(members))
    group.run_until(lambda: all_is_done(group, everybody), bound_ms(group))
    return group


@pytest.mark.parametrize("members", [4, 5, 6, 7])
def test_members_agree_and_go_on_after_loss_cuts_and_crashes(members):
    for seed in range(60):
        run_schedule(members, seed)


@pytest.mark.slow
@pytest.mark.parametrize("members", [4, 5, 6, 7, 10])
def test_members_agree_and_go_on_in_many_more_schedules(members):
    for seed in range(1_000, 1_150):
        run_schedule(members, seed)


def run_with_liars(members: int, seed: int) -> None:
    chance = random.Random(seed)
    group = group_of(members, seed, **OPTIONS)
    faults = group.quorum.faults
    liars = chance.sample(range(members), faults)
    correct = [index for index in range(members) if index not in liars]
    for liar in liars:
        group.corrupt(liar, chance.choice(list(LIES.values()))(liar, group))
    trouble(group, seed, crashes=False)
    heal(group)
    group.submit("after all", correct[0])
    group.run_until(lambda: all_is_done(group, correct), bound_ms(group))


@pytest.mark.parametrize("members", [4, 5, 6, 7])
def test_liars_neither_divide_nor_stop_the_others(members):
    for seed in range(40):
        run_with_liars(members, seed)


@pytest.mark.slow
@pytest.mark.parametrize("members", [4, 5, 6, 7, 10])
def test_liars_neither_divide_nor_stop_the_others_in_many_more_schedules(members):
    for seed in range(1_000, 1_150):
        run_with_liars(members, seed)


def test_a_member_that_was_cut_off_does_not_leave_its_view():
    group = group_of(4, **OPTIONS)
    group.deliverable = lambda sender, receiver, what: 3 not in (sender, receiver)
    group.submit("here", 3, (3,))
    group.run(20_000)
    assert group.instances[3].engine.status().mode == "normal"
    still(group)
    took = group.run_until(lambda: len(group.instances[3].log) == 1, 2_000)
    assert took < CAP_MS
    assert [instance.engine.status().view for instance in group.instances] == [0, 0, 0, 0]


def test_a_cluster_with_nothing_to_do_is_quiet():
    group = run_schedule(4, 1)
    group.run(10_000)
    idle = [instance for instance in group.instances if instance.engine.status().mode == "normal"]
    assert len(idle) >= 3
    assert all(not instance.timers for instance in idle)


def time_to_heal(members: int, duration: int) -> int:
    """How long a cluster takes whose members could not hear each other for so long."""
    group = group_of(members, 3, **OPTIONS)
    group.deliverable = lambda sender, receiver, what: False
    group.submit("before", 1)
    group.run(duration)
    still(group, (1, 20))
    return group.run_until(lambda: all_is_done(group, list(range(members))), bound_ms(group))


@pytest.mark.parametrize("members", [4, 7])
def test_the_bound_after_healing_does_not_depend_on_how_long_the_fault_lasted(members):
    assert max(time_to_heal(members, duration) for duration in (5_000, 500_000)) <= CAP_MS


def test_a_member_far_ahead_in_views_is_joined():
    """PBFT §4.5.2: no member starts a view change too late, however far another one is."""
    group = group_of(4, 5, **OPTIONS)
    group.deliverable = lambda sender, receiver, what: receiver not in (2, 3)  # they speak, and hear nothing
    group.submit("work", 0)
    group.run(120_000)
    still(group, (1, 20))
    group.run_until(lambda: all_is_done(group, [0, 1, 2, 3]), bound_ms(group))
