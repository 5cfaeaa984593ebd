"""The Twins method: faulty members as two instances of honest code under one key, through all small scenarios.

Bano et al., "Twins: BFT Systems Made Robust", OPODIS 2021. Twins equivocate, vote twice and forget by themselves:
nothing of an attack has to be thought of. `twins_scenarios` numbers the scenarios, `twins_play` plays one of them;
here are many at once, in this process or in others.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.plugins import load_engine
from bftkit.testing.campaign import CampaignError
from bftkit.testing.engine_group import EngineGroup
from bftkit.testing.group_settings import GroupSettings
from bftkit.testing.twins_play import TwinsCase, TwinsTiming, run_twins_case
from bftkit.testing.twins_scenarios import ScenarioSpace, scenario_text

CHUNK = 64
"""Scenarios that one task of an executor plays."""

AT_ONCE = 32
"""Tasks that an executor is given before the first of them is done."""


class TwinsPlan(msgspec.Struct, frozen=True):
    """Which scenarios are played on what; all that another process has to know."""

    engine: str | EngineSpec
    """Its name, or the engine itself where it is not installed."""
    members: int = 4
    twins: int = 1
    views: int = 3
    losses: tuple[str, ...] = ("",)
    """What views may lose, of `twins_scenarios.LOSSES`."""
    aimed: bool = False
    """Whether they may lose it at one instance only."""
    restarts: bool = False
    """Whether an instance may restart in each view."""
    seed: int | None = None
    """Shuffle the scenarios by it; None for lexicographic order."""
    options: Any = None
    """Instance of the engine's `options_type`; None for its defaults."""
    timing: TwinsTiming = TwinsTiming()

    def space(self) -> ScenarioSpace:
        """Return all scenarios of the plan; ValueError where there cannot be any."""
        return _space(self.members, self.twins, self.views, self.losses, self.aimed, self.restarts)

    def spec(self) -> EngineSpec:
        """Return the engine; EngineError where it is not installed."""
        return load_engine(self.engine) if isinstance(self.engine, str) else self.engine

    def problem(self) -> str | None:
        """Say why there is nothing to play, or None; EngineError where the engine is not installed."""
        spec = self.spec()
        if self.members < spec.min_members:
            return f"{spec.name} takes {spec.min_members} members at least, not {self.members}"
        try:
            self.space()
            EngineGroup(spec, self.members, settings=GroupSettings(options=self.options)).start()
        except ValueError as error:
            return str(error)
        return None


@lru_cache(maxsize=4)
def _space(members: int, twins: int, views: int, losses: tuple[str, ...], aimed: bool, restarts: bool) -> ScenarioSpace:
    return ScenarioSpace(members, twins, views, losses=losses, aimed=aimed, restarts=restarts)


class TwinsViolation(msgspec.Struct, frozen=True):
    """A scenario that shows a mistake."""

    index: int
    """Its number in the space of scenarios."""
    problem: str
    scenario: str
    """As text; `parse_scenario` reads it."""


class TwinsResult(msgspec.Struct, frozen=True):
    """What came of a number of scenarios."""

    scenarios: int = 0
    violations: tuple[TwinsViolation, ...] = ()
    """In the order in which the scenarios were played."""
    events: int = 0
    """Inputs that engines took."""
    commits: int = 0
    """Positions that honest instances decided, each counted once for a scenario."""
    views: int = 0
    """Views of scenarios that were reached."""

    def __add__(self, other: "TwinsResult") -> "TwinsResult":
        """Return what came of both."""
        return TwinsResult(
            self.scenarios + other.scenarios,
            self.violations + other.violations,
            self.events + other.events,
            self.commits + other.commits,
            self.views + other.views,
        )


Progress = Callable[[TwinsResult, int], None]
"""Told now and then what came of the scenarios so far, and how many there are in all."""


def twins_cases(plan: TwinsPlan, places: range) -> Iterator[tuple[int, TwinsCase]]:
    """Play scenarios one by one; each with its number, which in a shuffled order is not its place."""
    space, spec = plan.space(), plan.spec()
    for place in places:
        index = place if plan.seed is None else space.shuffled(place, plan.seed)
        yield index, run_twins_case(spec, space.scenario(index), options=plan.options, timing=plan.timing)


def run_slice(plan: TwinsPlan, places: range) -> TwinsResult:
    """Play scenarios in this process: what a task of an executor does."""
    result = TwinsResult()
    for index, case in twins_cases(plan, places):
        found: tuple[TwinsViolation, ...] = ()
        if case.problem is not None:
            found = (TwinsViolation(index, case.problem, scenario_text(plan.space().scenario(index))),)
        result += TwinsResult(1, found, case.events, case.commits, case.views)
    return result


def run_twins(
    plan: TwinsPlan,
    places: range | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> TwinsResult:
    """Play all scenarios of a plan, or those at some places of its order; the result does not depend on the executor.

    Without an executor everything happens in this process. What was played is settled place by place, so that a
    search can go on where another one ended. IndexError for places beyond the last one, CampaignError where a worker
    dies.
    """
    size = plan.space().size
    chosen = range(size) if places is None else places
    if chosen and not 0 <= min(chosen[0], chosen[-1]) <= max(chosen[0], chosen[-1]) < size:
        raise IndexError(f"there are {size} scenarios: their places are 0 to {size - 1}")
    total, result = len(chosen), TwinsResult()
    slices = (chosen[begin : begin + CHUNK] for begin in range(0, total, CHUNK))
    for part in _in_turn(plan, slices, executor):
        result += part
        if progress is not None:
            progress(result, total)
    return result


def _in_turn(plan: TwinsPlan, slices: Iterator[range], executor: Executor | None) -> Iterator[TwinsResult]:
    """Yield the results of slices in their order, however many are played at once."""
    if executor is None:
        yield from (run_slice(plan, one) for one in slices)
        return
    running: deque[tuple[range, Future[TwinsResult]]] = deque()
    places = range(0)
    try:
        running.extend((one, executor.submit(run_slice, plan, one)) for one in islice(slices, AT_ONCE))
        while running:
            places, future = running.popleft()
            part = future.result()
            running.extend((one, executor.submit(run_slice, plan, one)) for one in islice(slices, 1))
            yield part
    except BrokenExecutor as error:
        raise CampaignError(f"a worker died; the first place that it owes is {places.start}") from error
    finally:
        for _, future in running:
            future.cancel()
