"""Making a failing schedule small: fewer members, clients and faults, fewer decisions that are not the default.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", TSE 2002) over the
recorded decisions of a run: parts of them are left out as long as the same rule is broken. What is left is a `Case`,
which is a file, and replays on any machine.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.errors import ConfigurationError
from bftkit.testing.choices import Decisions, Name
from bftkit.testing.journal import Journal
from bftkit.testing.profile import CALM, Profile
from bftkit.testing.simulation import Outcome, finish, size_problem
from bftkit.testing.specs import Settings, named, spec_of
from bftkit.testing.workload import Workload
from bftkit.testing.world import World

T = TypeVar("T")

MOST_RUNS = 600
"""Runs that one shrinking may take."""

_NUMBERS = re.compile(r"[0-9]+|b'[^']*'|0x[0-9a-f]+")
_RULE_CHARACTERS = 48
"""How much of a violation's text says which rule it is about; the rest are particulars."""


class Case(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule that breaks a rule, with everything that it takes to run it again."""

    seed: int
    engine: str
    replicas: int
    profile: Profile
    decisions: list[tuple[Name, int]]
    """Every decision that is not the default, in the order in which they were taken."""
    violation: str = ""
    """What it breaks."""
    settings: Settings = ()
    """Options of the engine that do not have their defaults."""
    spec: EngineSpec | None = None
    """The engine itself, where a program brings its own; a file does not hold it."""
    workload: Workload | None = None
    """What is replicated, where a program brings its own; a file does not hold it."""
    needs: tuple[str, ...] = ()
    """In a file, which of the two it takes besides."""

    @property
    def meant(self) -> str | EngineSpec:
        """Return the engine, by itself or by its name."""
        return self.spec or self.engine

    def data(self) -> "Case":
        """Return what a file can hold of it."""
        own = {"engine": self.spec, "workload": self.workload}
        needs = tuple(name for name, value in own.items() if value is not None)
        return msgspec.structs.replace(self, spec=None, workload=None, needs=needs)

    def write(self, path: str | Path) -> None:
        """Write the case to a file, as JSON, without what a program brings along."""
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(self.data())) + b"\n")

    @classmethod
    def read(cls, path: str | Path, *, engine: EngineSpec | None = None, workload: Workload | None = None) -> "Case":
        """Read a case from a file; `engine` and `workload` are those of its program, where it needs them.

        ConfigurationError where the file holds no case, or needs what is not given.
        """
        try:
            case = msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigurationError(f"{path} holds no case: {error}") from error
        whole = msgspec.structs.replace(case, spec=engine, workload=workload, needs=())
        missing = [name for name in case.needs if name not in whole.data().needs]
        if missing:
            raise ConfigurationError(
                f"{path} is about the {' and the '.join(missing)} of a program, which no file holds: play it there, "
                f"with Case.read({str(path)!r}, {', '.join(f'{name}=...' for name in missing)})"
            )
        return whole

    def world(self, journal: Journal | None = None) -> World:
        """Make the world of this case."""
        return World(
            self.seed,
            self.profile,
            engine=self.meant,
            replicas=self.replicas,
            decisions=dict(self.decisions),
            settings=self.settings,
            workload=self.workload,
            journal=journal,
        )

    def run(self, journal: Journal | None = None) -> Outcome:
        """Run it again; the journal gets everything that happens."""
        return finish(self.world(journal))


class Shrunk(msgspec.Struct, frozen=True):
    """What came of shrinking."""

    case: Case
    runs: int
    """How many schedules it took."""
    decisions_before: int


def record_case(  # which run, of what: all but the seed has a default
    seed: int,
    *,
    engine: str | EngineSpec = "pbft",
    replicas: int = 4,
    profile: str | Profile = "all",
    settings: Settings = (),
    workload: Workload | None = None,
) -> tuple[Case, Outcome]:
    """Run a schedule and write down every decision of it; arguments as for `run_schedule`."""
    world = World(seed, profile, engine=engine, replicas=replicas, record=True, settings=settings, workload=workload)
    outcome = finish(world)
    decisions: Decisions = world.choices.recorded or {}
    violation = outcome.violations[0] if outcome.violations else ""
    name, own = named(engine)
    case = Case(seed, name, replicas, world.drawn, list(decisions.items()), violation, settings, own, workload)
    return case, outcome


def rule_of(violation: str) -> str:
    """Return the rule that a violation is about, without its numbers."""
    return _NUMBERS.sub("#", violation)[:_RULE_CHARACTERS]


def shrink_case(
    case: Case, *, most_runs: int = MOST_RUNS, progress: Callable[[int, int], None] = lambda runs, left: None
) -> Shrunk:
    """Make a failing case as small as the number of runs allows; ConfigurationError where it does not fail.

    `progress` is told how many runs there were, and how many decisions are left.
    """
    attempt = _Attempts(case, most_runs, progress)
    if not attempt.fails(case):
        raise ConfigurationError(f"seed {case.seed} breaks no rule, or not the one that the case names")
    attempt.have_fewer_members()
    attempt.simplify_profile()
    attempt.leave_out_groups()
    attempt.leave_out_decisions()
    attempt.simplify_profile()
    return Shrunk(attempt.best, attempt.runs, len(case.decisions))


class _Attempts:
    """The smallest case found up to now."""

    def __init__(self, case: Case, most_runs: int, progress: Callable[[int, int], None]) -> None:
        self.best = case
        self.runs = 0
        self._rule = rule_of(case.violation)
        self._most_runs = most_runs
        self._progress = progress

    def fails(self, case: Case) -> bool:
        """Run a case; keep it where it breaks the same rule."""
        if self.runs >= self._most_runs:
            return False
        self.runs += 1
        outcome = case.run()
        if not outcome.violations or rule_of(outcome.violations[0]) != self._rule:
            return False
        self.best = msgspec.structs.replace(case, violation=outcome.violations[0])
        self._progress(self.runs, len(self.best.decisions))
        return True

    def have_fewer_members(self) -> None:
        """Do with a smaller group, the smallest first; what its members do is drawn anew, from the same seed."""
        best, spec = self.best, spec_of(self.best.meant)
        for replicas in range(spec.min_members, best.replicas):
            if self.runs >= self._most_runs:
                return
            if size_problem(best.meant, replicas, best.settings) is not None:
                continue
            self.runs += 1
            case, _ = record_case(
                best.seed,
                engine=best.meant,
                replicas=replicas,
                profile=best.profile,
                settings=best.settings,
                workload=best.workload,
            )
            if case.violation and rule_of(case.violation) == self._rule and self.fails(case):
                return

    def simplify_profile(self) -> None:
        """Do with less: fewer clients and requests, less time, nothing that is not needed."""
        for field, smaller in (("clients", 1), ("envelopes", 1), ("envelopes", 4), ("duration_ms", 500)):
            if getattr(self.best.profile, field) > smaller:
                self._try_profile(**{field: smaller})
        for field in Profile.__struct_fields__:
            calm = getattr(CALM, field)
            if (
                field not in ("name", "clients", "envelopes", "duration_ms")
                and getattr(self.best.profile, field) != calm
            ):
                self._try_profile(**{field: calm})

    def _try_profile(self, **changes: object) -> None:
        profile = msgspec.structs.replace(self.best.profile, **changes)
        self.fails(msgspec.structs.replace(self.best, profile=profile))

    def leave_out_groups(self) -> None:
        """Leave out all decisions about one thing at once, the largest groups first."""
        groups: dict[tuple[str, str], int] = {}
        for name, _ in self.best.decisions:
            groups[name[:2]] = groups.get(name[:2], 0) + 1
        for group in sorted(groups, key=lambda each: (-groups[each], each)):
            self._keep([(name, answer) for name, answer in self.best.decisions if name[:2] != group])

    def leave_out_decisions(self) -> None:
        """Leave out one part of the decisions after another, until none can be spared."""
        minimal(self.best.decisions, self._keep, lambda: self.runs < self._most_runs)

    def _keep(self, decisions: Sequence[tuple[Name, int]]) -> bool:
        return self.fails(msgspec.structs.replace(self.best, decisions=list(decisions)))


def minimal(
    items: Sequence[T], fails: Callable[[Sequence[T]], bool], may_go_on: Callable[[], bool] = lambda: True
) -> list[T]:
    """Return a part of the items that still fails, from which no single one can be left out (if it may go on so long).

    Parts are left out in order: halves, then quarters, down to single items, and again while that helps.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    while kept and may_go_on():
        smaller = False
        start = 0
        while start < len(kept) and may_go_on():
            candidate = kept[:start] + kept[start + size :]
            if fails(candidate):
                kept, smaller = candidate, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        if size > 1:
            size = max(1, size >> 1)
    return kept
