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


def weights_problem(weights: Sequence[int], faults: int, successive: int) -> str | None:
    """Say why a group with these weights could stop for good, or None; the weights in the order of the members' names.

    An engine may need several successive views with live leaders to decide anything. Whichever `faults` members are
    silent, so many adjacent turns must be all others': a heavy member may stand between the turns of all the rest.
    """
    order = tuple(range(len(weights))) if len(set(weights)) <= 1 else weighted_order(weights)
    if not _may_stop(order, len(weights), faults, successive):
        return None
    silent = f"{faults} silent member{'s' * (faults > 1)}"
    return (
        f"the weights {_listed(weights)} let {silent} leave no {successive} successive views to the others: "
        f"nothing would be decided; {_remedy(weights, faults, successive)}"
    )


def _remedy(weights: Sequence[int], faults: int, successive: int) -> str:
    """Say which weights would do: those that are most like the given ones and not above some limit."""
    for highest in range(max(weights) - 1, 0, -1):
        lower = [min(weight, highest) for weight in weights]
        if weights_problem(lower, faults, successive) is None:
            return f"{_listed(lower)} would do"
    return "no weights would do"


def _listed(weights: Sequence[int]) -> str:
    return ", ".join(map(str, weights))


def _may_stop(order: Sequence[ReplicaIndex], members: int, faults: int, successive: int) -> bool:
    """Say whether some set of so many members has a part in every so many adjacent turns."""
    if successive == 1 or faults == 0:
        return faults >= members
    if len(order) == members:
        # Silent members cut the circle of all into so many runs of others at most.
        return -(-(members - faults) // faults) < successive
    runs: dict[int, None] = {}
    for first in range(len(order)):
        run = 0
        for step in range(successive):
            run |= 1 << order[(first + step) % len(order)]
        runs[run] = None
    return _silences(list(runs), faults)


def _silences(runs: list[int], faults: int) -> bool:
    """Say whether so many members have a part in each of these sets, which are bit masks: one of the first set must."""
    apart = taken = 0
    for run in runs:
        if not run & taken:
            apart, taken = apart + 1, taken | run
    if apart > faults:
        return False
    if not runs:
        return True
    smallest = min(runs, key=int.bit_count)
    members = [who for who in range(smallest.bit_length()) if smallest >> who & 1]
    return any(_silences([run for run in runs if not run >> who & 1], faults - 1) for who in members)


def schedule_of(weights: Sequence[int]) -> LeaderSchedule:
    """Return who leads which view, given how often each member is to lead; ValueError for a weight out of range."""
    if not all(1 <= weight <= MAX_WEIGHT for weight in weights):
        raise ValueError(f"a weight is not between 1 and {MAX_WEIGHT}")
    if len(set(weights)) <= 1:
        return RoundRobin(len(weights))
    return InTurn(weighted_order(weights))
