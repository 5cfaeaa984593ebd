"""The plan of what goes wrong in one schedule, drawn beforehand: which fault, when, to whom, for how long."""

import re
from collections.abc import Callable
from functools import partial
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

FARTHEST_HIT = 32
"""Passes of a failpoint, of those that a member passes all the time, after which it crashes at the latest."""

NOT_SIMULATED = ("node.before_first_start", "node.after_first_start", "shard.before_flush")
"""Failpoints of what a simulated member does not have: permission to begin, and outboxes."""

FAILPOINTS = tuple(each.name for each in registered() if each.name not in NOT_SIMULATED)
"""Names of the places at which a simulated member may crash."""

_OFTEN = re.compile(r"shard\.(before|after)_s|wal\.|application\.\w+_(apply|reply)")
"""Failpoints that a member passes all the time."""

_SELDOM = re.compile(r"snapshot\.|application\.\w+_(snapshot|install)|shard\.before_trim|segment\.\w+_remove")
"""Failpoints that some members pass a few times in a schedule, and others never."""

_SCARCELY = re.compile(r"application\.\w+_install|\w+\.\w+_remove")
"""Those of them that hardly anybody passes."""

_AT_FIRST = re.compile(r"mark\.\w+_(rename|directory_fsync)|directory\.")
"""Failpoints that a member passes when it starts for the first time, and hardly later."""


def _weight(name: str) -> int:
    return 8 if _SCARCELY.match(name) else 3 if _SELDOM.match(name) else 2


_DRAWN = tuple(name for name in FAILPOINTS for _ in range(_weight(name)))
"""The names as often as they are drawn: those that are seldom passed more often."""

LOOP_US = 300_000
"""Time between two crashes of a member that crashes again and again."""

FLAP_US = 400_000
"""Time between two breaks of a connection that comes and goes: about a view timeout."""

FREE_BYTES = 600
"""Space that is left on a full disk at most."""

LONGEST_LEAP_MS = 10_000
"""How far a clock goes forward at once at most."""

LONGEST_STALL_US = 2_000_000
"""How long what a member wants of a disk that stalls takes at most."""

STALLED = (("sync",), ("write",), ("read",), ("sync", "write", "read"))
"""Operations of a disk that stall together."""

FAILING = ("read", "write", "rename", "remove", "sync_directory", "open_append")
"""Operations of a disk that fail, beside syncs."""

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


def waits_for_first_start(fault: Fault) -> bool:
    """Say whether a planned fault is there before anybody has started."""
    if fault.kind != "failpoints":
        return False
    name = _DRAWN[fault.number % len(_DRAWN)]
    return fault.number & 1 << 17 > 0 or any(place.match(name) for place in (_AT_FIRST, _SELDOM))


def inflict(world: "World", fault: Fault) -> None:
    """Let one fault happen now; what it begins later goes through `World.unless_healed` as it does itself."""
    _INFLICT[fault.kind](world, fault)


# -- members ----------------------------------------------------------------------------------------


def _crash(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        world.hits["crashes"] += 1
        world.crashed(node, fault)


def _cut_power(world: "World", fault: Fault) -> None:
    alive = [node for node in world.nodes if node.alive]
    if alive:
        world.hits["power_cuts"] += 1
    for node in alive:
        world.crashed(node, fault)


def _crash_at_output(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        node.plan.after_outputs(fault.number % FARTHEST_OUTPUT, fault)


def _crash_in_disk(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if node.alive:
        then = partial(node.plan.happens, "crashes_in_disk", fault)
        node.disk.crash_after(fault.number % FARTHEST_OPERATION, then)


def _crash_in_recovery(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    node.plan.in_recovery = [1 + fault.number // 7**turn % 40 for turn in range(1 + fault.number % 4)]
    node.plan.recovery = fault
    if node.alive:
        world.crashed(node, fault)


def _crash_again(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    end_us = world.events.now_us + fault.lasts_us + LOOP_US
    brief = msgspec.structs.replace(fault, lasts_us=20_000)

    def crash() -> None:
        if world.events.now_us > end_us:
            return
        if node.alive:
            world.hits["crash_loops"] += 1
            world.crashed(node, brief)
        world.events.after(LOOP_US, world.unless_healed, crash)

    crash()


def _crash_at_failpoint(world: "World", fault: Fault) -> None:
    """Let members crash where they pass a failpoint: from now on, or from their next start, which comes at once.

    A place that is seldom passed waits for all of them.
    """
    name = _DRAWN[fault.number % len(_DRAWN)]
    most = FARTHEST_HIT if _OFTEN.match(name) else 1 if _SELDOM.match(name) else 2
    hits = 1 + fault.number // 256 % most
    for member in fault.members if _SELDOM.match(name) else fault.members[:1]:
        node = world.nodes[member]
        if node.alive and fault.number & 1 << 18:
            world.crashed(node, fault)
        node.arm(name, hits, fault)


def _pause(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    if not node.alive:
        return
    world.hits["pauses"] += 1
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
        node.disk.fail("sync", then=partial(node.plan.happens, "sync_errors", fault))


def _fail_io(world: "World", fault: Fault) -> None:
    """Let an operation fail that comes soon, or one of the next start, which comes at once."""
    node = world.nodes[fault.members[0]]
    if node.alive and fault.number & 1 << 10:
        world.crashed(node, fault)
    operation = FAILING[fault.number % len(FAILING)]
    node.disk.fail(operation, then=partial(node.plan.happens, "io_errors", fault))


def _shorten_write(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]
    random = world.choices.random("short", fault.number)
    node.disk.short_write(random=random, then=partial(node.plan.happens, "short_writes", fault))


def _fill_disk(world: "World", fault: Fault) -> None:
    node = world.nodes[fault.members[0]]

    def count() -> None:
        world.hits["full_disks"] += 1

    node.disk.fill(fault.number % FREE_BYTES, then=count)
    world.events.after(fault.lasts_us, node.disk.make_room)


def _stall_disk(world: "World", fault: Fault) -> None:
    disk = world.nodes[fault.members[0]].disk
    for operation in STALLED[fault.number % len(STALLED)]:
        disk.slow(operation, 1 + fault.number // 4 % LONGEST_STALL_US)
        world.events.after(fault.lasts_us, disk.slow, operation, 0)


def _rot(world: "World", fault: Fault) -> None:
    world.rot(fault)


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
        if world.events.now_us > end_us:
            return
        world.hits["flaps"] += 1
        for sender, receiver in ((one, other), (other, one)):
            world.network.cut(sender, receiver)
            world.events.after(FLAP_US // 2, world.network.heal, sender, receiver)
        world.network.reset(one, other)
        world.events.after(FLAP_US, world.unless_healed, down)

    down()


def _clog(world: "World", fault: Fault) -> None:
    """Stop links one by one, and release them in another order ("swizzle-clogging")."""
    random = world.choices.random("clog", fault.at_us, fault.number)
    links = _both_ways(fault.members[: fault.share], fault.members)
    for sender, receiver in random.sample(links, (len(links) + 1) // 2):
        if sender != receiver:
            begin_us = random.randrange(fault.lasts_us + 1)
            world.events.after(begin_us, world.unless_healed, world.network.clog, sender, receiver)
            world.events.after(fault.lasts_us + random.randrange(400_000), world.network.release, sender, receiver)


def _throttle(world: "World", fault: Fault) -> None:
    for sender, receiver in _both_ways(fault.members[:1], fault.members[1 : 1 + fault.share]):
        world.network.pace(sender, receiver, 1 + fault.number % SLOWEST_PACE_US)
        world.events.after(fault.lasts_us, world.network.pace, sender, receiver, 0)


def _shed_bulk(world: "World", fault: Fault) -> None:
    """Keep bodies and states from a member, or from it to some others, while everything else passes."""
    links = _both_ways(fault.members[:1], fault.members[1 : 1 + fault.share])
    for sender, receiver in links if fault.number & 1 else [link for link in links if link[1] == fault.members[0]]:
        world.network.shed(sender, receiver, 1)
        world.events.after(fault.lasts_us, world.network.shed, sender, receiver, -1)


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
    "short_writes": _shorten_write,
    "io_errors": _fail_io,
    "rot": _rot,
    "pauses": _pause,
    "clock_leaps": _leap,
    "partitions": _partition,
    "partial_partitions": _partition_partially,
    "cuts": _cut,
    "flaps": _flap,
    "clogs": _clog,
    "throttles": _throttle,
    "lost_bulk": _shed_bulk,
    "resets": _reset,
}
