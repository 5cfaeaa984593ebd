"""Members of a simulated group that need not keep to the rules: who they are, and how they come to speak."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import Broadcast, Send
from bftkit.errors import ConfigurationError
from bftkit.testing.byzantine import BEHAVIOURS, Behaviour, Said, draw_behaviour, make_behaviour
from bftkit.testing.node import SimulatedNode

if TYPE_CHECKING:
    from bftkit.testing.world import World

Liars = Mapping[ReplicaIndex, str | Behaviour]
"""Who lies, and how: in one of the ways of `BEHAVIOURS`, or in one of your own."""

BYZANTINE_HIT = "byzantine: "
"""What stands before the name of a behaviour where it is counted that somebody lied like that."""

TWINS = "twins"
"""What it is called that a member is two honest instances with one key."""

OF_ITS_OWN = "a behaviour of its own"
"""What a behaviour is called that the library does not have."""


def choose_liars(world: "World", given: Liars) -> None:
    """Let the given members lie, and others until there are as many as the profile wants and the engine tolerates.

    ConfigurationError for more than it tolerates, for nobody who is a member, and for an unknown way to lie.
    """
    _expect_possible(world, given)
    for index in sorted(given):
        _let_lie(world, index, given[index])
    random = world.choices.random("liars")
    honest = [index for index in range(len(world.instances)) if index not in given]
    most = max(0, min(world.profile.liars, world.tolerated) - len(given))
    for number, index in enumerate(random.sample(honest, most)):
        name = draw_behaviour(random)
        if not world.choices.byzantine.chance("liar", index, 1.0):
            continue
        if world.profile.twins and number == 0:
            _let_be_two(world, index)
        else:
            _let_lie(world, index, name)


def _expect_possible(world: "World", given: Liars) -> None:
    spec, members = world.settings.spec, len(world.instances)
    if len(given) > world.tolerated:
        raise ConfigurationError(
            f"{spec.name} tolerates {world.tolerated} liars among {members} members, not {len(given)}"
        )
    for index, how in given.items():
        if not 0 <= index < members:
            raise ConfigurationError(f"there is no member {index} among {members} that could lie")
        if isinstance(how, str) and how not in BEHAVIOURS:
            raise ConfigurationError(f"there is no behaviour {how!r}: say one of {', '.join(sorted(BEHAVIOURS))}")


def distrust(world: "World", index: ReplicaIndex, why: str) -> None:
    """Hold a member to no rule from now on, whether or not the engine tolerates that."""
    world.nodes[index].honest = False
    world.checkers.suspects[index] = why
    for node in world.nodes:
        node.verify_stage.hash_bodies = True


def _let_be_two(world: "World", index: ReplicaIndex) -> None:
    """Let a member be two honest instances with one key."""
    distrust(world, index, TWINS)
    world.instances[index] = (index, len(world.nodes))
    twin = SimulatedNode(world, world.nodes[index].settings, len(world.nodes))
    twin.honest = False
    twin.rewrite = partial(_twin_says, world, twin)
    world.nodes.append(twin)


def _twin_says(world: "World", twin: SimulatedNode, outputs: list[Any]) -> list[Any]:
    """Note that the second instance of a member says something for the first time."""
    if any(isinstance(output, Send | Broadcast) for output in outputs):
        world.hits[BYZANTINE_HIT + TWINS] += 1
        twin.rewrite = None
    return outputs


def _let_lie(world: "World", index: ReplicaIndex, how: str | Behaviour) -> None:
    name = how if isinstance(how, str) else OF_ITS_OWN
    distrust(world, index, name)
    node = world.nodes[index]
    behave = _behaviour(world, index, how) if isinstance(how, str) else how

    def speak_until_it_lies(to: ReplicaIndex, message: Any) -> Said:
        said = behave(to, message)
        if node.speak is speak_until_it_lies and said != [(to, message)]:
            world.hits[BYZANTINE_HIT + name] += 1
            node.speak = behave
        return said

    node.speak = speak_until_it_lies
    world.liars.append(index)


def _behaviour(world: "World", index: ReplicaIndex, name: str) -> Behaviour:
    return make_behaviour(
        name,
        spec=world.settings.spec,
        own=index,
        members=len(world.instances),
        random=world.choices.random("behaviour", index),
    )
