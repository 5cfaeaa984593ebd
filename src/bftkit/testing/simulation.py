"""Deterministic simulation of a whole group: one seed is one schedule, the same on every machine.

A schedule has three phases: faults; then everything heals, and a new request must be executed by all
within a bound of virtual time that does not depend on how long the faults lasted; then everything that
was acknowledged is looked for on every member, and their logs and states are compared.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.core.epoch import Limits
from bftkit.core.quorum import FaultModel
from bftkit.errors import ConfigurationError
from bftkit.replica.state_machine import StateMachine
from bftkit.testing.checkers import Violation
from bftkit.testing.node import SimulatedNode
from bftkit.testing.profile import CALM, Profile
from bftkit.testing.specs import Settings
from bftkit.testing.workload import Commands, Queries, Workload, small_numbers
from bftkit.testing.world import World

WIDE_LIMITS = Limits(max_command_bytes=4_096, max_batch_bytes=32_768, max_sessions=64)
"""Bounds for state machines whose commands are longer than a counter's."""

LOOK_AGAIN = 8
"""Whether a run has come to its end is asked every so many events."""

HEALING_STEPS = 16
"""Replica inputs that a healed group may handle until it has executed what it was asked for, for each pair of members
and each commit that it took: four times as many as any schedule needs."""

HEALING_COMMITS = 20
"""Commits' worth of them that it may spend on finding together."""

VIEWS_FOR_EACH_FAULT = 2
"""Views that a healed group may need because of one faulty member."""

VIEWS_FOR_EACH_COMMIT = 3
"""Views that a group with nothing to suffer may need for one commit."""

SPARE_VIEWS = 4
"""Views that it may need besides."""

SYNC_MS = 20_000
"""How long members that are healed may take, after that, to be equal."""

VIEW_CAP_MS = 8_000
"""Longest timeout of a view, for an engine whose options do not say it."""

ELECTIONS_TO_HEAL = 10
"""Longest election timeouts within which a healed group with elections must have answered."""

QUIET_MS = 60_000
"""How long a group with nothing to do may go on talking."""

IDLE_MS = 4_000
"""How long a crash-tolerant group with nothing to do may say more than heartbeats."""

HEARTBEATS_PER_S = 50
"""Most messages of one member to another in a second with nothing to order, where a protocol needs any."""

MOST_EVENTS = 2_000_000
"""Events after which a schedule is taken for one that never ends."""


class Outcome(msgspec.Struct, frozen=True):
    """What one schedule brought."""

    seed: int
    engine: str
    replicas: int
    profile: Profile
    violations: tuple[str, ...]
    """What went wrong; empty for a good run."""
    events: int
    steps: int
    """Inputs that the replicas handled."""
    commits: int
    """Positions with batches that were decided."""
    commands: int
    acknowledged: int
    """Commands that clients know to be executed."""
    virtual_ms: int
    trace_hash: str
    counters: dict[str, int]
    """Crashes, views, snapshots, ... by name."""
    faults_hit: dict[str, int]
    """What went wrong on purpose, by class of fault: how often it really happened."""
    heal_ms: int | None = None
    """How long it took, after everything had healed, until every honest member had executed a new request."""
    replay: str = ""
    """The command, or the line of Python, that plays it again; empty where it followed decisions: write the `Case`.

    What a program did to the `World` by itself it has to do again.
    """

    @property
    def ok(self) -> bool:
        """Say whether nothing went wrong."""
        return not self.violations


def run_schedule(
    seed: int, *, engine: str | EngineSpec = "pbft", replicas: int = 4, profile: str | Profile = "all", **extra: Any
) -> Outcome:
    """Run one schedule; what goes wrong in it is in the outcome, never raised.

    `engine` is the name of an installed engine or a specification, `profile` a name that `draw_profile`
    knows or a fixed one; `extra` goes to `World`.
    """
    world = seeded_world(seed, engine=engine, replicas=replicas, profile=profile, **extra)
    return finish(world)


def seeded_world(
    seed: int, *, engine: str | EngineSpec = "pbft", replicas: int = 4, profile: str | Profile = "all", **extra: Any
) -> World:
    """Make the world of one schedule, to be looked at beside its outcome; arguments as for `run_schedule`."""
    return World(seed, profile, engine=engine, replicas=replicas, **extra)


def finish(world: World) -> Outcome:
    """Run a world that was just made through its three phases; say what came of it."""
    violations: list[str] = []
    heal_ms = None
    try:
        heal_ms = run(world)
    except Violation as violation:
        violations.append(str(violation))
    return Outcome(
        seed=world.choices.seed,
        engine=world.settings.spec.name,
        replicas=len(world.settings.membership),
        profile=world.drawn,
        violations=tuple(violations),
        events=world.events.taken,
        steps=world.steps,
        commits=world.checkers.commits,
        commands=world.checkers.commands,
        acknowledged=sum(client.acknowledged_commands for client in world.clients),
        virtual_ms=world.events.now_us // 1_000,
        trace_hash=world.trace_hash,
        counters={**world.counters, "sent": world.network.sent, "lost": world.network.lost},
        faults_hit=dict(sorted(world.hits.items())),
        heal_ms=heal_ms,
        replay=world.replay,
    )


def simulate(
    make_machine: Callable[[], StateMachine],
    *,
    seed: int = 0,
    faults: str | Profile = "all",
    engine: str | EngineSpec = "pbft",
    replicas: int = 4,
    commands: Commands = small_numbers,
    queries: Queries | None = None,
    limits: Limits = WIDE_LIMITS,
    **extra: Any,
) -> Outcome:
    """Run a state machine of your own through one schedule; look at `ok` and `violations` of what comes back.

    `make_machine` is called for each start of each member, and once more for the machine that the others are
    compared with: it must return a new one each time. `commands` makes a command from a source of randomness; the
    default makes numbers, for a counter. `queries` makes questions likewise, for a machine with `query`: clients ask
    them as often as the profile's `reads` says. A machine's `check` is called before commands are ordered, as in a
    node. `faults` is the name of a profile, or one of your own.
    """
    return run_schedule(
        seed,
        engine=engine,
        replicas=replicas,
        profile=faults,
        workload=Workload(make_machine, commands, limits, queries),
        **extra,
    )


def make_world(seed: int, spec: EngineSpec, replicas: int, profile: Profile, **extra: Any) -> World:
    """Make the world of one schedule; `extra` goes to `World`."""
    return World(seed, profile, engine=spec, replicas=replicas, **extra)


def size_problem(engine: str | EngineSpec, size: int, settings: Settings = ()) -> str | None:
    """Say why a group of an engine cannot have this size with these options, or None."""
    try:
        World(0, CALM, engine=engine, replicas=size, settings=settings)
    except ConfigurationError as error:
        return str(error)
    return None


def run(world: World) -> int:
    """Run the three phases; Violation says what went wrong. Return how long healing took, in milliseconds."""
    world.start()
    _let_pass(world, world.profile.duration_ms)
    world.heal()
    healed_us, steps, commits = world.events.now_us, world.steps, world.checkers.commits
    views, position = _views(world), _position(world)
    probe = world.add_client("probe", 1)
    bound_ms = liveness_bound_ms(world)

    def live() -> bool:
        return all(client.done for client in world.clients) and all(
            node.executor.height >= probe.height for node in _trusted(world)
        )

    alive = _let_pass(world, bound_ms, live)
    if world.may_halt:
        _let_pass(world, SYNC_MS)
        _read_back(world)
        return (world.events.now_us - healed_us) // 1_000
    if not alive:
        raise Violation("no progress after everything healed: " + _explain(world))
    _expect_survivors(world)
    heal_ms = (world.events.now_us - healed_us) // 1_000
    took = HEALING_COMMITS + world.checkers.commits - commits
    if world.steps - steps > HEALING_STEPS * took * len(world.nodes) ** 2:
        raise Violation(f"{world.steps - steps} steps after everything healed, before anything new was executed")
    if _views(world) - views > most_views(world, _position(world) - position):
        raise Violation(f"{_views(world) - views} views after everything healed, before anything new was executed")
    views, commits = _views(world), world.checkers.commits
    if not _let_pass(world, SYNC_MS, lambda: _equal(world)):
        raise Violation("members stay apart after everything healed: " + _explain(world))
    if _views(world) - views > VIEWS_FOR_EACH_COMMIT * (1 + world.checkers.commits - commits):
        raise Violation(
            f"{_views(world) - views} views for {world.checkers.commits - commits} commits in a healed group"
        )
    _read_back(world)
    _fall_silent(world)
    return heal_ms


def _expect_survivors(world: World) -> None:
    """See that no more members than may be faulty lie, have forgotten something, or have stopped for good."""
    if world.faulty > world.tolerated:
        raise Violation("too many members have stopped for good: " + _explain(world))


def _trusted(world: World) -> list[SimulatedNode]:
    """List the members that must come through: honest ones, unless a damaged disk has stopped them for good."""
    return [node for node in world.nodes if node.honest and not node.stopped]


def _views(world: World) -> int:
    """Return the highest view, without those in which a position was decided where that is what views are for."""
    found = [node.replica.status() for node in _trusted(world)]
    decided = (status.position for status in found if world.settings.spec.view_for_each_position)
    return max((status.view for status in found), default=0) - max(decided, default=0)


def _position(world: World) -> int:
    return max((node.replica.commits.position for node in _trusted(world)), default=0)


def most_views(world: World, positions: int = 0) -> int:
    """Return how many views a healed group may need: each faulty member may lead in vain, and the first one is cut.

    Where leaders change with each of so many positions, a faulty one leads in vain again and again.
    """
    again = (VIEWS_FOR_EACH_COMMIT - 1) * positions if world.settings.spec.view_for_each_position else 0
    return VIEWS_FOR_EACH_FAULT * world.settings.membership.quorum.faults + SPARE_VIEWS + again


def liveness_bound_ms(world: World) -> int:
    """Return how long a healed group may take to answer: so many views or elections at the longest timeout."""
    options = world.settings.context.options
    if hasattr(options, "election_timeout_ms"):
        return int(ELECTIONS_TO_HEAL * 2 * options.election_timeout_ms)
    cap = getattr(options, "view_timeout_ms", VIEW_CAP_MS) * getattr(options, "timeout_cap_factor", 1)
    return int(most_views(world) * cap)


def _let_pass(world: World, duration_ms: int, stop: Any = None) -> bool:
    """Let virtual time pass, up to a condition; Violation where the events do not end."""
    end = world.events.now_us + duration_ms * 1_000

    def enough() -> bool:
        if world.events.taken > MOST_EVENTS:
            raise Violation(f"{MOST_EVENTS} events did not end the schedule: " + _explain(world))
        return stop is not None and bool(stop())

    return enough() or world.events.run(end, enough, LOOK_AGAIN) or (stop is not None and bool(stop()))


def _equal(world: World) -> bool:
    """Say whether all honest members have decided and executed the same."""
    heights = {(node.replica.commits.height, node.executor.height) for node in _trusted(world)}
    return len(heights) == 1 and all(decided == executed for decided, executed in heights)


def _read_back(world: World) -> None:
    """Compare logs and states of all members in the end, down to the state that clients see."""
    checkers = world.checkers
    for node in _trusted(world):
        height = node.executor.height
        checkers.log_root(node.index, height, node.replica.commits.log_root)
        checkers.roots(node.index, height, node.executor.roots())
        if not world.may_halt and height < max(client.height for client in world.clients):
            raise Violation(f"n{node.index} ends below a height that a client was told of")


def _fall_silent(world: World) -> None:
    """With nothing to order, a group stops talking, unless a member waits for others: it may repeat itself.

    A crash-tolerant group may go on with heartbeats. To members that lie the others may talk for ever.
    """
    if world.checkers.suspects or world.checkers.robbed:
        return
    beats = world.settings.spec.fault_model is FaultModel.CRASH
    listened_ms = 1_000 if beats else QUIET_MS
    _let_pass(world, IDLE_MS if beats else QUIET_MS)
    sent = world.network.sent
    _let_pass(world, listened_ms)
    said = world.network.sent - sent
    waiting = any(node.replica.status().waiting_for for node in world.nodes)
    if said > (HEARTBEATS_PER_S * len(world.nodes) ** 2 if beats else 0) and not waiting:
        raise Violation(f"{said} messages in {listened_ms // 1_000} s with nothing to do: " + _explain(world))


def _explain(world: World) -> str:
    lines = [f"{client.name} is waiting" for client in world.clients if not client.done]
    for node in world.nodes:
        if node.alive:
            replica = node.replica
            status = replica.status()
            lines.append(
                f"n{node.index}: view {status.view} ({status.mode}), decided {replica.commits.position}, "
                f"executed {replica.commits.executed}, stable {replica.checkpoints.stable.position}, "
                f"waits for {status.waiting_for or 'nothing'}"
            )
        else:
            lines.append(f"n{node.index} is down{f' ({node.stopped})' if node.stopped else ''}")
    return "; ".join(lines)
