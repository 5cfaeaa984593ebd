"""Campaigns: many schedules on all cores, or on whatever executes calls, added up to one result.

The work is dealt out in ranges of seeds. What comes of it depends on the seeds alone: not on the executor, the
number of workers, the size of the portions or the order in which they come back.
"""

import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.quorum import FaultModel
from bftkit.errors import BftkitError, ConfigurationError, EngineError
from bftkit.testing.byzantine import BEHAVIOURS
from bftkit.testing.campaign_state import CampaignState, Figures, Finding, Plan, read_state
from bftkit.testing.crash_plan import FAILPOINT_HIT
from bftkit.testing.liars import BYZANTINE_HIT, TWINS
from bftkit.testing.nemesis import FAILPOINTS
from bftkit.testing.profile import PROFILES, Profile
from bftkit.testing.program import program_of
from bftkit.testing.simulation import run_schedule, size_problem
from bftkit.testing.specs import Settings, named, spec_of
from bftkit.testing.workers import cores, worker_pool
from bftkit.testing.workload import Workload

USUAL_REPLICAS = 4
"""Members of a group when nothing else is said: the fewest that survive a byzantine one."""

PORTION_S = 0.5
"""CPU time that a portion of seeds should take: long beside its way to a worker, short beside anybody's patience."""

MOST_SEEDS = 256
"""Seeds of the largest portion."""

PORTIONS_FOR_EACH_JOB = 2
"""Portions on their way for each worker: one that runs, and one that waits, so that nobody is idle."""

WRITE_EVERY_S = 1.0
"""How often the file to go on from is written."""


class CampaignError(BftkitError):
    """A worker died; the message names the seeds that may have killed it."""


class Progress(msgspec.Struct, frozen=True):
    """How far a campaign is."""

    done: int
    planned: int
    """Schedules of this campaign, or of the part of it that is run here."""
    violated: int
    """Schedules that broke a rule."""
    events_per_s: float


class CampaignResult(msgspec.Struct, frozen=True):
    """What a campaign brought, with what an earlier process had done of it."""

    plan: Plan
    seeds: tuple[int, int]
    """The half-open range that was run."""
    figures: Figures
    elapsed_s: float
    """How long this process took."""

    @property
    def ok(self) -> bool:
        """Say whether no schedule broke a rule."""
        return not self.figures.violated

    @property
    def failpoints_hit(self) -> tuple[str, ...]:
        """List the failpoints at which members crashed."""
        return tuple(name for name in FAILPOINTS if FAILPOINT_HIT + name in self.figures.faults_hit)

    @property
    def failpoints_not_hit(self) -> tuple[str, ...]:
        """List those at which none did, though a simulated member passes them."""
        return tuple(name for name in FAILPOINTS if FAILPOINT_HIT + name not in self.figures.faults_hit)

    @property
    def behaviours_hit(self) -> tuple[str, ...]:
        """List the ways to lie in which a member did lie."""
        return tuple(name for name in self._behaviours if BYZANTINE_HIT + name in self.figures.faults_hit)

    @property
    def behaviours_not_hit(self) -> tuple[str, ...]:
        """List those in which none did; none are missed where the engine tolerates no liar."""
        return tuple(name for name in self._behaviours if BYZANTINE_HIT + name not in self.figures.faults_hit)

    @property
    def _behaviours(self) -> tuple[str, ...]:
        byzantine = spec_of(self.plan.meant).fault_model is FaultModel.BYZANTINE
        return (*BEHAVIOURS, TWINS) if byzantine else ()

    @property
    def events_per_s(self) -> float:
        """Return the speed of one core: inputs that replicas handled, by the workers' CPU seconds."""
        return events_per_s(self.figures)


def events_per_s(figures: Figures) -> float:
    """Return inputs that replicas handled, by CPU seconds; 0 before there are any."""
    return figures.events / figures.cpu_s if figures.cpu_s else 0.0


def run_campaign(  # noqa: PLR0913  # what to run, on what, and from where: each has its default
    seeds: range,
    *,
    engine: str | EngineSpec,
    replicas: int | Sequence[int] | None = None,
    profile: str | Profile = "all",
    settings: Settings = (),
    workload: Workload | None = None,
    executor: Executor | None = None,
    jobs: int | None = None,
    shard: tuple[int, int] | None = None,
    resume: Path | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    portion: int | None = None,
) -> CampaignResult:
    """Run the schedules of a range of seeds; a broken rule is a finding in the result, never raised.

    `replicas` is the size of the group, or several, dealt round among the seeds: a seed gets the size at its
    remainder. Without it there are four, or as few as the engine takes. `settings` are options of the engine.
    `engine`, `profile` and `workload` may be a program's own, as for `run_schedule`; processes import an own engine or
    workload by the names of its functions, so these stand in a module.
    `shard` (i, n) runs the i-th of n parts, from 1 on: ranges that lie side by side and differ by one seed at most.

    `executor` is any executor of `concurrent.futures` that takes functions by name; without one there are as many
    processes as `jobs` says, or cores, and they end with the call, also by an exception. With one, `jobs` says how
    many calls it runs at once.

    `resume` is a file to go on from: it is written while the campaign runs and holds which seeds are done, and of which
    program; when a source of the library or the engine has changed since, it is refused, and so is an engine or a
    workload of a program's own, whose sources nobody knows. `portion` fixes how many seeds
    go to a worker at once; by default it follows from how long they take.

    ConfigurationError or EngineError where that cannot be run, CampaignError where a worker dies.
    """
    plan = make_plan(engine, replicas, profile, settings, workload)
    part = shard_of(seeds, *(shard or (1, 1)))
    state = _state(plan, part, resume)
    began = time.monotonic()
    todo = state.missing(part)
    left = sum(map(len, todo))
    if left:
        workers = min(jobs or cores(), left)
        with ExitStack() as stack:
            if executor is None or isinstance(executor, ProcessPoolExecutor):
                _expect_portable(plan)
            if executor is None:
                executor = stack.enter_context(worker_pool(workers, partial(_warm_up, plan)))
            _Dealer(state, executor, workers, portion, resume, len(part), progress).run(todo)
    return CampaignResult(plan, (part.start, part.stop), state.figures, time.monotonic() - began)


def make_plan(
    engine: str | EngineSpec,
    replicas: int | Sequence[int] | None,
    profile: str | Profile,
    settings: Settings = (),
    workload: Workload | None = None,
) -> Plan:
    """Return what all schedules have in common; ConfigurationError or EngineError where they cannot be run."""
    spec = spec_of(engine)
    if isinstance(profile, str) and profile not in PROFILES:
        raise ConfigurationError(f"there is no profile {profile!r}: say one of {', '.join(PROFILES)}")
    if replicas is None:
        usual = size_problem(engine, USUAL_REPLICAS, settings) is None
        sizes: tuple[int, ...] = (USUAL_REPLICAS if usual else spec.min_members,)
    else:
        sizes = (replicas,) if isinstance(replicas, int) else tuple(replicas)
    if not sizes:
        raise ConfigurationError("no size of the group is given")
    for size in sizes:
        problem = size_problem(engine, size, settings)
        if problem is not None:
            raise ConfigurationError(problem)
    name, own = named(engine)
    return Plan(name, sizes, profile, settings, own, workload)


def _state(plan: Plan, seeds: range, file: Path | None) -> CampaignState:
    """Return where a campaign begins or goes on; ConfigurationError where a file cannot say it."""
    if file is None:
        return CampaignState(plan)
    if plan.is_a_program_s_own:
        raise ConfigurationError(f"{file} cannot hold an engine or a workload of a program's own: there is no going on")
    return read_state(file, plan, program_of(plan.engine), seeds)


def _expect_portable(plan: Plan) -> None:
    """Raise ConfigurationError where other processes will not find what is a program's own."""
    if not plan.is_a_program_s_own:
        return
    advice = "put it into a module of its own, or give an executor of threads"
    try:
        data = pickle.dumps(plan)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"the engine or the workload cannot be taken to a process: {error}; {advice}"
        ) from error
    main = sys.modules["__main__"]
    if b"__main__" in data and getattr(main, "__spec__", None) is None and not hasattr(main, "__file__"):
        raise ConfigurationError(f"engine or workload stands in no file that a process could import; {advice}")


def shard_of(seeds: range, part: int, parts: int) -> range:
    """Return one of so many parts, counted from 1; ConfigurationError where there is nothing in it."""
    if seeds.step != 1 or seeds.start < 0:
        raise ConfigurationError("seeds are whole numbers from 0 on, one after the other")
    if not 1 <= part <= parts:
        raise ConfigurationError(f"there is no part {part} of {parts}")
    first = seeds.start + len(seeds) * (part - 1) // parts
    beyond = seeds.start + len(seeds) * part // parts
    if first == beyond:
        raise ConfigurationError(f"there is no seed in part {part} of {parts} of {seeds.start}:{seeds.stop}")
    return range(first, beyond)


def run_portion(plan: Plan, seeds: range) -> Figures:
    """Run some schedules one after the other and add up what they bring; what a worker does."""
    figures = Figures()
    began = time.thread_time()
    for seed in seeds:
        figures.add(_run_one(plan, seed))
    figures.cpu_s = time.thread_time() - began
    return figures


def _run_one(plan: Plan, seed: int) -> Figures:
    replicas = plan.replicas_of(seed)
    try:
        outcome = run_schedule(
            seed,
            engine=plan.meant,
            replicas=replicas,
            profile=plan.profile,
            settings=plan.settings,
            workload=plan.workload,
        )
    except (ConfigurationError, EngineError):
        raise
    except Exception as error:
        # Whatever it is, it is worth as much as a broken rule: this seed shows it.
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"the simulation raised {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return Figures(schedules=1, violated=1, findings=[Finding(seed, replicas, text, plan.replay(seed))])
    return Figures(
        schedules=1,
        violated=bool(outcome.violations),
        events=outcome.steps,
        commits=outcome.commits,
        commands=outcome.commands,
        acknowledged=outcome.acknowledged,
        virtual_ms=outcome.virtual_ms,
        trace_hash=outcome.trace_hash,
        counters=outcome.counters,
        faults_hit=outcome.faults_hit,
        findings=[Finding(seed, replicas, text, plan.replay(seed)) for text in outcome.violations],
    )


def _warm_up(plan: Plan) -> None:
    """Import what a worker needs before its garbage collector is frozen."""
    spec_of(plan.meant)


class _Dealer:
    """Deals portions of seeds to an executor and collects what comes back."""

    def __init__(
        self,
        state: CampaignState,
        executor: Executor,
        workers: int,
        portion: int | None,
        file: Path | None,
        planned: int,
        progress: Callable[[Progress], None],
    ) -> None:
        self._state = state
        self._executor = executor
        self._workers = workers
        self._portion = portion
        self._file = file
        self._planned = planned
        self._progress = progress
        self._written = time.monotonic()
        self._pending: dict[Future[Figures], range] = {}

    def run(self, todo: Sequence[range]) -> None:
        """Have everything run; whatever happens, what is done by then stands in the file."""
        portions = self._portions(todo)
        self._write()
        try:
            while True:
                self._deal(portions)
                if not self._pending:
                    break
                self._collect()
        finally:
            for future in self._pending:
                future.cancel()
            self._write()

    def _portions(self, todo: Sequence[range]) -> Iterator[range]:
        """Cut the seeds into portions, each as large as what is known by then suggests."""
        left = sum(map(len, todo))
        for part in todo:
            start = part.start
            while start < part.stop:
                size = min(self._portion or self._size(left), part.stop - start)
                yield range(start, start + size)
                start += size
                left -= size

    def _size(self, left: int) -> int:
        figures = self._state.figures
        if not figures.cpu_s:
            return 1
        # Towards the end portions become small, so that all workers finish at about the same time.
        fair = left // (self._workers * PORTIONS_FOR_EACH_JOB)
        return max(1, min(MOST_SEEDS, fair, int(PORTION_S * figures.schedules / figures.cpu_s)))

    def _deal(self, portions: Iterator[range]) -> None:
        try:
            while len(self._pending) < self._workers * PORTIONS_FOR_EACH_JOB:
                seeds = next(portions, None)
                if seeds is None:
                    return
                self._pending[self._executor.submit(run_portion, self._state.plan, seeds)] = seeds
        except BrokenExecutor as error:
            raise self._died() from error

    def _collect(self) -> None:
        finished, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in sorted(finished, key=lambda each: self._pending[each].start):
            try:
                figures = future.result()
            except BrokenExecutor as error:
                raise self._died() from error
            self._state.add(self._pending.pop(future), figures)
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self._write()
        figures = self._state.figures
        self._progress(Progress(figures.schedules, self._planned, figures.violated, events_per_s(figures)))

    def _died(self) -> CampaignError:
        portions = sorted(self._pending.values(), key=lambda each: each.start)
        seeds = ", ".join(f"{each.start}:{each.stop}" for each in portions)
        return CampaignError(f"a worker died; it was running one of the seeds {seeds}")

    def _write(self) -> None:
        if self._file is not None:
            self._state.write(self._file)
            self._written = time.monotonic()
