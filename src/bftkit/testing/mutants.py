"""Deliberately broken variants of the code, and the hunts that must find each of them.

A proving ground that finds nothing may be blind. A *mutant* replaces one named function, method or constant while it
runs; nothing in the product knows of it. Mutants are listed by the entry-point group `bftkit.mutants`: the library's
own, and those of each engine in its `mutants` module or package, which nothing else imports.

To add one, write a function that takes what is there and returns what stands there instead, and list a `Mutant` with
the hunts that must find it. `Schedules` come first: what only a `Check` finds, the simulator cannot see.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import msgspec

from bftkit.core.outputs import SetTimer
from bftkit.errors import EngineError
from bftkit.plugins import ENTRY_POINT_GROUP as ENGINES
from bftkit.testing.conformance import conformance_cases
from bftkit.testing.conformance.case import Trial
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import run_schedule
from bftkit.testing.specs import Settings, forget_engines
from bftkit.testing.twins import TwinsPlan, twins_cases
from bftkit.testing.twins_play import run_twins_case
from bftkit.testing.twins_scenarios import parse_scenario

ENTRY_POINT_GROUP = "bftkit.mutants"
"""Entry-point group that lists tuples of mutants by package."""

ENOUGH_S = 60.0
"""A mutant that is not found within so long counts as a survivor."""


_BARE = re.compile(r"\b(?:AttributeError|NameError|TypeError|UnboundLocalError)\b|\bzip\(\) argument")
"""What Python says of code that does not fit together, in place of a rule that was broken."""


class Schedules(msgspec.Struct, frozen=True):
    """A hunt through the simulator: schedules from consecutive seeds."""

    engine: str = "pbft"
    replicas: int = 4
    profile: str | Profile = "all"
    first: int = 0
    count: int = 200
    settings: Settings = ()
    """Options of the engine that do not have their defaults."""
    liar: str = ""
    """Behaviour of one member, if any: its index goes round with the seeds."""
    speak: Callable[[int, Any], list[tuple[int, Any]]] | None = None
    """What that member makes of its messages instead, where no behaviour of the library does it."""

    def describe(self) -> str:
        """Say where it looks."""
        name = self.profile if isinstance(self.profile, str) else "chosen faults"
        return f"{self.engine}, {self.replicas} members, {name}" + (f", one {self.liar}" if self.liar else "")

    def run(self, until: float) -> str | None:
        """Return the first violation with its seed, or None when seeds or time run out."""
        for seed in range(self.first, self.first + self.count):
            how = self.speak or self.liar
            outcome = run_schedule(
                seed,
                engine=self.engine,
                replicas=self.replicas,
                profile=self.profile,
                settings=self.settings,
                liars={seed % self.replicas: how} if how else {},
            )
            if outcome.violations:
                return f"seed {seed}: {outcome.violations[0]}"
            if time.monotonic() > until:
                break
        return None


class Scenarios(msgspec.Struct, frozen=True):
    """A hunt with twins: one member is two instances of honest code under one key."""

    engine: str = "pbft"
    losses: tuple[str, ...] = ("",)
    """What views may lose; see `TwinsPlan`."""
    aimed: bool = False
    """Whether they may lose it at one instance only."""
    seed: int = 1
    """Shuffles the scenarios."""
    count: int = 200
    views: int = 3
    options: Any = None
    """Instance of the engine's options type; None for its defaults."""

    def describe(self) -> str:
        """Say where it looks."""
        return f"{self.engine}, twins"

    def run(self, until: float) -> str | None:
        """Return what is wrong in the first scenario that shows it, or None when scenarios or time run out."""
        plan = TwinsPlan(
            self.engine,
            views=self.views,
            losses=self.losses,
            aimed=self.aimed,
            seed=self.seed,
            options=self.options,
        )
        for index, case in twins_cases(plan, range(self.count)):
            if case.problem is not None:
                return f"scenario {index}: {case.problem}"
            if time.monotonic() > until:
                break
        return None


class Promise(msgspec.Struct, frozen=True):
    """A hunt with the conformance kit: a group of bare engines, held to one promise of the contract."""

    engine: str
    promise: str
    """The name of the property that is tried, see `bftkit.testing.conformance`."""
    members: int = 3
    first: int = 1
    count: int = 40
    story: Callable[[int], list[str]] | None = None
    """Makes the lines of the scenario that is played, for a seed, in place of the promise's own plan."""
    most_view: int | None = None
    """The highest view that anybody may have reached in the end, where a story says it."""

    def describe(self) -> str:
        """Say where it looks."""
        told = (self.story.__doc__ or "").partition("\n")[0].rstrip(".") if self.story is not None else ""
        return f"{self.engine}, promise `{self.promise}`, {self.members} members" + (f": {told}" if told else "")

    def run(self, until: float) -> str | None:
        """Return how the promise is broken in the first case that shows it, or None when seeds or time run out."""
        seeds = range(self.first, self.first + self.count)
        for case in conformance_cases(self.engine, properties=[self.promise], members=[self.members], seeds=seeds):
            trial = Trial(case.property, case.spec, case.members, case.seed)
            if self.story is not None:
                trial = trial.again(self.story(case.seed))
            problem = trial.problem() or self._highest_view(trial)
            if problem is not None:
                return f"seed {case.seed}: {problem}"
            if time.monotonic() > until:
                break
        return None

    def _highest_view(self, trial: Trial) -> str | None:
        if self.most_view is None or trial.group is None:
            return None
        view = max(one.engine.view for one in trial.group.instances)
        return (
            f"view {view} was reached, and there was no reason to leave {self.most_view}"
            if view > self.most_view
            else None
        )


class Played(msgspec.Struct, frozen=True):
    """A hunt in one scenario with twins that somebody has written down."""

    scenario: str
    """As `bftkit.testing.twins_scenarios` writes it."""
    engine: str = "pbft"
    options: Any = None
    """Instance of the engine's options type; None for its defaults."""

    def describe(self) -> str:
        """Say where it looks."""
        return f"{self.engine}, one scenario with twins"

    def run(self, until: float) -> str | None:
        """Return what is wrong, or None."""
        return run_twins_case(self.engine, parse_scenario(self.scenario), options=self.options).problem


class Check(msgspec.Struct, frozen=True):
    """A hunt by one direct look: for rules that no run of honest code ever puts to the test."""

    look: Callable[[], str | None]
    """Returns what is wrong, or None."""

    def describe(self) -> str:
        """Say what is looked at."""
        return (self.look.__doc__ or self.look.__name__).partition("\n")[0].rstrip(".")

    def run(self, until: float) -> str | None:
        """Return what is wrong, or None."""
        return self.look()


class Mutant(msgspec.Struct, frozen=True):
    """One broken variant."""

    name: str
    breaks: str
    """The rule that it breaks, with its source, in a sentence."""
    target: str
    """What is replaced: "package.module:name" or "package.module:Class.name"."""
    make: Callable[[Any], Any]
    """Takes what is there, returns what stands there instead."""
    hunts: tuple[Schedules | Scenarios | Played | Promise | Check, ...]
    """Where it is looked for, in this order."""


class MutantResult(msgspec.Struct, frozen=True):
    """What came of one mutant."""

    name: str
    caught: bool
    """Whether a rule was seen to be broken, in time."""
    seconds: float
    by: str = ""
    """The hunt that found it."""
    finding: str = ""
    stale: bool = False
    """Whether the finding is Python's alone: the replacement does not fit the code any more, and shows nothing."""


def load_mutants() -> dict[str, Mutant]:
    """Return every installed mutant by name; EngineError where a package lists something else."""
    found: dict[str, Mutant] = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: each.name):
        listed = point.load()
        if not all(isinstance(mutant, Mutant) for mutant in listed):
            raise EngineError(f"{point.value} lists something that is no mutant")
        for mutant in listed:
            if mutant.name in found:
                raise EngineError(f"two mutants are called {mutant.name!r}")
            found[mutant.name] = mutant
    return found


# --- Replacing ------------------------------------------------------------------------------------------------------


def target_of(mutant: Mutant) -> tuple[Any, str, Any]:
    """Return who owns what a mutant replaces, under which name, and what is there; EngineError where it is gone."""
    module, _, path = mutant.target.partition(":")
    owner: Any = import_module(module)
    *parts, name = path.split(".")
    try:
        for part in parts:
            owner = getattr(owner, part)
        # The raw entry, so that class methods and properties are put back as what they were.
        return owner, name, vars(owner)[name]
    except (AttributeError, KeyError) as error:
        raise EngineError(f"mutant {mutant.name!r} replaces {mutant.target}, which does not exist") from error


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Replace what a mutant replaces, wherever it was imported to, and put everything back in the end."""
    owner, name, original = target_of(mutant)
    replacement = mutant.make(original)
    undo: list[Callable[[], None]] = []
    try:
        _set(owner, name, replacement, undo)
        if not isinstance(owner, type):
            _replace_everywhere(name, original, replacement, undo)
        forget_engines()
        yield
    finally:
        for step in reversed(undo):
            step()
        if not isinstance(owner, type):
            # A module that was imported meanwhile has got the replacement, and is to keep the original.
            _replace_everywhere(name, replacement, original, [])
        forget_engines()


def _set(owner: Any, name: str, value: Any, undo: list[Callable[[], None]]) -> None:
    before = vars(owner)[name]
    undo.append(lambda: setattr(owner, name, before))
    setattr(owner, name, value)


def _replace_everywhere(name: str, original: Any, replacement: Any, undo: list[Callable[[], None]]) -> None:
    """Replace it in all modules of the library, of every engine, and of whoever lists mutants."""
    points = [point for group in (ENGINES, ENTRY_POINT_GROUP) for point in entry_points(group=group)]
    packages = {"bftkit", *(point.module.partition(".")[0] for point in points)}
    for key, module in sorted(sys.modules.items()):
        if key.partition(".")[0] in packages:
            _replace_in(module, name, original, replacement, undo)


def _replace_in(module: Any, name: str, original: Any, replacement: Any, undo: list[Callable[[], None]]) -> None:
    """Replace a function that a module has by name, in a table, or in a field of a specification.

    A constant is replaced under its own name only: equal numbers are one object.
    """
    movable = callable(original)
    for key, value in list(vars(module).items()):
        if value is original and (movable or key == name):
            _set(module, key, replacement, undo)
        elif not movable:
            continue
        elif isinstance(value, dict) and any(entry is original for entry in value.values()):
            before = dict(value)
            undo.append(lambda table=value, before=before: table.update(before))  # type: ignore[misc]
            value.update({each: replacement for each, entry in before.items() if entry is original})
        elif isinstance(value, msgspec.Struct):
            fields = [field for field in value.__struct_fields__ if getattr(value, field, None) is original]
            if fields:
                _set(module, key, msgspec.structs.replace(value, **dict.fromkeys(fields, replacement)), undo)


def doing_nothing(original: Any) -> Any:
    """Make a function or method that does nothing and returns None, whatever it is given."""
    return lambda *arguments, **options: None


def agreeing_at_once(original: Any) -> Any:
    """Make a method that counts an answer of a replica, and takes it for enough."""

    def agreed(self: Any, question: Any, replica: int, payload: Any) -> bool:
        original(self, question, replica, payload)
        return True

    return agreed


def starting_unarmed(*timers: str) -> Callable[[Any], Any]:
    """Make an engine's `start` that sets no timer, and takes these for running."""

    def make(original: Any) -> Any:
        def start(self: Any, now: int) -> Any:
            out = [output for output in original(self, now) if not isinstance(output, SetTimer)]
            self.state.armed = dict.fromkeys(timers, now)
            return out

        return start

    return make


def never_setting(name: str) -> Callable[[Any], Any]:
    """Make an engine's function that sets timers, `set_timer(state, out, timer, ...)`, and forgets one of them."""

    def make(original: Any) -> Any:
        def set_timer(state: Any, out: list[Any], timer: str, *delays: int) -> None:
            if timer != name:
                original(state, out, timer, *delays)

        return set_timer

    return make


# --- Hunting --------------------------------------------------------------------------------------------------------


def hunt(mutant: Mutant, *, enough_s: float = ENOUGH_S) -> MutantResult:
    """Look for one mutant until it is found or its time is over. What does not fit the code is not taken for found."""
    started = time.monotonic()
    with applied(mutant):
        for each in mutant.hunts:
            finding = each.run(started + enough_s)
            if finding is not None:
                in_time, stale = _since(started) <= enough_s, _BARE.search(finding) is not None
                caught = in_time and not stale
                return MutantResult(mutant.name, caught, _since(started), each.describe(), finding, stale)
            if time.monotonic() > started + enough_s:
                break
    return MutantResult(mutant.name, False, _since(started))


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)


def hunt_by_name(name: str) -> MutantResult:
    """Look for the mutant of a name: what worker processes are given."""
    return hunt(load_mutants()[name])


def run_mutants(
    names: Sequence[str] | None = None,
    *,
    executor: Executor | None = None,
    progress: Callable[[MutantResult], None] = lambda result: None,
) -> list[MutantResult]:
    """Hunt for mutants, all of them by default, and return what came of each, in the order of the catalogue.

    KeyError for a name that nobody lists. `executor` may be any of `concurrent.futures`, of processes rather than of
    threads: a mutant is there for its whole process.
    """
    known = load_mutants()
    chosen = list(known) if names is None else list(names)
    for name in chosen:
        known[name]
    found: list[MutantResult] = []
    for result in map(hunt_by_name, chosen) if executor is None else executor.map(hunt_by_name, chosen):
        progress(result)
        found.append(result)
    return found
