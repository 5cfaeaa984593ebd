"""Lying members: that they lie, and that a group of PBFT bears as many as it says."""

from __future__ import annotations

from random import Random

import pytest

from bftkit.core.batch import BatchBody
from bftkit.core.quorum import Quorum
from bftkit.plugins import load_engine
from bftkit.testing.byzantine import BEHAVIOURS, draw_behaviour, kind_of, make_behaviour
from bftkit.testing.message_mutation import mutations
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world
from bftkit.testing.world import World

SPEC = load_engine("pbft")
ROUGH = Profile(
    duration_ms=2_500,
    link_us=(200, 5_000),
    loss=0.05,
    partitions=2,
    crashes=2,
    resets=2,
    down_ms=(300, 700),
    clients=2,
    envelopes=8,
    think_ms=60,
    checkpoint_interval=2,
    snapshot_positions=4,
)
"""Views change, members lag and take over states: every kind of message is sent."""
BRIEF = Profile(duration_ms=400, clients=1, envelopes=3, think_ms=20, checkpoint_interval=2)


def world_of(seed: int, members: int, profile: Profile, **liars: str) -> World:
    world = make_world(seed, SPEC, members, profile)
    for index, name in liars.items():
        world.let_lie(int(index.removeprefix("n")), name)
    return world


def test_there_are_many_ways_to_lie():
    assert len(BEHAVIOURS) >= 40
    assert {draw_behaviour(Random(seed)) for seed in range(600)} == set(BEHAVIOURS)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_one_liar_among_four_changes_something_and_stops_nobody(name):
    changed = 0
    for seed in range(12):
        world = world_of(seed, 4, ROUGH, **{f"n{seed % 2}": name})
        node = world.nodes[seed % 2]
        speak = node.speak

        def watched(to, message, speak=speak):
            nonlocal changed
            said = speak(to, message)
            changed += said != [(to, message)]
            return said

        node.speak = watched
        outcome = finish(world)
        assert outcome.violations == (), f"seed {seed}: {outcome.violations}"
        assert outcome.commits
        if changed and seed:
            break
    assert changed, "it never had an occasion to lie"


@pytest.mark.parametrize("seed", range(12))
def test_two_different_liars_among_seven_stop_nobody(seed):
    chance = Random(f"two liars {seed}")
    one, other = chance.sample(range(7), 2)
    liars = {f"n{one}": draw_behaviour(chance), f"n{other}": draw_behaviour(chance)}
    outcome = finish(world_of(seed, 7, ROUGH, **liars))
    assert outcome.violations == (), f"{liars}: {outcome.violations}"


def test_more_liars_than_are_tolerated_are_never_drawn():
    world = make_world(1, SPEC, 7, Profile(liars=31))
    assert sum(not node.honest for node in world.nodes) == Quorum.of(SPEC.fault_model, 7).faults


def test_a_crash_tolerant_engine_gets_no_liar():
    from bftkit.testing.solo import solo_spec

    assert all(node.honest for node in make_world(1, solo_spec(), 1, Profile(liars=3)).nodes)


def test_a_behaviour_follows_from_its_seed():
    def said(seed: int) -> list[object]:
        speak = make_behaviour("corrupt", spec=SPEC, own=0, members=4, random=Random(seed))
        return [speak(1, message) for message in messages_of_a_calm_run()]

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_kinds_are_told_apart():
    kinds = {kind_of(SPEC, message) for seed in range(6) for message in messages_of_a_calm_run(ROUGH, seed)}
    assert {"proposal", "vote", "view change", "checkpoint", "answer", "body"} <= kinds


# --- Small scope ----------------------------------------------------------------------------------------------------


def messages_of_a_calm_run(profile: Profile = BRIEF, seed: int = 1) -> list[object]:
    """What the primary says to its first peer, each message once, in order."""
    found: list[object] = []
    world = world_of(seed, 4, profile)
    world.distrust(0, "observed")

    def observe(to, message):
        if to == 1 and message not in found:
            found.append(message)
        return [(to, message)]

    world.nodes[0].speak = observe
    finish(world)
    return found


def first_of_each_type() -> list[object]:
    types: dict[type, object] = {}
    for message in messages_of_a_calm_run():
        types.setdefault(type(message), message)
    return list(types.values())


def run_with(original: object, changed: object) -> tuple[str, ...]:
    """Run the same schedule again, with one message of the primary replaced, to whomever it goes."""
    world = world_of(1, 4, BRIEF)
    world.distrust(0, "one message")
    world.nodes[0].speak = lambda to, message: [(to, changed if message == original else message)]
    return finish(world).violations


@pytest.mark.parametrize("message", first_of_each_type(), ids=lambda message: type(message).__name__)
def test_no_single_change_of_a_message_does_harm(message):
    if isinstance(message, BatchBody):
        choices = [lambda: BatchBody(message.ref, message.header, b"\x90"), lambda: BatchBody(message.ref, b"", b"")]
    else:
        choices = mutations(message)
    assert choices
    for number, make in enumerate(choices):
        assert run_with(message, make()) == (), f"mutation {number}: {make()}"
