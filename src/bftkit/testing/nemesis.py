"""The plan of what goes wrong in one schedule, drawn beforehand: which fault, when, to whom, for how long."""

from random import Random
from typing import TYPE_CHECKING

import msgspec

from bftkit.testing.disk import CrashMode
from bftkit.testing.profile import Profile

if TYPE_CHECKING:
    from bftkit.testing.world import World

FARTHEST_OUTPUT = 12
"""Outputs after which a crash in the middle of a step happens at the latest."""

FARTHEST_OPERATION = 9
"""Operations of the disk after which a crash in the middle of one happens at the latest."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that goes wrong."""

    at_us: int
    kind: str
    """One of the counts of `Profile`: "crashes", "partitions", ..."""
    members: tuple[int, ...]
    """Who is concerned: one that crashes, sender and receiver of a cut link, one side of a partition."""
    lasts_us: int
    mode: CrashMode
    """What a crash leaves on the disk."""
    number: int
    """Outputs or operations that still happen before the crash."""


def draw_faults(profile: Profile, members: int, random: Random) -> tuple[Fault, ...]:
    """Draw the faults of a profile, in order of time."""
    faults: list[Fault] = []

    def draw(kind: str, count: int, most: int) -> None:
        for _ in range(count):
            order = random.sample(range(members), members)
            concerned = {"partitions": random.randint(1, max(1, members - 1)), "cuts": 2}.get(kind, 1)
            least, spread = profile.down_ms
            faults.append(
                Fault(
                    random.randrange(1, profile.duration_ms * 1_000),
                    kind,
                    tuple(sorted(order[:concerned]) if kind == "partitions" else order[:concerned]),
                    1_000 * (least + random.randrange(spread + 1)),
                    random.choice(profile.crash_modes),
                    random.randrange(most),
                )
            )

    draw("crashes", profile.crashes, 1)
    draw("crashes_at_output", profile.crashes_at_output, FARTHEST_OUTPUT)
    draw("crashes_in_disk", profile.crashes_in_disk, FARTHEST_OPERATION)
    draw("power_cuts", profile.power_cuts, 1)
    draw("sync_errors", profile.sync_errors, 1)
    if members > 1:
        draw("partitions", profile.partitions, 1)
        draw("cuts", profile.cuts, 1)
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


def inflict(world: "World", fault: Fault) -> None:
    """Let one fault happen now."""
    if world.healed:
        return
    node = world.nodes[fault.members[0]]
    match fault.kind:
        case "crashes":
            if node.alive:
                world.crashed(node, fault)
        case "power_cuts":
            for each in world.nodes:
                if each.alive:
                    world.crashed(each, fault)
        case "crashes_at_output":
            node.outputs_left = fault.number
            node.next_crash = fault
        case "crashes_in_disk":
            if node.alive:
                node.disk.crash_after(fault.number)
                node.next_crash = fault
        case "sync_errors":
            if node.alive:
                node.disk.fail("sync")
                node.disk_fails = True
                node.next_crash = fault
        case _:
            _cut(world, fault)


def _cut(world: "World", fault: Fault) -> None:
    if fault.kind == "cuts":
        links = [(fault.members[0], fault.members[1])]
    else:
        side = fault.members
        rest = [index for index in range(len(world.nodes)) if index not in side]
        links = [(one, other) for one in side for other in rest] + [(other, one) for one in side for other in rest]
    world.counters["cut links"] += len(links)
    for sender, receiver in links:
        world.network.cut(sender, receiver)
        world.events.after(fault.lasts_us, world.network.heal, sender, receiver)
