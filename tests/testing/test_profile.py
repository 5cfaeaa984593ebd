"""Drawing what goes wrong."""

from __future__ import annotations

from random import Random

import pytest

from bftkit.errors import ConfigurationError
from bftkit.testing.profile import CALM, PLANNED, PROFILES, draw_profile


@pytest.mark.parametrize("name", PROFILES)
def test_one_seed_draws_one_profile(name):
    assert draw_profile(name, Random("7")) == draw_profile(name, Random("7"))


def test_calm_is_calm():
    for seed in range(20):
        profile = draw_profile("calm", Random(seed))
        assert (profile.faults, profile.loss, profile.duplication, profile.spike) == (0, 0, 0, 0)
    assert CALM.faults == 0


def test_a_swarm_enables_each_fault_in_some_seeds_and_leaves_it_out_in_others():
    drawn = [draw_profile("all", Random(seed)) for seed in range(100)]
    fields = (*PLANNED, "loss", "duplication", "spike", "replay", "corruption", "late_timers", "two_faced", "liars")
    for field in (*fields, "adversarial", "twins", "encoded"):
        values = [bool(getattr(profile, field)) for profile in drawn]
        assert any(values), field
        assert not all(values), field
    assert len({profile.crash_modes for profile in drawn}) > 5


def test_one_seed_in_a_hundred_signs_for_real():
    real = sum(draw_profile("all", Random(f"{seed}/profile")).real_signatures for seed in range(2_000))
    assert 10 <= real <= 35


def test_the_named_parts_hold_their_own_faults_only():
    for seed in range(20):
        network, crash = draw_profile("network", Random(seed)), draw_profile("crash", Random(seed))
        assert network.crashes == network.power_cuts == network.sync_errors == network.liars == 0
        assert crash.partitions == crash.cuts == crash.loss == 0
        assert draw_profile("byzantine", Random(seed)).liars


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="calm, network, crash, disk, clock, byzantine, all"):
        draw_profile("stormy", Random(1))
