"""Raft under the replica: random schedules of crashes, loss, cuts and slow disks, for groups of every kind of size."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from bftkit.plugins import load_engine
from bftkit.testing.profile import Profile, draw_profile
from bftkit.testing.simulation import liveness_bound_ms, make_world, run, run_schedule
from tests.replica.schedules import run_range, total

SEEDS = 40
AWAY = Profile(
    duration_ms=4_000,
    clients=4,
    envelopes=60,
    think_ms=150,
    crashes=1,
    down_ms=(3_000, 500),
    checkpoint_interval=2,
    snapshot_positions=4,
    segment_bytes=4_096,
)
"""One member is down for long while the others take checkpoints and snapshots in quick succession."""


@pytest.mark.parametrize("first", range(0, 200, SEEDS))
def test_three_members(first):
    run_range(first, SEEDS, engine="raft", replicas=3)


@pytest.mark.parametrize("members", [1, 2])
def test_groups_that_cannot_spare_anybody(members):
    run_range(0, 40, engine="raft", replicas=members)


@pytest.mark.parametrize("members", [4, 5, 7])
def test_larger_groups(members):
    run_range(0, 15, engine="raft", replicas=members)


def test_schedules_of_the_network_exercise_what_they_are_for():
    outcomes = run_range(20_000, SEEDS, engine="raft", replicas=3, profile="network")
    assert total(outcomes, "lost") > 1_000
    hits = Counter(name for outcome in outcomes for name in outcome.faults_hit)
    assert {"cuts", "partitions", "flaps", "clogs", "throttles", "resets", "replay"} <= set(hits)
    assert total(outcomes, "view") > 4 * SEEDS
    assert total(outcomes, "caught up") > 0


def test_schedules_of_crashes_exercise_what_they_are_for():
    outcomes = run_range(30_000, SEEDS, engine="raft", replicas=3, profile="crash")
    assert total(outcomes, "crashes") > 2 * SEEDS
    assert total(outcomes, "stable") > 4 * SEEDS


def test_a_member_that_was_away_for_long_takes_over_a_state():
    outcomes = run_range(0, 8, engine="raft", replicas=3, profile=AWAY)
    assert total(outcomes, "state transfers") > 0


def test_a_member_that_lags_is_not_left_behind_by_what_it_offers():
    """Batches that it cannot know to be decided are ordered once more, and must not keep it from catching up."""
    assert run_schedule(7, engine="raft", replicas=3, profile=AWAY).commits < 500


def test_leases_change_nothing_about_what_is_decided():
    spec = load_engine("raft")
    for seed in range(12):
        options = spec.options_type(election_timeout_ms=200, heartbeat_ms=20, lease_reads=True)
        world = make_world(seed, spec, 3, Profile(crashes=4, partitions=2, loss=0.05), options=options)
        run(world)
        assert world.checkers.commits > 0


def test_nobody_lies_or_forgets_where_only_crashes_are_tolerated():
    for seed in range(60):
        profile = draw_profile("byzantine", Random(seed))
        world = make_world(seed, load_engine("raft"), 5, profile)
        assert world.checkers.suspects == {}
        assert world.tolerated == 0


def test_it_heals_within_ten_elections():
    world = make_world(1, load_engine("raft"), 3, Profile())
    assert liveness_bound_ms(world) == 10 * 2 * 200


@pytest.mark.parametrize("profile", ["byzantine", "clock", "disk"])
def test_other_profiles(profile):
    run_range(40_000, 10, engine="raft", replicas=3, profile=profile)


def test_the_same_seed_gives_the_same_run():
    first, second = (run_schedule(4, engine="raft", replicas=3) for _ in range(2))
    assert first.trace_hash == second.trace_hash


def test_what_was_decided_and_is_heard_of_again_may_be_kept_for_longer():
    assert run_schedule(343, engine="raft", replicas=3).violations == ()
