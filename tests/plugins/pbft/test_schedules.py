"""Random schedules: whatever the network and f members do, all agree; once it heals, all work gets done."""

import random
from typing import Any

import pytest

from tests.plugins.pbft.byzantine import LIES
from tests.plugins.pbft.cluster import Cluster, Faults

OPTIONS: dict[str, Any] = {"in_flight": 4, "batches_per_proposal": 2, "view_timeout_ms": 1_000}
CAP_MS = 8_000


def partition(cluster: Cluster, chance: random.Random) -> None:
    """Cut the members in two, cut some links one way, or heal."""
    members = cluster.members
    match chance.randint(0, 3):
        case 0:
            side = chance.sample(range(members), chance.randint(1, members - 1))
            cluster.faults.cut = lambda sender, receiver: (sender in side) != (receiver in side)
        case 1:
            links = [(chance.randrange(members), chance.randrange(members)) for _ in range(members)]
            cluster.faults.cut = lambda sender, receiver: (sender, receiver) in links
        case _:
            cluster.faults.cut = lambda sender, receiver: False


def crash_and_restart(cluster: Cluster, chance: random.Random) -> None:
    """Let members crash between any two outputs, and bring some of them back."""
    for node in cluster.nodes:
        if node.alive and chance.random() < 0.25:
            cluster.crash_after[node.index] = chance.randint(0, 30)
        elif not node.alive and chance.random() < 0.5:
            cluster.restart(node.index)


def trouble(cluster: Cluster, seed: int, *, crashes: bool) -> None:
    """Some phases of loss, delay, cuts and crashes, with work in each."""
    chance = random.Random(seed)
    cluster.faults = Faults(
        loss=chance.choice([0, 0.05, 0.3]),
        repeat=chance.choice([0, 0.3]),
        delay_ms=chance.choice([(1, 1), (1, 30), (1, 300)]),
    )
    count = 0
    for _ in range(chance.randint(3, 7)):
        for _ in range(chance.randint(0, 6)):
            some = tuple(sorted(chance.sample(range(cluster.members), chance.randint(1, cluster.members))))
            cluster.submit(f"b{count}", chance.choice(some), some)
            count += 1
        partition(cluster, chance)
        if crashes:
            crash_and_restart(cluster, chance)
        cluster.run(chance.randint(10, 5_000))


def heal(cluster: Cluster) -> None:
    cluster.crash_after.clear()
    for node in cluster.nodes:
        cluster.restart(node.index)
    cluster.crash_after.clear()
    cluster.faults = Faults(delay_ms=(1, 20))


def all_is_done(cluster: Cluster, correct: list[int]) -> bool:
    """Whether every correct member has committed every batch that a correct one holds."""
    wanted = {digest for index in correct for digest in cluster.nodes[index].bodies}
    return all(wanted <= {ref.digest for entry in cluster.nodes[index].log for ref in entry.refs} for index in correct)


def bound_ms(cluster: Cluster) -> int:
    return (2 * cluster.quorum.faults + 4) * CAP_MS


def run_schedule(members: int, seed: int) -> Cluster:
    cluster = Cluster(members, seed, **OPTIONS)
    trouble(cluster, seed * 31 + members, crashes=True)
    heal(cluster)
    cluster.submit("after all", seed % members)
    everybody = list(range(members))
    cluster.run_until(lambda: all_is_done(cluster, everybody), bound_ms(cluster))
    return cluster


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
    cluster = Cluster(members, seed, **OPTIONS)
    faults = cluster.quorum.faults
    liars = chance.sample(range(members), faults)
    correct = [index for index in range(members) if index not in liars]
    for liar in liars:
        cluster.rewrite[liar] = chance.choice(LIES)(liar, cluster)
    trouble(cluster, seed, crashes=False)
    heal(cluster)
    cluster.submit("after all", correct[0])
    cluster.run_until(lambda: all_is_done(cluster, correct), bound_ms(cluster))
    for accusation in cluster.accused:
        assert accusation.evidence.signer in liars
    for rejection in cluster.rejected:
        assert rejection.sender in liars


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
    cluster = Cluster(4, **OPTIONS)
    cluster.faults.cut = lambda sender, receiver: 3 in (sender, receiver)
    cluster.submit("here", 3, (3,))
    cluster.run(20_000)
    assert cluster.nodes[3].engine.status().mode == "normal"
    cluster.faults = Faults()
    took = cluster.run_until(lambda: len(cluster.nodes[3].log) == 1, 2_000)
    assert took < CAP_MS
    assert [node.engine.status().view for node in cluster.nodes] == [0, 0, 0, 0]


def test_a_cluster_with_nothing_to_do_is_quiet():
    cluster = run_schedule(4, 1)
    cluster.run(10_000)
    idle = [node for node in cluster.nodes if node.engine.status().mode == "normal"]
    assert len(idle) >= 3
    assert all(not node.timers for node in idle)


def time_to_heal(members: int, duration: int) -> int:
    """How long a cluster takes whose members could not hear each other for so long."""
    cluster = Cluster(members, 3, **OPTIONS)
    cluster.faults.cut = lambda sender, receiver: True
    cluster.submit("before", 1)
    cluster.run(duration)
    cluster.faults = Faults(delay_ms=(1, 20))
    return cluster.run_until(lambda: all_is_done(cluster, list(range(members))), bound_ms(cluster))


@pytest.mark.parametrize("members", [4, 7])
def test_the_bound_after_healing_does_not_depend_on_how_long_the_fault_lasted(members):
    assert max(time_to_heal(members, duration) for duration in (5_000, 500_000)) <= CAP_MS


def test_a_member_far_ahead_in_views_is_joined():
    """PBFT §4.5.2: no member starts a view change too late, however far another one is."""
    cluster = Cluster(4, 5, **OPTIONS)
    cluster.faults.cut = lambda sender, receiver: receiver in (2, 3)  # they speak, and hear nothing
    cluster.submit("work", 0)
    cluster.run(120_000)
    cluster.faults = Faults(delay_ms=(1, 20))
    cluster.run_until(lambda: all_is_done(cluster, [0, 1, 2, 3]), bound_ms(cluster))
