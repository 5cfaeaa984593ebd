"""Everything above an engine, on the smallest one: crashes, a disk that forgets, clients that repeat themselves."""

from __future__ import annotations

import pytest

from tests.replica.schedules import run_range, total

SEEDS = 60


@pytest.mark.parametrize("first", range(0, 600, SEEDS))
def test_schedules_of_all_faults(first):
    run_range(first, SEEDS, engine="solo", replicas=1)


def test_schedules_of_crashes_exercise_what_they_are_for():
    outcomes = run_range(10_000, SEEDS, engine="solo", replicas=1, profile="crash")
    assert total(outcomes, "crashes") > SEEDS
    assert total(outcomes, "stable") > SEEDS
    # A member alone has nobody from whom to get back what its disk has lost.
    whole = [outcome for outcome in outcomes if not outcome.counters.get("stopped for good")]
    assert len(whole) > 0.9 * SEEDS
    assert all(outcome.commands >= outcome.acknowledged > 0 for outcome in whole)
    kept = [outcome for outcome in whole if not outcome.counters.get("sessions lost")]
    assert len(kept) > SEEDS // 2
    assert all(outcome.acknowledged == outcome.commands for outcome in kept)


def test_a_calm_schedule_acknowledges_every_command_and_loses_nothing():
    for outcome in run_range(0, 20, engine="solo", replicas=1, profile="calm"):
        assert outcome.acknowledged == outcome.commands
        assert outcome.counters.get("crashes", 0) == 0
