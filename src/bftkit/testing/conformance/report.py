"""All promises, the cases that try them, and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.quorum import Quorum
from bftkit.errors import ConfigurationError
from bftkit.plugins import load_engine
from bftkit.testing.conformance import (
    bounds,
    declarations,
    determinism,
    faults,
    inputs,
    liveness,
    messages,
    order,
    proofs,
    records,
    totality,
)
from bftkit.testing.conformance.case import BOUND_MS, Case, Failure, NotConforming, Property, Settings
from bftkit.testing.engine_group import EngineGroup

LARGEST_GROUP = 7
"""Members of the largest group that is tried."""

PROPERTIES: tuple[Property, ...] = (
    *declarations.PROPERTIES,
    *messages.PROPERTIES,
    *determinism.PROPERTIES,
    *totality.PROPERTIES,
    *order.PROPERTIES,
    *bounds.PROPERTIES,
    *liveness.PROPERTIES,
    *records.PROPERTIES,
    *proofs.PROPERTIES,
    *inputs.PROPERTIES,
    *faults.PROPERTIES,
)
"""Every promise that is tried, in the order in which it is."""


class PropertyResult(msgspec.Struct, frozen=True):
    """What came of all cases of one promise."""

    name: str
    group: str
    promise: str
    cases: int
    """How many were tried; after the first failure no more are."""
    failure: Failure | None = None


class ConformanceReport(msgspec.Struct, frozen=True):
    """What came of all cases of one engine."""

    engine: str
    fault_model: str
    results: tuple[PropertyResult, ...]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Return what was found, one failure at most for each promise."""
        return tuple(result.failure for result in self.results if result.failure is not None)


def sizes_of(spec: EngineSpec) -> tuple[int, ...]:
    """Return the group sizes that an engine can be tried with: those that it lets itself be built for.

    ConfigurationError where it cannot be built for as few members as it says.
    """
    refusal = _refusal(spec, spec.min_members)
    if refusal is not None:
        raise ConfigurationError(f"{spec.name} cannot be built for {spec.min_members} members: {refusal}")
    sizes = range(spec.min_members, max(LARGEST_GROUP, spec.min_members) + 1)
    return tuple(members for members in sizes if _refusal(spec, members) is None)


def _refusal(spec: EngineSpec, members: int) -> str | None:
    """Say why an engine will not be built for so many members, or None: ValueError is how it may refuse."""
    try:
        EngineGroup(spec, members).start()
    except ValueError as error:
        return str(error)
    return None


def conformance_cases(
    engine: str | EngineSpec,
    *,
    properties: Iterable[str] | None = None,
    members: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    bound_ms: int = BOUND_MS,
    interpreters: Iterable[str] = (),
) -> list[Case]:
    """List the cases of an engine, to run one by one: parameters for pytest, say.

    `members` and `seeds` replace what each promise would be tried with. `interpreters` are paths of others of Python,
    each with what bftkit and the engine need installed, under which runs must be the same as under this one.
    ConfigurationError for a name that no promise has, a number of members that the engine does not take, or an
    interpreter that is not there.
    """
    spec = load_engine(engine) if isinstance(engine, str) else engine
    settings = Settings(bound_ms, tuple(interpreters))
    for interpreter in settings.interpreters:
        if shutil.which(interpreter) is None:
            raise ConfigurationError(f"there is no interpreter {interpreter}")
    chosen = _chosen(properties)
    possible = sizes_of(spec)
    given = None if seeds is None else tuple(seeds)
    sizes = possible if members is None else tuple(members)
    for size in sizes:
        if size not in possible:
            raise ConfigurationError(f"{spec.name} is tried with {', '.join(map(str, possible))} members, not {size}")
    return [
        Case(spec, each, size, seed, settings)
        for each in chosen
        if spec.fault_model in each.models
        for size in (sizes[:1] if each.once else sizes)
        if Quorum.of(spec.fault_model, size).faults or not each.needs_faults
        for seed in (range(1, 2 if each.once else each.seeds + 1) if given is None else given)
    ]


def _chosen(names: Iterable[str] | None) -> Sequence[Property]:
    if names is None:
        return PROPERTIES
    known = {each.name: each for each in PROPERTIES}
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise ConfigurationError(f"no promise is called {name!r}: there are {', '.join(known)}")
    return [known[name] for name in wanted]


def run_cases(
    cases: Iterable[Case], progress: Callable[[Case], None] = lambda case: None
) -> tuple[PropertyResult, ...]:
    """Run cases, up to the first failure of each promise; `progress` is told of each case that begins."""
    results: dict[str, PropertyResult] = {}
    for case in cases:
        what = case.property
        so_far = results.get(what.name, PropertyResult(what.name, what.group, what.promise, 0))
        if so_far.failure is None:
            progress(case)
            failure = case.failure()
            so_far = msgspec.structs.replace(so_far, cases=so_far.cases + 1, failure=failure)
        results[what.name] = so_far
    return tuple(results.values())


def check_engine(
    engine: str | EngineSpec,
    *,
    properties: Iterable[str] | None = None,
    members: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    bound_ms: int = BOUND_MS,
    interpreters: Iterable[str] = (),
) -> ConformanceReport:
    """Try every promise of the contract on an engine; NotConforming where it breaks some, all of them in one."""
    report = examine_engine(
        engine, properties=properties, members=members, seeds=seeds, bound_ms=bound_ms, interpreters=interpreters
    )
    if report.failures:
        raise NotConforming(report.failures)
    return report


def examine_engine(
    engine: str | EngineSpec,
    *,
    properties: Iterable[str] | None = None,
    members: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    bound_ms: int = BOUND_MS,
    interpreters: Iterable[str] = (),
    progress: Callable[[Case], None] = lambda case: None,
) -> ConformanceReport:
    """Try every promise of the contract on an engine, and return what came of it."""
    spec = load_engine(engine) if isinstance(engine, str) else engine
    cases = conformance_cases(
        spec, properties=properties, members=members, seeds=seeds, bound_ms=bound_ms, interpreters=interpreters
    )
    return ConformanceReport(spec.name, str(spec.fault_model), run_cases(cases, progress))
