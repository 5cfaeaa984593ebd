"""Running ranges of seeds, with a failure that says how to see it again."""

from __future__ import annotations

from bftkit.testing.simulation import Outcome, run_schedule


def run_range(first: int, count: int, **how) -> list[Outcome]:
    """Run consecutive seeds; fail on the first that breaks a rule."""
    outcomes = []
    for seed in range(first, first + count):
        outcome = run_schedule(seed, **how)
        arguments = "".join(f", {name}={value!r}" for name, value in how.items())
        assert outcome.ok, f"run_schedule({seed}{arguments}): {outcome.violations[0]}"
        outcomes.append(outcome)
    return outcomes


def total(outcomes: list[Outcome], counter: str) -> int:
    """Add up one counter over all outcomes."""
    return sum(outcome.counters.get(counter, 0) for outcome in outcomes)
