"""Deterministic simulation of a whole group: one seed is one schedule, the same on every machine.

A schedule has three phases: faults; then everything heals, and a new request must be executed by all
within a bound of virtual time that does not depend on how long the faults lasted; then everything that
was acknowledged is looked for on every member, and their logs and states are compared.
"""

from random import Random
from typing import Any

import msgspec

from bftkit.core.engine import EngineSpec
from bftkit.plugins import load_engine
from bftkit.testing.checkers import Violation
from bftkit.testing.profile import Profile, draw_profile
from bftkit.testing.solo import solo_spec
from bftkit.testing.world import World

SYNC_MS = 20_000
"""Part of the liveness bound for catching up, and for a client to ask the right member."""

VIEW_CAP_MS = 8_000
"""Longest timeout of a view, for an engine whose options do not say it."""

QUIET_MS = 60_000
"""How long a group with nothing to do may go on talking."""

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
    commits: int
    """Positions with batches that were decided."""
    commands: int
    acknowledged: int
    """Commands that clients know to be executed."""
    virtual_ms: int
    trace_hash: str
    counters: dict[str, int]
    """Crashes, views, snapshots, ... by name."""

    @property
    def ok(self) -> bool:
        """Say whether nothing went wrong."""
        return not self.violations


def run_schedule(
    seed: int, *, engine: str | EngineSpec = "solo", replicas: int = 4, profile: str | Profile = "all", **extra: Any
) -> Outcome:
    """Run one schedule; what goes wrong in it is in the outcome, never raised.

    `engine` is the name of an installed engine or a specification, `profile` a name that `draw_profile`
    knows or a fixed one; `extra` goes to `World`.
    """
    random = Random(f"{seed}/profile")
    spec = _spec(engine)
    drawn = draw_profile(profile, random) if isinstance(profile, str) else profile
    world = make_world(seed, spec, replicas, drawn, **extra)
    violations: list[str] = []
    try:
        run(world)
    except Violation as violation:
        violations.append(str(violation))
    return Outcome(
        seed=seed,
        engine=spec.name,
        replicas=replicas,
        profile=drawn,
        violations=tuple(violations),
        events=world.events.taken,
        commits=world.checkers.commits,
        commands=world.checkers.commands,
        acknowledged=sum(client.acknowledged_commands for client in world.clients),
        virtual_ms=world.events.now_us // 1_000,
        trace_hash=world.trace_hash,
        counters={**world.counters, "sent": world.network.sent, "lost": world.network.lost},
    )


def _spec(engine: str | EngineSpec) -> EngineSpec:
    if isinstance(engine, EngineSpec):
        return engine
    return solo_spec() if engine == "solo" else load_engine(engine)


def make_world(seed: int, spec: EngineSpec, replicas: int, profile: Profile, **extra: Any) -> World:
    """Make the world of one schedule; an engine with a view timeout gets one that is short beside the faults."""
    if extra.get("options") is None:
        fields = spec.options_type.__struct_fields__
        short = {"view_timeout_ms": 400} if "view_timeout_ms" in fields else {}
        extra["options"] = spec.options_type(**short)
    return World(seed, spec, replicas, profile, **extra)


def run(world: World) -> None:
    """Run the three phases; Violation says what went wrong."""
    world.start()
    _let_pass(world, world.profile.duration_ms)
    world.heal()
    probe = world.add_client("probe", 1)
    honest = [node for node in world.nodes if node.honest]

    def live() -> bool:
        return all(client.done for client in world.clients) and all(
            node.alive and node.executor.height >= probe.height for node in honest
        )

    if not _let_pass(world, liveness_bound_ms(world), live):
        raise Violation("no progress after everything healed: " + _explain(world))
    if not _let_pass(world, SYNC_MS, lambda: _equal(world)):
        raise Violation("members stay apart after everything healed: " + _explain(world))
    _read_back(world)
    _fall_silent(world)


def liveness_bound_ms(world: World) -> int:
    """Return how long a healed group may take to answer: each member may lead in vain once, at the longest timeout."""
    settings = world.nodes[0].settings
    options = settings.context.options
    cap = getattr(options, "view_timeout_ms", VIEW_CAP_MS) * getattr(options, "timeout_cap_factor", 1)
    return int((len(settings.membership) + 3) * cap + SYNC_MS)


def _let_pass(world: World, duration_ms: int, stop: Any = None) -> bool:
    """Let virtual time pass, up to a condition; Violation where the events do not end."""
    end = world.events.now_us + duration_ms * 1_000

    def enough() -> bool:
        if world.events.taken > MOST_EVENTS:
            raise Violation(f"{MOST_EVENTS} events did not end the schedule: " + _explain(world))
        return stop is not None and bool(stop())

    return enough() or world.events.run(end, enough)


def _equal(world: World) -> bool:
    """Say whether all honest members have decided and executed the same."""
    honest = [node for node in world.nodes if node.honest]
    heights = {(node.replica.commits.height, node.executor.height) for node in honest}
    return len(heights) == 1 and all(decided == executed for decided, executed in heights)


def _read_back(world: World) -> None:
    """Compare logs and states of all members in the end, down to the state that clients see."""
    checkers = world.checkers
    for node in world.nodes:
        if node.honest:
            height = node.executor.height
            checkers.log_root(node.index, height, node.replica.commits.log_root)
            checkers.roots(node.index, height, node.executor.roots())
            if height < max(client.height for client in world.clients):
                raise Violation(f"n{node.index} ends below a height that a client was told of")


def _fall_silent(world: World) -> None:
    """With nothing to order, a group stops talking, unless a member waits for others: it may repeat itself.

    To members that lie the others may talk for ever.
    """
    if not all(node.honest for node in world.nodes):
        return
    _let_pass(world, QUIET_MS)
    sent = world.network.sent
    _let_pass(world, QUIET_MS)
    waiting = any(node.replica.status().waiting_for for node in world.nodes)
    if world.network.sent != sent and not waiting:
        raise Violation(f"{world.network.sent - sent} messages in a minute with nothing to do: " + _explain(world))


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
            lines.append(f"n{node.index} is down")
    return "; ".join(lines)
