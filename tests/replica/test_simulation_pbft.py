"""PBFT under the replica: random schedules of crashes, loss, cuts and slow disks, for groups of every kind of size."""

from __future__ import annotations

from collections import Counter

import pytest

from bftkit.core.quorum import Quorum
from bftkit.plugins import load_engine
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import make_world, run, run_schedule
from bftkit.testing.world import World
from tests.replica.schedules import run_range, total

SEEDS = 40


@pytest.mark.parametrize("first", range(0, 400, SEEDS))
def test_four_members(first):
    run_range(first, SEEDS, engine="pbft", replicas=4)


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_five_members(first):
    run_range(first, 20, engine="pbft", replicas=5)


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_six_members(first):
    run_range(first, 10, engine="pbft", replicas=6)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_seven_members(first):
    run_range(first, 10, engine="pbft", replicas=7)


def test_schedules_of_the_network_exercise_what_they_are_for():
    outcomes = run_range(20_000, SEEDS, engine="pbft", replicas=4, profile="network")
    assert total(outcomes, "lost") > 1_000
    hits = Counter(name for outcome in outcomes for name in outcome.faults_hit)
    assert {"cuts", "partitions", "partial_partitions", "flaps", "clogs", "throttles", "resets"} <= set(hits)
    assert total(outcomes, "view") > 4 * SEEDS
    assert total(outcomes, "caught up") > 0


def test_schedules_of_crashes_exercise_what_they_are_for():
    outcomes = run_range(30_000, SEEDS, engine="pbft", replicas=4, profile="crash")
    assert total(outcomes, "crashes") > 2 * SEEDS
    assert total(outcomes, "stable") > 4 * SEEDS


def test_a_member_that_was_away_for_long_takes_over_a_state():
    profile = Profile(
        duration_ms=4_000, clients=4, envelopes=40, think_ms=20, crashes=1, down_ms=(3_000, 500), checkpoint_interval=2,
        snapshot_positions=4, segment_bytes=4_096,
    )  # fmt: skip
    outcomes = run_range(0, 8, engine="pbft", replicas=4, profile=profile)
    assert total(outcomes, "state transfers") > 0


# --- Members that lie ------------------------------------------------------------------------------------------------


def world_of(seed: int, members: int = 4, liars=None, **profile) -> World:
    return make_world(seed, load_engine("pbft"), members, Profile(**profile), liars=liars)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("members", [4, 7])
def test_as_many_silent_members_as_are_tolerated_stop_nobody(seed, members):
    faults = Quorum.of(load_engine("pbft").fault_model, members).faults
    world = world_of(seed, members, dict.fromkeys(range(faults), "silent"), loss=0.05)
    run(world)
    assert world.checkers.commits > 0
    assert world.counters["view"] > members


@pytest.mark.parametrize("seed", range(10))
def test_a_primary_that_tells_two_stories_divides_nobody(seed):
    world = world_of(seed, liars={0: "contradicting itself"}, duplication=0.1, link_us=(200, 20_000))
    run(world)
    assert world.checkers.commits > 0
    assert world.counters["accused"] > 0, "the one who heard both stories has the proof"


@pytest.mark.parametrize("lie", ["boasting", "bodies for one"])
@pytest.mark.parametrize("liar", [0, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_lies_about_what_it_has_stops_nobody(seed, liar, lie):
    world = world_of(seed, liars={liar: lie}, loss=0.05, crashes=1, checkpoint_interval=2, snapshot_positions=4)
    run(world)
    assert world.checkers.commits > 0


@pytest.mark.parametrize("seed", [7013, 7051])
def test_a_member_that_hears_of_later_checkpoints_only_keeps_its_log_short(seed):
    """One member is away and one votes for a false state, so that the others hear of certificates by and by."""
    world = world_of(
        seed, crashes=2, down_ms=(2_000, 1_000), clients=4, envelopes=40, think_ms=10, checkpoint_interval=2,
        snapshot_positions=4, segment_bytes=4_096, liars={seed % 4: "wrong roots"},
    )  # fmt: skip
    run(world)
    assert world.checkers.commits > 60


@pytest.mark.parametrize(
    ("seed", "members", "profile"),
    [
        (239, 4, "all"),  # the body of a decision that a state held already was asked for, for ever
        (275, 4, "all"),  # a NEW-VIEW whose VIEW-CHANGEs a crash had taken kept two members in their view change
        (108, 7, "all"),  # a transferred state found no space, and was there all the same
        (94, 4, "byzantine"),  # a body came after its decision was forgotten, and nobody saw to it
        (10480, 4, "byzantine"),  # a liar that signed two VIEW-CHANGEs kept a member out of every view
        (13_165, 4, "all"),
        (18_724, 4, "all"),
        (19_813, 4, "all"),
        (28_941, 4, "all"),
        (29_664, 4, "all"),
    ],
)
def test_a_schedule_that_once_went_wrong_goes_right(seed, members, profile):
    outcome = run_schedule(seed, engine="pbft", replicas=members, profile=profile)
    assert outcome.violations == ()
