"""Who lies in a simulated group, and how many may."""

from __future__ import annotations

import pytest

from bftkit.errors import ConfigurationError
from bftkit.testing.liars import OF_ITS_OWN
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, run_schedule
from bftkit.testing.world import World

ROTTING = Profile(
    rot=4, crashes=3, clients=2, envelopes=12, checkpoint_interval=2, snapshot_positions=4, duration_ms=2_000
)


def says_all(to, message):
    return [(to, message)]


def says_nothing(to, message):
    return []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"liars": {0: "silent", 1: "silent"}}, "pbft tolerates 1 liars among 4 members, not 2"),
        ({"liars": dict.fromkeys(range(3), says_all), "replicas": 7}, "tolerates 2 liars among 7 members, not 3"),
        ({"liars": {0: "silent"}, "engine": "raft"}, "raft tolerates 0 liars"),
        ({"liars": {0: "silent"}, "engine": "solo", "replicas": 1}, "solo tolerates 0 liars"),
        ({"liars": {4: "silent"}}, "there is no member 4 among 4"),
        ({"liars": {-1: "silent"}}, "there is no member -1 among 4"),
        ({"liars": {1: "polite"}}, "there is no behaviour 'polite': say one of "),
    ],
)
def test_liars_that_nobody_could_survive_or_know_are_refused(arguments, says):
    with pytest.raises(ConfigurationError, match=says):
        World(1, **arguments)


@pytest.mark.parametrize("members", [4, 7])
def test_those_of_the_profile_come_beside_the_given_ones_and_all_are_no_more_than_are_tolerated(members):
    for seed in range(20):
        world = World(seed, Profile(liars=31, twins=seed % 2 > 0), replicas=members, liars={2: "silent"})
        dishonest = {node.index for node in world.nodes if not node.honest}
        assert 2 in dishonest
        assert world.checkers.suspects[2] == "silent"
        assert len(dishonest) == len(world.checkers.suspects) == world.tolerated
        assert set(world.liars) == dishonest - {twin for twin, places in enumerate(world.instances) if len(places) > 1}


def test_the_atlas_of_rot_knows_who_lies():
    for seed in range(20):
        world = World(seed, ROTTING, liars={seed % 4: "silent"})
        assert world.atlas.victims == ()
        world = World(seed, ROTTING, replicas=7, liars={seed % 7: says_nothing})
        assert len(world.atlas.victims) == 1
        assert seed % 7 not in world.atlas.victims


def test_lies_beside_rot_are_no_finding():
    for seed in range(12):
        outcome = run_schedule(seed, profile=ROTTING, liars={seed % 4: "silent"})
        assert outcome.ok, (seed, outcome.violations)


def test_a_behaviour_of_ones_own_counts_when_it_says_something_else():
    lying = World(1, Profile(clients=1, envelopes=4), liars={3: says_nothing})
    assert lying.checkers.suspects == {3: OF_ITS_OWN}
    assert finish(lying).faults_hit[f"byzantine: {OF_ITS_OWN}"] == 1
    assert lying.nodes[3].speak is says_nothing
    truthful = World(1, Profile(clients=1, envelopes=4), liars={3: says_all})
    assert set(finish(truthful).faults_hit) <= {"invented answers"}
