"""Who leads which view: a rule that all members share, so that nobody has to be asked."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from bftkit.core.ids import ReplicaIndex


class LeaderSchedule(Protocol):
    """The leader of every view. All members of an epoch must have the same one, or they reject each other."""

    def leader(self, view: int) -> ReplicaIndex:
        """Return who leads a view (term, round), from 0; the same member whenever it is asked."""
        ...


MAX_WEIGHT = 8
"""Largest weight of a member: among four members or more, so heavy a one leads four views in a row at most."""


class RoundRobin(msgspec.Struct, frozen=True):
    """One member after the other in the order of their names: p = v mod n (PBFT §4)."""

    members: int
    """n, the number of voting members."""

    def leader(self, view: int) -> ReplicaIndex:
        """Return the member whose turn a view is."""
        return view % self.members


class InTurn(msgspec.Struct, frozen=True):
    """Members in a fixed order that begins anew after the last one."""

    order: tuple[ReplicaIndex, ...]

    def leader(self, view: int) -> ReplicaIndex:
        """Return the member whose turn a view is."""
        return self.order[view % len(self.order)]


def weighted_order(weights: Sequence[int]) -> tuple[ReplicaIndex, ...]:
    """Return an order in which each member stands as often as its weight says, its turns as far apart as they can be.

    Smooth weighted round robin: in each step every member gains its weight, and the one with the most, the heavier and
    then the lower of two, has its turn and pays the sum of all weights. Equal weights give all members in turn.
    """
    total = sum(weights)
    gained = [0] * len(weights)
    order: list[ReplicaIndex] = []
    for _ in range(total):
        gained = [credit + weight for credit, weight in zip(gained, weights, strict=True)]
        chosen = max(range(len(weights)), key=lambda who: (gained[who], weights[who], -who))
        gained[chosen] -= total
        order.append(chosen)
    return tuple(order)


def schedule_of(weights: Sequence[int]) -> LeaderSchedule:
    """Return who leads which view, given how often each member is to lead; ValueError for a weight out of range."""
    if not all(1 <= weight <= MAX_WEIGHT for weight in weights):
        raise ValueError(f"a weight is not between 1 and {MAX_WEIGHT}")
    if len(set(weights)) <= 1:
        return RoundRobin(len(weights))
    return InTurn(weighted_order(weights))
