"""Scenarios for twins: who can hear whom, and who leads, view by view; all of them, counted and numbered.

Instances 0 to n - 1 are the members. The first `twins` members are faulty: each runs a second time, under the
same key, as instance n, n + 1, ... (Bano et al., "Twins: BFT Systems Made Robust", OPODIS 2021). The other members
are honest and alike, so of the scenarios that differ only in their names one is enough: the first in
lexicographic order. The scenarios that are left are numbered in that order, and any of them is found from its
number at once; a search can be cut in slices, taken up again, or go through them shuffled.
"""

from bisect import bisect_right
from hashlib import blake2b
from itertools import accumulate, permutations, product
from typing import NamedTuple

import msgspec

from bftkit.core.ids import ReplicaIndex

VOTES, PROPOSALS, VIEW_CHANGES = "votes", "proposals", "view changes"

LOSSES = ("", VOTES, PROPOSALS, VIEW_CHANGES)
"""What a view may lose: nothing, or all messages of one kind."""

MOST_HONEST = 6
"""Honest members that scenarios can be numbered for: every permutation of them is looked at."""

_SHUFFLE_ROUNDS = 4


class View(msgspec.Struct, frozen=True):
    """One view of a scenario: its leader, and what goes wrong in it."""

    leader: ReplicaIndex
    blocks: tuple[int, ...]
    """For each instance the number of its block; messages pass within a block only."""
    lost: str = ""
    """Messages of this kind do not arrive, one of `LOSSES`."""
    at: int | None = None
    """The only instance where they do not; None for everywhere."""
    restart: int | None = None
    """An instance that crashes in the middle of the view and comes back; a twin comes back without memory."""


class Scenario(msgspec.Struct, frozen=True):
    """What happens to a group while its first views last. ValueError where it contradicts itself."""

    members: int
    twins: int
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if self.members < 1 or not 0 <= self.twins <= self.members:
            raise ValueError(f"{self.members} members with {self.twins} twins are no group")
        for number, view in enumerate(self.views):
            if not 0 <= view.leader < self.members:
                raise ValueError(f"view {number} is led by nobody")
            if len(view.blocks) != self.instances:
                raise ValueError(f"view {number} does not say for each of {self.instances} instances where it is")
            if view.lost not in LOSSES:
                raise ValueError(f"view {number} loses {view.lost!r}: that is no kind of message")
            if any(one is not None and not 0 <= one < self.instances for one in (view.at, view.restart)):
                raise ValueError(f"view {number} speaks of an instance that is not there")
            if view.at is not None and not view.lost:
                raise ValueError(f"view {number} loses nothing at somebody")

    @property
    def instances(self) -> int:
        """Return how many engines run."""
        return self.members + self.twins

    @property
    def identity(self) -> tuple[ReplicaIndex, ...]:
        """Return for each instance whose key it has."""
        return (*range(self.members), *range(self.twins))

    def is_twin(self, instance: int) -> bool:
        """Say whether an instance shares its key with another."""
        return instance < self.twins or instance >= self.members


# --- All scenarios of one size --------------------------------------------------------------------------------------


class _Branches(NamedTuple):
    """What may stand next in a canonical scenario."""

    choices: list[int]
    """Numbers of views, ascending: the smallest of each orbit under the permutations that are left."""
    totals: list[int]
    """How many scenarios begin with a choice up to each of these."""
    left: list[tuple[int, ...]]
    """The permutations that keep each choice."""


class ScenarioSpace:
    """All scenarios with so many views, one of each class under permutations of the honest members.

    A view is one of the partitions of the instances into at most two blocks, times a leader, times what may be
    lost (where `aimed`, everywhere or at one instance), times which instance may restart. Under the permutations
    that keep all earlier views, a canonical scenario has in each place the smallest view of an orbit; Burnside's
    lemma counts what can follow. So the scenario of a number is found place by place, as a word in a dictionary.
    """

    def __init__(
        self,
        members: int,
        twins: int,
        views: int,
        *,
        losses: tuple[str, ...] = ("",),
        aimed: bool = False,
        restarts: bool = False,
    ) -> None:
        if members - twins > MOST_HONEST:
            raise ValueError(f"scenarios are not numbered for more than {MOST_HONEST} honest members")
        if views < 1 or not losses:
            raise ValueError("a scenario has at least one view, and there is something to choose from")
        self.members = members
        self.twins = twins
        self.views = views
        instances = members + twins
        blocks = list(product((0, 1), repeat=instances - 1))
        anybody = (None, *range(instances))
        lost = [(kind, at) for kind in losses for at in (anybody if kind and aimed else (None,))]
        restarted = anybody if restarts else (None,)
        self._choices = [
            View(leader, (0, *rest), kind, at, restart)
            for rest, leader, (kind, at), restart in product(blocks, range(members), lost, restarted)
        ]
        Scenario(members, twins, tuple(self._choices))  # refuses what makes no sense
        self._images = self._permuted()
        self._fixed = [sum(image == number for number, image in enumerate(images)) for images in self._images]
        self._known: dict[tuple[tuple[int, ...], int], _Branches] = {}
        self._all = tuple(range(len(self._images)))
        self.size = self._count(self._all, views)
        """How many scenarios there are."""

    def _permuted(self) -> list[list[int]]:
        """For each permutation of the honest members, the number of the view that it makes of each view."""
        numbers = {view: number for number, view in enumerate(self._choices)}
        tables = []
        for moved in permutations(range(self.twins, self.members)):
            to = (*range(self.twins), *moved, *range(self.members, self.members + self.twins))
            tables.append([numbers[_renamed(view, to)] for view in self._choices])
        return tables

    def _count(self, group: tuple[int, ...], views: int) -> int:
        """Count the orbits of sequences of views under a group of permutations: Burnside's lemma."""
        fixed: int = sum(self._fixed[one] ** views for one in group)
        return fixed // len(group)

    def _branches(self, group: tuple[int, ...], views: int) -> _Branches:
        known = self._known.get((group, views))
        if known is None:
            choices, counts, left = [], [], []
            for number in range(len(self._choices)):
                images = [self._images[one][number] for one in group]
                if min(images) == number:
                    kept = tuple(one for one, image in zip(group, images, strict=True) if image == number)
                    choices.append(number)
                    counts.append(self._count(kept, views - 1))
                    left.append(kept)
            known = self._known[(group, views)] = _Branches(choices, list(accumulate(counts)), left)
        return known

    def scenario(self, index: int) -> Scenario:
        """Return a scenario by its number, from 0; IndexError beyond the last one."""
        if not 0 <= index < self.size:
            raise IndexError(f"there are {self.size} scenarios, and none has the number {index}")
        group, views = self._all, []
        for left in range(self.views, 0, -1):
            branches = self._branches(group, left)
            place = bisect_right(branches.totals, index)
            index -= branches.totals[place - 1] if place else 0
            views.append(self._choices[branches.choices[place]])
            group = branches.left[place]
        return Scenario(self.members, self.twins, tuple(views))

    def shuffled(self, index: int, seed: int) -> int:
        """Return which scenario comes at a place of a shuffled order; each seed is another order of all of them."""
        half = max(1, ((self.size - 1).bit_length() + 1) // 2)
        mask = (1 << half) - 1
        while True:  # a Feistel network permutes a power of four; whoever leaves the range walks on until back
            left, right = index >> half, index & mask
            for turn in range(_SHUFFLE_ROUNDS):
                drawn = blake2b(b"%d %d %d" % (seed, turn, right), digest_size=16).digest()
                left, right = right, left ^ (int.from_bytes(drawn, "big") & mask)
            index = left << half | right
            if index < self.size:
                return index


def _renamed(view: View, to: tuple[int, ...]) -> View:
    """Give instances other names; `to` maps instances, and members as the first of them."""
    blocks = [0] * len(to)
    for instance, block in enumerate(view.blocks):
        blocks[to[instance]] = block
    at, restart = (None if one is None else to[one] for one in (view.at, view.restart))
    return View(to[view.leader], tuple(block ^ blocks[0] for block in blocks), view.lost, at, restart)


# --- As text --------------------------------------------------------------------------------------------------------


def instance_name(scenario: Scenario, instance: int) -> str:
    """Return the name of an instance: that of its member, with a stroke for the second one."""
    return f"n{instance}" if instance < scenario.members else f"n{instance - scenario.members}'"


def scenario_text(scenario: Scenario) -> str:
    """Write a scenario down, one line for each view; `parse_scenario` reads it."""
    lines = [f"members {scenario.members}", f"twins {scenario.twins}"]
    for view in scenario.views:
        parts = []
        for block in sorted(set(view.blocks)):
            names = [instance_name(scenario, one) for one, place in enumerate(view.blocks) if place == block]
            parts.append(" ".join(names))
        line = f"leader n{view.leader}, blocks {' | '.join(parts)}"
        if view.lost:
            line += f", lost {view.lost}"
        if view.at is not None:
            line += f" at {instance_name(scenario, view.at)}"
        if view.restart is not None:
            line += f", restart {instance_name(scenario, view.restart)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def parse_scenario(text: str) -> Scenario:
    """Read what `scenario_text` writes; lines that begin with a number sign are comments. ValueError elsewhere."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    sizes: dict[str, int] = {}
    while lines and lines[0].partition(" ")[0] in ("members", "twins"):
        word, _, number = lines.pop(0).partition(" ")
        sizes[word] = int(number)
    if set(sizes) != {"members", "twins"}:
        raise ValueError("a scenario begins with its members and its twins")
    empty = Scenario(sizes["members"], sizes["twins"], ())
    places = {instance_name(empty, instance): instance for instance in range(empty.instances)}
    return msgspec.structs.replace(empty, views=tuple(_parse_view(line, places) for line in lines))


def _parse_view(line: str, places: dict[str, int]) -> View:
    words: dict[str, str] = {}
    for part in line.split(", "):
        word, _, rest = part.partition(" ")
        if word not in ("leader", "blocks", "lost", "restart") or word in words:
            raise ValueError(f"{line!r} is not 'leader n0, blocks n0 n1 | n2 ...[, lost KIND [at n1]][, restart n2]'")
        words[word] = rest
    if not {"leader", "blocks"} <= set(words):
        raise ValueError(f"{line!r} names no leader or no blocks")
    blocks: dict[int, int] = {}
    for number, names in enumerate(words["blocks"].split("|")):
        for name in names.split():
            if blocks.setdefault(_place(name, places), number) != number:
                raise ValueError(f"{line!r} puts {name} in two blocks")
    if len(blocks) != len(places):
        raise ValueError(f"{line!r} does not say where everybody is")
    ordered = tuple(blocks[instance] for instance in range(len(places)))
    lost, _, where = words.get("lost", "").partition(" at ")
    at = _place(where, places) if where else None
    restart = _place(words["restart"], places) if "restart" in words else None
    return View(_place(words["leader"], places), ordered, lost, at, restart)


def _place(name: str, places: dict[str, int]) -> int:
    if name not in places:
        raise ValueError(f"nobody is called {name!r}: there are {', '.join(places)}")
    return places[name]
