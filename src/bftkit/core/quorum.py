"""The one place that computes thresholds.

Byzantine members: f = floor((n - 1) / 3), q = floor((n + f) / 2) + 1, so that two quorums share at
least f + 1 members at every n, also where n is not 3f + 1. Crash-tolerant members: a majority.
"""

from enum import StrEnum

import msgspec


class FaultModel(StrEnum):
    """What a faulty member may do."""

    CRASH = "crash"
    """Stop, and come back later with what it had made durable."""
    BYZANTINE = "byzantine"
    """Anything, except to forge the signatures of others."""


class Quorum(msgspec.Struct, frozen=True):
    """The thresholds of one membership; they count heads, never weights."""

    members: int
    """n, the number of voting members."""
    faults: int
    """f, how many of them may be faulty."""
    quorum: int
    """How many matching votes decide: any two such sets share a correct member."""
    weak: int
    """How many matching votes contain at least one of a correct member."""

    @classmethod
    def of(cls, fault_model: FaultModel, members: int) -> "Quorum":
        """Compute the thresholds for so many members; ValueError below one."""
        if members < 1:
            raise ValueError("a membership needs at least one member")
        if fault_model is FaultModel.BYZANTINE:
            faults = (members - 1) // 3
            return cls(members, faults, (members + faults) // 2 + 1, faults + 1)
        return cls(members, (members - 1) // 2, members // 2 + 1, 1)


def members_needed(fault_model: FaultModel, faults: int) -> int:
    """Count the members that it takes to survive so many faults."""
    return 3 * faults + 1 if fault_model is FaultModel.BYZANTINE else 2 * faults + 1
