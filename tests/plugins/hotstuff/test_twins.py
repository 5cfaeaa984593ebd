"""Twins: a member that is two. All 45,760 scenarios of three views: `bftkit sim twins --engine hotstuff --views 3`."""

import pytest

from bftkit.testing.mutants import applied, load_mutants
from bftkit.testing.twins import TwinsPlan, run_twins
from bftkit_hotstuff.config import HotStuffOptions

OPTIONS = [
    HotStuffOptions(leaders="round_robin"),
    HotStuffOptions(leaders="round_robin", rules="three_chain"),
    HotStuffOptions(leaders="reputation"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"{options.rules}, {options.leaders}")
@pytest.mark.parametrize("views", [3, 7])
def test_no_scenario_divides_or_stops_the_honest(options, views):
    result = run_twins(TwinsPlan("hotstuff", views=views, seed=5, options=options), range(60))
    assert result.violations == ()
    assert result.views == 60 * views


def test_losses_and_restarts_do_not_either():
    plan = TwinsPlan("hotstuff", losses=("", "votes", "proposals", "view changes"), restarts=True, seed=3)
    assert run_twins(plan, range(60)).violations == ()


def test_the_scenarios_find_the_rule_without_consecutive_rounds():
    """The flaw of an early Fast-HotStuff, which relab/hotstuff keeps on purpose."""
    mutant = load_mutants()["hotstuff: rounds of a chain may have gaps"]
    with applied(mutant):
        found = next((hunt.run(float("inf")) for hunt in mutant.hunts), None)
    assert found is not None
