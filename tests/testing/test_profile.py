"""Drawing what goes wrong."""

from __future__ import annotations

from random import Random

import pytest

from bftkit.errors import ConfigurationError
from bftkit.testing.profile import CALM, PROFILES, draw_profile


@pytest.mark.parametrize("name", PROFILES)
def test_one_seed_draws_one_profile(name):
    assert draw_profile(name, Random("7")) == draw_profile(name, Random("7"))


def test_calm_is_calm():
    for seed in range(20):
        profile = draw_profile("calm", Random(seed))
        assert (profile.faults, profile.loss, profile.duplication, profile.spike) == (0, 0, 0, 0)
    assert CALM.faults == 0


def test_a_swarm_enables_each_fault_in_some_seeds_and_leaves_it_out_in_others():
    drawn = [draw_profile("all", Random(seed)) for seed in range(60)]
    for field in ("loss", "duplication", "spike", "crashes", "crashes_at_output", "crashes_in_disk", "power_cuts"):
        values = [bool(getattr(profile, field)) for profile in drawn]
        assert any(values)
        assert not all(values)
    assert len({profile.crash_modes for profile in drawn}) > 5


def test_the_named_parts_hold_their_own_faults_only():
    for seed in range(20):
        network, crash = draw_profile("network", Random(seed)), draw_profile("crash", Random(seed))
        assert network.crashes == network.power_cuts == network.sync_errors == 0
        assert crash.partitions == crash.cuts == crash.loss == 0


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="calm, network, crash, all"):
        draw_profile("stormy", Random(1))
