"""Where damage to disks is allowed: decided beforehand, so that a run can say what must come of it.

Bits that rot anywhere prove little: a group that has lost its last copy of something may stop, and a checker that
forgives that forgives too much. An atlas says beforehand which member may lose what, and thereby what stays.

A log is its member's memory of what it signed, and nobody else has a copy: a member whose log is damaged refuses to
start, or may have forgotten a vote. It counts as faulty, and no more members may lose theirs than the engine tolerates.
A snapshot is what others have as well: whoever loses it can do with an older one and what its peers know.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from random import Random

from bftkit.core.ids import ReplicaIndex
from bftkit.runtime.node import SNAPSHOT_DIRECTORY


class Spare(Enum):
    """What must stay whole."""

    QUORUM = "quorum"
    """Everything, on all members but the victims. For runs that must stay live."""
    COPY = "copy"
    """The logs of all members but the victims, and one copy of everything. For runs that must stay live, unless more
    members halt than may be faulty."""
    NOTHING = "nothing"
    """Nothing, unless somebody lies: then the logs of all members but the victims. For runs in which members may
    halt, but must not be wrong."""


class FaultAtlas:
    """A map of what may be damaged, drawn once."""

    def __init__(
        self,
        members: int,
        budget: int,
        random: Random,
        *,
        spare: Spare = Spare.COPY,
        faulty: Iterable[ReplicaIndex] = (),
    ) -> None:
        """Draw the victims.

        Members that are `faulty` otherwise count against the budget, and may lose anything: nobody relies on them.
        """
        lost = dict.fromkeys(faulty)
        order = [member for member in random.sample(range(members), members) if member not in lost]
        room = max(0, budget - len(lost))
        if spare is Spare.NOTHING and not lost:
            room = members
        self._spare = spare
        self.victims: tuple[ReplicaIndex, ...] = tuple(sorted(order[:room]))
        """Members that may lose anything, and thereby their memory of what they signed."""
        spared = room < len(order) and spare is not Spare.NOTHING
        self.keeper: ReplicaIndex | None = order[room] if spared else None
        """The member that never loses anything; None where nobody is spared."""
        self._helpless = {*lost, *self.victims}

    def may_damage(self, member: ReplicaIndex, path: str) -> bool:
        """Say whether a member's file may rot, or be read from the wrong place."""
        if member in self._helpless:
            return True
        return self._spare is not Spare.QUORUM and member != self.keeper and not is_memory(path)

    def damageable(self, member: ReplicaIndex, paths: Iterable[str]) -> list[str]:
        """List those of a member's files that may be damaged, sorted."""
        return sorted(path for path in paths if self.may_damage(member, path))

    def choose(self, disks: Sequence[Iterable[str]], random: Random) -> tuple[ReplicaIndex, str] | None:
        """Draw a member, and one of its files, from the files that each has; None where nothing may be damaged.

        A member with many files is drawn no more often than one with few.
        """
        allowed = [(member, self.damageable(member, paths)) for member, paths in enumerate(disks)]
        candidates = [(member, paths) for member, paths in allowed if paths]
        if not candidates:
            return None
        member, paths = random.choice(candidates)
        return member, random.choice(paths)


def is_memory(path: str) -> bool:
    """Say whether only this member has what stands in a file: all but snapshots."""
    return not path.startswith(f"{SNAPSHOT_DIRECTORY}/")
