"""Schedules as examples of property tests."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from bftkit.batteries.counter import Counter
from bftkit.errors import ConfigurationError
from bftkit.testing import PROFILES, Schedule, schedules

SOLO = {"engine": "solo", "replicas": 1}
FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Stumbling(Counter):
    """Raises at one number."""

    def apply(self, batch):
        if b"13" in batch.commands:
            raise ValueError("13")
        return super().apply(batch)


@FEW
@given(schedules())
def test_a_good_machine_comes_through_every_example(schedule):
    assert 0 <= schedule.seed < 2**32
    assert schedule.profile in PROFILES
    outcome = schedule.run(Counter, **SOLO)
    assert outcome.ok, outcome.violations
    assert outcome.seed == schedule.seed


def test_a_failing_example_is_made_simple():
    numbers = st.integers(0, 20).map(lambda number: b"%d" % number)
    found = find(
        schedules(numbers),
        lambda schedule: not schedule.run(Stumbling, **SOLO).ok,
        settings=settings(max_examples=100, deadline=None, database=None, derandomize=True),
    )
    assert found == Schedule(0, "calm", (b"13",))
    outcome = found.run(Stumbling, **SOLO)
    assert "OneOf(commands=(b'13',))" in outcome.replay


def test_an_example_is_one_run():
    schedule = Schedule(5, "crash", (b"1", b"2"))
    assert schedule.run(Counter, **SOLO) == schedule.run(Counter, **SOLO)


@given(schedules(st.just(b"7"), profiles=["disk", "clock"], most_commands=2))
def test_what_is_drawn_can_be_chosen(schedule):
    assert schedule.profile in ("disk", "clock")
    assert schedule.commands in ((b"7",), (b"7", b"7"))


@pytest.mark.parametrize("profiles", [["rain"], []])
def test_profiles_that_do_not_exist_are_refused(profiles):
    with pytest.raises(ConfigurationError, match="there is no profile"):
        schedules(profiles=profiles)


def test_without_hypothesis_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ConfigurationError, match="hypothesis, which is not installed"):
        schedules()
