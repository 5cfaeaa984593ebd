"""One promise of engines, one try to break it, and what is reported of a promise that was broken."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.plugins import installed_engines
from bftkit.testing.checkers import Violation
from bftkit.testing.conformance.lies import LIES
from bftkit.testing.engine_group import EngineGroup
from bftkit.testing.group_settings import GroupSettings
from bftkit.testing.scenario import BEGIN_OF_TRACE, Scenario, ScenarioError
from bftkit.testing.shrink import minimal, rule_of

BOUND_MS = 60_000
"""How long a healed group may take to decide everything, where nobody says otherwise."""

_LONGEST_PROBLEM = 2_000
_LONG_BYTES = re.compile(r"""b(['"])((?:\\x..|[^'"\\]){4})(?:\\.|[^'"\\]){12,}\1""")

_TRACE_LINES = 60
"""How much of a trace is shown: its end."""

BOTH = (FaultModel.CRASH, FaultModel.BYZANTINE)


class Property(msgspec.Struct, frozen=True):
    """One promise, and how to try to break it."""

    name: str
    group: str
    """What it belongs to: the name of the module that it stands in."""
    promise: str
    """What every engine promises, in a sentence."""
    check: Callable[[Trial], None]
    """Raise `Violation` where the promise is broken. Whatever else it raises is held against the engine too."""
    plan: Callable[[Trial], list[str]] = lambda trial: []
    """Draw the scenario that `check` plays, line by line; lines may be left out of it, all but the first."""
    models: tuple[FaultModel, ...] = BOTH
    """Fault models that make the promise."""
    needs_faults: bool = False
    """Whether at least one member must be allowed to fail."""
    once: bool = False
    """Whether one case is enough: the smallest group, one seed."""
    seeds: int = 3
    """How many seeds each size of a group is tried with, where nobody says otherwise."""
    most_runs: int = 200
    """How many runs making a failure small may take."""


class Settings(msgspec.Struct, frozen=True):
    """What all tries have in common."""

    bound_ms: int = BOUND_MS
    """How long a healed group may take to decide everything."""
    interpreters: tuple[str, ...] = ()
    """Other interpreters of Python, under which a run must be the same."""


USUAL = Settings()
"""Settings where nobody says otherwise."""


class Trial:
    """One try: an engine, a number of members, a seed, and the lines of a scenario."""

    def __init__(self, tried: Property, spec: EngineSpec, members: int, seed: int, settings: Settings = USUAL) -> None:
        self.property = tried
        self.spec = spec
        self.members = members
        self.seed = seed
        self.settings = settings
        self.bound_ms = settings.bound_ms
        self.interpreters = settings.interpreters
        self.quorum = Quorum.of(spec.fault_model, members)
        self.random = Random(f"{tried.name}/{members}/{seed}")
        """Chance, for the property."""
        self.traced = False
        self.steps = 0
        """Inputs that engines have taken."""
        self.group: EngineGroup | None = None
        """The group that was played with last."""
        self.lines: Sequence[str] = tuple(tried.plan(self))

    def again(self, lines: Sequence[str], *, traced: bool = False) -> Trial:
        """Return the same try with other lines."""
        trial = Trial(self.property, self.spec, self.members, self.seed, self.settings)
        trial.lines, trial.traced = tuple(lines), traced
        return trial

    def play(self, watch: Callable[[EngineGroup], None] = lambda group: None, *, begin_ms: int = 0) -> EngineGroup:
        """Play the scenario; `watch` may set hooks before the group starts."""

        def prepare(group: EngineGroup) -> None:
            self.group = group
            watch(group)

        settings = GroupSettings(thorough=True, invariants=True, traced=self.traced, begin_ms=begin_ms)
        scenario = Scenario(self.spec, LIES, settings=settings, prepare=prepare)
        for line in self.lines:
            scenario.carry_out(line)
        self.steps += scenario.group.steps
        return scenario.group

    def problem(self) -> str | None:
        """Try; return how the promise was broken, or None."""
        try:
            self.property.check(self)
        except Violation as violation:
            return str(violation)
        except ScenarioError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno} of {where.filename})"
        return None


class Failure(msgspec.Struct, frozen=True):
    """A promise that was broken, and everything that it takes to see it again."""

    engine: str
    property: str
    promise: str
    members: int
    seed: int
    problem: str
    scenario: str
    """The smallest scenario that was found to show it, with the end of its trace; empty where none is needed."""
    again: tuple[str, ...]
    """What replays it: a command where the engine is installed, and a call."""

    def __str__(self) -> str:
        parts = [
            f"{self.engine} breaks the promise {self.property!r} with {self.members} members, seed {self.seed}.",
            f"Promised: {self.promise}",
            f"Found: {self.problem}",
        ]
        if self.scenario:
            parts.append(f"The smallest case that shows it:\n\n{self.scenario}")
        return "\n".join([*parts, *(f"Again: {way}" for way in self.again)])


class NotConforming(Violation):
    """An engine breaks a promise."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("\n\n".join(map(str, failures)))
        self.failures = tuple(failures)
        """What was found, one for each promise."""


class Case(msgspec.Struct, frozen=True):
    """One try of one property, ready to run; as text it names the property, the members and the seed."""

    spec: EngineSpec
    property: Property
    members: int
    seed: int
    settings: Settings = USUAL

    def __str__(self) -> str:
        return f"{self.property.name}-{self.members}-{self.seed}"

    def run(self) -> None:
        """Try; raise `NotConforming`, with the smallest case that could be found, where the promise is broken."""
        failure = self.failure()
        if failure is not None:
            raise NotConforming([failure])

    def failure(self) -> Failure | None:
        """Try; return what is to be reported, or None where the promise is kept."""
        trial = Trial(self.property, self.spec, self.members, self.seed, self.settings)
        problem = trial.problem()
        return None if problem is None else self._explain(trial, problem)

    def _explain(self, trial: Trial, problem: str) -> Failure:
        smallest = _Shrinking(trial, problem, self.property.most_runs).smallest()
        last = trial.again(smallest, traced=True)
        problem = _shortened(last.problem() or problem)
        trace = last.group.trace if last.group is not None else []
        shown = [*trace] if len(trace) <= _TRACE_LINES else ["  ...", *trace[-_TRACE_LINES:]]
        scenario = "\n".join([*smallest, BEGIN_OF_TRACE, *shown]) + "\n" if smallest else ""
        name, what = self.spec.name, self.property
        return Failure(
            name, what.name, what.promise, self.members, self.seed, problem, scenario, self._ways_to_replay()
        )

    def _ways_to_replay(self) -> tuple[str, ...]:
        name, what = self.spec.name, self.property.name
        command = f"bftkit engine test {name} --property {what} --members {self.members} --seeds {self.seed}"
        call = f"check_engine({name!r}, properties=[{what!r}], members=[{self.members}], seeds=[{self.seed}])"
        if self.settings.bound_ms != BOUND_MS:
            command += f" --bound-ms {self.settings.bound_ms}"
            call = f"{call[:-1]}, bound_ms={self.settings.bound_ms})"
        if self.settings.interpreters:
            command += "".join(f" --python {interpreter}" for interpreter in self.settings.interpreters)
            call = f"{call[:-1]}, interpreters={list(self.settings.interpreters)})"
        return (command, call) if name in installed_engines() else (call.replace(repr(name), "spec", 1),)


def _shortened(problem: str) -> str:
    """Leave most of digests and signatures out of a text."""
    return _LONG_BYTES.sub(r"b\1\2..\1", problem)[:_LONGEST_PROBLEM]


class _Shrinking:
    """Makes the scenario of a failing try small: fewer lines, then smaller numbers in them."""

    def __init__(self, trial: Trial, problem: str, most_runs: int) -> None:
        self._trial = trial
        self._rule = rule_of(problem)
        self._runs_left = most_runs

    def smallest(self) -> list[str]:
        """Return the lines of the smallest scenario that still breaks the same rule."""
        lines = list(self._trial.lines)
        begin = lines[:1]
        rest = minimal(lines[1:], lambda some: self._fails([*begin, *some]), lambda: self._runs_left > 0)
        for place, line in enumerate(rest):
            for smaller in _with_smaller_numbers(line):
                if self._fails([*begin, *rest[:place], smaller, *rest[place + 1 :]]):
                    rest[place] = smaller
                    break
        return [*begin, *rest]

    def _fails(self, lines: Sequence[str]) -> bool:
        if self._runs_left <= 0:
            return False
        self._runs_left -= 1
        found = self._trial.again(lines).problem()
        return found is not None and rule_of(found) == self._rule


def _with_smaller_numbers(line: str) -> Iterator[str]:
    """Yield a command with less time, or with fewer outputs before a crash, the smallest first."""
    found = re.fullmatch(r"(run |crash \w+ after )(\d+)", line)
    if found is not None:
        number = int(found[2])
        for shift in range(number.bit_length(), 0, -1):
            yield f"{found[1]}{number >> shift}"


def expect(condition: Any, problem: str) -> None:
    """Raise a violation where a condition does not hold."""
    if not condition:
        raise Violation(problem)
