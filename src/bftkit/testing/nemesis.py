"""The plan of what goes wrong in one schedule, drawn beforehand: which fault, when, to whom, for how long."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import msgspec

from bftkit.runtime.failpoint_names import registered
from bftkit.testing.disk import CrashMode
from bftkit.testing.profile import PLANNED, Profile

if TYPE_CHECKING:
    from bftkit.testing.choices import Stream
    from bftkit.testing.world import World

FARTHEST_OUTPUT = 12
"""Outputs after which a crash in the middle of a step happens at the latest."""

FARTHEST_OPERATION = 9
"""Operations of the disk after which a crash in the middle of one happens at the latest."""

FARTHEST_HIT = 6
"""Passes of a failpoint after which it crashes at the latest."""

NOT_SIMULATED = ("node.before_first_start", "node.after_first_start", "shard.before_flush")
"""Failpoints of what a simulated member does not have: permission to begin, and outboxes."""

FAILPOINTS = tuple(each.name for each in registered() if each.name not in NOT_SIMULATED)
"""Names of the places at which a simulated member may crash."""

LOOP_US = 300_000
"""Time between two crashes of a member that crashes again and again."""

FLAP_US = 400_000
"""Time between two breaks of a connection that comes and goes: about a view timeout."""

FREE_BYTES = 600
"""Space that is left on a full disk at most."""

LONGEST_LEAP_MS = 10_000
"""How far a clock goes forward at once at most."""

SLOWEST_PACE_US = 30_000
"""How long a message occupies a slow link at most."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong."""

    at_us: int
    kind: str
    """One of the counts of `Profile`: "crashes", "partitions", ..."""
    members: tuple[int, ...]
    """Everybody, in an order of its own; the kind says how many of the first are concerned."""
    share: int
    """How many of them form one side, where there are sides."""
    lasts_us: int
    mode: CrashMode
    """What a crash leaves on the disk."""
    number: int
    """A number for whatever the kind needs one for."""


def draw_faults(profile: Profile, members: int, random: Random) -> tuple[Fault, ...]:
    """Draw the faults of a profile, in order of time."""
    faults: list[Fault] = []
    least, spread = profile.down_ms
    for kind in PLANNED:
        for _ in range(getattr(profile, kind)):
            order = random.sample(range(members), members)
            faults.append(
                Fault(
                    random.randrange(1, profile.duration_ms * 1_000),
                    kind,
                    tuple(order),
                    random.randint(1, max(1, members - 1)),
                    1_000 * (least + random.randrange(spread + 1)),
                    random.choice(profile.crash_modes),
                    random.randrange(1 << 20),
                )
            )
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


def chosen_faults(faults: tuple[Fault, ...], stream: "Stream") -> tuple[Fault, ...]:
    """Return the planned faults that do happen: all, unless the run is played back with some left out."""
    return tuple(fault for number, fault in enumerate(faults) if stream.chance("fault", number, 1.0))


def inflict(world: "World", fault: Fault) -> None:
    """Let one fault happen now."""
    if not world.healed:
        _INFLICT[fault.kind](world, fault)


# -- members ----------------------------------------------------------------------------------------


def _crash(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        world.hits["crashes"] += 1
        world.crashed(node, fault)


def _cut_power(world: "World", fault: Fault) -> None:
    world.hits["power_cuts"] += 1
    for node in world.nodes:
        if node.alive:
            world.crashed(node, fault)


def _crash_at_output(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    node.plan.outputs_left = fault.number % FARTHEST_OUTPUT
    node.plan.plan("crashes_at_output", fault)


def _crash_in_disk(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        node.disk.crash_after(fault.number % FARTHEST_OPERATION)
        node.plan.plan("crashes_in_disk", fault)


def _crash_in_recovery(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    node.plan.in_recovery = [1 + fault.number // 7**turn % 40 for turn in range(1 + fault.number % 4)]
    node.plan.plan("crashes_in_recovery", fault)
    if node.alive:
        world.crashed(node, fault)


def _crash_again(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    end_us = world.events.now_us + fault.lasts_us + LOOP_US
    brief = msgspec.structs.replace(fault, lasts_us=20_000)

    def crash() -> None:
        if world.healed or world.events.now_us > end_us:
            return
        if node.alive:
            world.hits["crash_loops"] += 1
            world.crashed(node, brief)
        world.events.after(LOOP_US, crash)

    crash()


def _crash_at_failpoint(world: "World", fault: Fault) -> None:
    """Let a member crash where it passes a failpoint: from now on, or from its next start, which comes at once."""
    node = world.nodes[fault.members[0]]
    name, hits = FAILPOINTS[fault.number % len(FAILPOINTS)], 1 + fault.number // 64 % FARTHEST_HIT
    if node.alive and fault.number & 1 << 10:
        node.plan.at_start = (name, hits)
        world.crashed(node, fault)
        node.plan.plan("failpoints", fault)
    else:
        node.arm(name, hits)
        node.plan.plan("failpoints", fault)


def _pause(world: "World", fault: Fault) -> None:
    world.hits["pauses"] += 1
    node = world.nodes[fault.members[0]]
    node.paused_until_us = max(node.paused_until_us, world.events.now_us + fault.lasts_us)


def _leap(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        world.hits["clock_leaps"] += 1
        node.leap(1 + fault.number % LONGEST_LEAP_MS)


# -- disks ------------------------------------------------------------------------------------------


def _fail_sync(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        node.disk.fail("sync")
        node.plan.sync_fails = True
        node.plan.fault = fault


def _fill_disk(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    world.hits["full_disks"] += 1
    node.disk.fill(fault.number % FREE_BYTES)
    world.events.after(fault.lasts_us, node.disk.make_room)


def _stall_disk(world: "World", fault: Fault) -> None:
    world.hits["stalled_disks"] += 1
    node = world.nodes[fault.members[0]]
    node.stalled_until_us = max(node.stalled_until_us, world.events.now_us + fault.lasts_us)


def _rot(world: "World", fault: Fault) -> None:
    world.rot(fault.number)


# -- links ------------------------------------------------------------------------------------------


def _cut_links(world: "World", fault: Fault, links: list[tuple[int, int]]) -> None:
    if links:
        world.hits[fault.kind] += 1
    for sender, receiver in links:
        world.network.cut(sender, receiver)
        world.events.after(fault.lasts_us, world.network.heal, sender, receiver)


def _both_ways(side: tuple[int, ...], other: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(a, b) for a in side for b in other] + [(b, a) for a in side for b in other]


def _cut(world: "World", fault: Fault) -> None:
    _cut_links(world, fault, [(fault.members[0], fault.members[1])] if len(fault.members) > 1 else [])


def _partition(world: "World", fault: Fault) -> None:
    _cut_links(world, fault, _both_ways(fault.members[: fault.share], fault.members[fault.share :]))


def _partition_partially(world: "World", fault: Fault) -> None:
    """Cut two groups apart; at least one member still speaks with both."""
    rest = fault.members[1:]
    half = max(1, min(fault.share, len(rest) - 1))
    _cut_links(world, fault, _both_ways(rest[:half], rest[half:]))


def _flap(world: "World", fault: Fault) -> None:
    one, other = fault.members[0], fault.members[-1]
    end_us = world.events.now_us + fault.lasts_us + 4 * FLAP_US

    def down() -> None:
        if world.healed or world.events.now_us > end_us:
            return
        world.hits["flaps"] += 1
        for sender, receiver in ((one, other), (other, one)):
            world.network.cut(sender, receiver)
            world.events.after(FLAP_US // 2, world.network.heal, sender, receiver)
        world.network.reset(one, other)
        world.events.after(FLAP_US, down)

    down()


def _clog(world: "World", fault: Fault) -> None:
    """Stop links one by one, and release them in another order ("swizzle-clogging")."""
    random = world.choices.random("clog", fault.at_us, fault.number)
    links = _both_ways(fault.members[: fault.share], fault.members)
    for sender, receiver in random.sample(links, (len(links) + 1) // 2):
        if sender != receiver:
            begin_us = random.randrange(fault.lasts_us + 1)
            world.events.after(begin_us, world.network.clog, sender, receiver)
            world.events.after(fault.lasts_us + random.randrange(400_000), world.network.release, sender, receiver)


def _throttle(world: "World", fault: Fault) -> None:
    world.hits["throttles"] += 1
    for sender, receiver in _both_ways(fault.members[:1], fault.members[1 : 1 + fault.share]):
        world.network.pace(sender, receiver, 1 + fault.number % SLOWEST_PACE_US)
        world.events.after(fault.lasts_us, world.network.pace, sender, receiver, 0)


def _reset(world: "World", fault: Fault) -> None:
    world.network.reset(fault.members[0], fault.members[-1])


_INFLICT: dict[str, Callable[["World", Fault], None]] = {
    "crashes": _crash,
    "crashes_at_output": _crash_at_output,
    "crashes_in_disk": _crash_in_disk,
    "crashes_in_recovery": _crash_in_recovery,
    "crash_loops": _crash_again,
    "power_cuts": _cut_power,
    "failpoints": _crash_at_failpoint,
    "sync_errors": _fail_sync,
    "full_disks": _fill_disk,
    "stalled_disks": _stall_disk,
    "rot": _rot,
    "pauses": _pause,
    "clock_leaps": _leap,
    "partitions": _partition,
    "partial_partitions": _partition_partially,
    "cuts": _cut,
    "flaps": _flap,
    "clogs": _clog,
    "throttles": _throttle,
    "resets": _reset,
}
