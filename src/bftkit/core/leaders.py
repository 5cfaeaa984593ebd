"""Who leads which view: a rule that all members share, so that nobody has to be asked."""

from typing import Protocol

import msgspec

from bftkit.core.ids import ReplicaIndex


class LeaderSchedule(Protocol):
    """The leader of every view. All members of an epoch must have the same one, or they reject each other."""

    def leader(self, view: int) -> ReplicaIndex:
        """Return who leads a view (term, round), from 0; the same member whenever it is asked."""
        ...


class RoundRobin(msgspec.Struct, frozen=True):
    """One member after the other in the order of their names: p = v mod n (PBFT §4)."""

    members: int
    """n, the number of voting members."""

    def leader(self, view: int) -> ReplicaIndex:
        """Return the member whose turn a view is."""
        return view % self.members
