"""What a campaign has brought up to now, and the file from which another process goes on."""

import os
from pathlib import Path

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.errors import ConfigurationError
from bftkit.testing.profile import Profile
from bftkit.testing.replay import as_python, replay_line
from bftkit.testing.specs import Settings
from bftkit.testing.workload import Workload

MOST_FINDINGS = 1_000
"""Findings that are kept, those of the lowest seeds; more are counted only."""

FORMAT = 2
"""Version of the file."""


class Plan(msgspec.Struct, frozen=True):
    """What every schedule of a campaign has in common, so that a seed is enough to name one."""

    engine: str
    replicas: tuple[int, ...]
    """Sizes of the group: a seed gets the one at its remainder, whatever range or part it is run in."""
    profile: str | Profile
    """A name, from which each seed draws, or one environment for all."""
    settings: Settings = ()
    """Options of the engine that do not have their defaults."""
    spec: EngineSpec | None = None
    """The engine itself, where a program brings its own; no file can hold it."""
    workload: Workload | None = None
    """What is replicated, where a program brings its own; no file can hold it."""

    @property
    def meant(self) -> str | EngineSpec:
        """Return the engine, by itself or by its name."""
        return self.spec or self.engine

    @property
    def is_a_program_s_own(self) -> bool:
        """Say whether something in it exists in one program only."""
        return self.spec is not None or self.workload is not None

    def replicas_of(self, seed: int) -> int:
        """Return how many members the schedule of a seed has."""
        return self.replicas[seed % len(self.replicas)]

    def replay(self, seed: int) -> str:
        """Return the command, or the line of Python, that runs one seed again."""
        size = self.replicas_of(seed)
        return replay_line(seed, self.meant, size, self.profile, settings=self.settings, workload=self.workload)


class Finding(msgspec.Struct, frozen=True, order=True):
    """A rule that a schedule broke."""

    seed: int
    replicas: int
    property: str
    """Which rule, and how, in words."""
    replay: str
    """The command, or the line of Python, that shows it again."""


class Figures(msgspec.Struct):
    """Sums over schedules. They are the same in whatever order and portions they were added up, but for `cpu_s`."""

    schedules: int = 0
    violated: int = 0
    """Schedules that broke a rule."""
    events: int = 0
    """Inputs that replicas handled."""
    commits: int = 0
    """Positions with batches that were decided."""
    commands: int = 0
    acknowledged: int = 0
    virtual_ms: int = 0
    cpu_s: float = 0.0
    """CPU seconds of the threads that ran the schedules."""
    trace_hash: str = "0" * 32
    """Those of all schedules, combined: equal where every single one went the same way."""
    counters: dict[str, int] = {}
    faults_hit: dict[str, int] = {}
    """What went wrong on purpose, by class of fault: how often it really happened."""
    findings: list[Finding] = []
    """By seed."""

    def add(self, other: "Figures") -> None:
        """Add the sums over other schedules."""
        for field in ("schedules", "violated", "events", "commits", "commands", "acknowledged", "virtual_ms", "cpu_s"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.trace_hash = f"{int(self.trace_hash, 16) ^ int(other.trace_hash, 16):032x}"
        _add_counts(self.counters, other.counters)
        _add_counts(self.faults_hit, other.faults_hit)
        if other.findings:
            self.findings = sorted([*self.findings, *other.findings])[:MOST_FINDINGS]


def _add_counts(counts: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


class CampaignState(msgspec.Struct):
    """How far a campaign has come."""

    plan: Plan
    program: str = ""
    """Versions of library and engine, and a digest of their sources: sums over different programs mean nothing."""
    done: list[tuple[int, int]] = []
    """Half-open ranges of seeds, apart from each other and in order."""
    figures: Figures = msgspec.field(default_factory=Figures)
    format: int = FORMAT

    def add(self, seeds: range, figures: Figures) -> None:
        """Note that a range of seeds is done, and what it brought."""
        self.figures.add(figures)
        ranges: list[tuple[int, int]] = []
        for start, stop in sorted([*self.done, (seeds.start, seeds.stop)]):
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]  # noqa: PLW2901  # the two are one range now
            ranges.append((start, stop))
        self.done = ranges

    def missing(self, seeds: range) -> list[range]:
        """Return the parts of a range that are not done yet, in order."""
        parts, start = [], seeds.start
        for first, beyond in self.done:
            if start < min(first, seeds.stop):
                parts.append(range(start, min(first, seeds.stop)))
            start = max(start, beyond)
        if start < seeds.stop:
            parts.append(range(start, seeds.stop))
        return parts

    def write(self, path: Path) -> None:
        """Write the state to a file, so that after a crash it is the old one or the new one."""
        temporary = path.with_name(path.name + ".temporary")
        try:
            with temporary.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def read_state(path: Path, plan: Plan, program: str, seeds: range) -> CampaignState:
    """Return the state of a campaign that goes on, or a new one where there is no file yet.

    ConfigurationError where the file is about another campaign.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=CampaignState)
    except FileNotFoundError:
        return CampaignState(plan, program)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path} holds no state of a campaign: {error}") from error
    problem = _difference(state, plan, program, seeds)
    if problem is not None:
        raise ConfigurationError(f"{path} is about another campaign: {problem}")
    return state


def _difference(state: CampaignState, plan: Plan, program: str, seeds: range) -> str | None:
    """Say what keeps a state from being the beginning of a campaign, or None."""
    if state.format != FORMAT:
        return f"its format is {state.format}, not {FORMAT}"
    for field in Plan.__struct_fields__:
        before, now = getattr(state.plan, field), getattr(plan, field)
        if before != now:
            return f"{field} was {_words(before)}, not {_words(now)}"
    if state.program != program:
        return f"the program has changed: it was begun with {state.program}, and this is {program}"
    outside = [each for each in state.done if each[0] < seeds.start or each[1] > seeds.stop]
    if outside:
        return f"seeds {outside[0][0]}:{outside[0][1]} are done, which are not in {seeds.start}:{seeds.stop}"
    return None


def _words(value: object) -> str:
    return value if isinstance(value, str) else as_python(value)
