"""Whole groups on HotStuff, and seeds that have shown a mistake once."""

import pytest

from bftkit.testing.simulation import run_schedule

THREE_CHAIN = (("leaders", "round_robin"), ("rules", "three_chain"))
REPUTATION = (("leaders", "reputation"),)

ONCE_RED = [
    (67, 4, "all", THREE_CHAIN, "the timer that repeats things kept the patience of the round before"),
    (23, 4, "all", THREE_CHAIN, "a vote of before a crash was said after the round had been given up"),
    (109, 4, "byzantine", THREE_CHAIN, "a proof led over more blocks than the window has"),
    (18, 4, "all", REPUTATION, "nobody knew the leader after a restart, and nobody gave the round up"),
    (1_064, 4, "all", (), "a snapshot was saved before the record that names the block at its position"),
    (138, 4, "all", REPUTATION, "members without the history led just when two rounds in a row were needed"),
]


@pytest.mark.parametrize(("seed", "replicas", "profile", "settings", "why"), ONCE_RED)
def test_a_seed_that_was_red_stays_green(seed, replicas, profile, settings, why):
    outcome = run_schedule(seed, engine="hotstuff", replicas=replicas, profile=profile, settings=settings)
    assert outcome.violations == (), why


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [4, 5, 6, 7])
def test_many_schedules_of_all_faults_break_no_rule(replicas):
    for seed in range(1_000, 1_040):
        assert run_schedule(seed, engine="hotstuff", replicas=replicas, profile="all").violations == ()
