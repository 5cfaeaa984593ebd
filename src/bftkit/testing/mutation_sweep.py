"""Every small change of every message, one after the other, by one liar in one schedule (FAULTS: small-scope mutation).

Where drawn lies show what is likely, a sweep shows what there is: each field of each type of message a bit off, stale,
swapped with another or gone, and each type never said, from the beginning to the end of a schedule that is otherwise
the same. Engines that tolerate liars must keep every promise; of the others it is asked that nothing makes them raise.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import msgspec

from bftkit.core.ids import ReplicaIndex
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.plugins import load_engine
from bftkit.testing.liars import distrust
from bftkit.testing.message_mutation import mutations
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import Outcome, finish, seeded_world
from bftkit.testing.world import World

SWEPT = Profile(
    name="swept",
    duration_ms=2_500,
    link_us=(200, 5_000),
    loss=0.05,
    crashes=4,
    partitions=3,
    down_ms=(300, 500),
    clients=2,
    envelopes=10,
    think_ms=40,
    checkpoint_interval=4,
    snapshot_positions=8,
)
"""Little goes wrong, and enough that members change views, fetch and catch up."""

NEVER_SAID = -1
"""The number of the mutation that leaves a message out."""

_RAISED = " raised "
"""What stands in the violation of a member that a message made raise."""


class MutationCase(msgspec.Struct, frozen=True):
    """One change of one type of message, in each message of that type that the liar says."""

    engine: str
    replicas: int
    liar: ReplicaIndex
    seed: int
    message: str
    """Name of the type."""
    number: int
    """Which of the mutations that `bftkit.testing.message_mutation` lists; `NEVER_SAID` for none of them."""

    def world(self) -> World:
        """Make the world of this case, for `finish` or for a closer look."""
        return _world(self.engine, self.replicas, self.liar, self.seed, self._changed)

    def _changed(self, message: Any, earlier: Any) -> list[Any]:
        if type(message).__name__ != self.message:
            return [message]
        if self.number == NEVER_SAID:
            return []
        made = mutations(message, earlier)
        return [made[self.number]()] if self.number < len(made) else [message]


class SweepResult(msgspec.Struct, frozen=True):
    """What came of a sweep."""

    cases: int
    messages: tuple[str, ...]
    """Types of messages that were changed."""
    findings: tuple[tuple[MutationCase, str], ...]
    """Cases in which a rule was broken, and how."""

    @property
    def ok(self) -> bool:
        """Say whether no rule was broken."""
        return not self.findings


Change = Callable[[Any, Any], list[Any]]
"""Takes a message and the one of its type before; returns what is said instead."""


def _world(engine: str, replicas: int, liar: ReplicaIndex, seed: int, change: Change) -> World:
    world = seeded_world(seed, engine=engine, replicas=replicas, profile=SWEPT)
    distrust(world, liar, "changing messages")
    last: dict[type, Any] = {}
    before: dict[type, Any] = {}

    def speak(to: ReplicaIndex, message: Any) -> list[tuple[ReplicaIndex, Any]]:
        kind = type(message)
        if last.get(kind) != message:
            before[kind], last[kind] = last.get(kind), message
        return [(to, said) for said in change(message, before[kind])]

    world.nodes[liar].speak = speak
    return world


def mutation_cases(
    engine: str = "pbft", *, replicas: int = 4, liar: ReplicaIndex = 0, seed: int = 19
) -> list[MutationCase]:
    """List all cases for one liar in one schedule, by type of message, in the order in which it first says them.

    The schedule is run once for that, with the liar saying what is true.
    """
    counts: dict[str, int] = {}

    def count(message: Any, earlier: Any) -> list[Any]:
        name = type(message).__name__
        counts[name] = max(counts.get(name, 0), len(mutations(message, earlier)))
        return [message]

    finish(_world(engine, replicas, liar, seed, count))
    return [
        MutationCase(engine, replicas, liar, seed, name, number)
        for name, most in counts.items()
        for number in range(NEVER_SAID, most)
    ]


def run_mutation_case(case: MutationCase) -> Outcome:
    """Run one case: what worker processes are given."""
    return finish(case.world())


def sweep_mutations(
    engine: str = "pbft",
    *,
    replicas: int = 4,
    liar: ReplicaIndex = 0,
    seed: int = 19,
    step: int = 1,
    executor: Executor | None = None,
    progress: Callable[[MutationCase, Outcome], None] = lambda case, outcome: None,
) -> SweepResult:
    """Run every case, or every `step`th, and return what came of them.

    `executor` may be any of `concurrent.futures`; for a whole sweep take processes.
    """
    chosen: Sequence[MutationCase] = mutation_cases(engine, replicas=replicas, liar=liar, seed=seed)[::step]
    ran = map(run_mutation_case, chosen) if executor is None else executor.map(run_mutation_case, chosen)
    model = load_engine(engine).fault_model
    tolerates = model is FaultModel.BYZANTINE and Quorum.of(model, replicas).faults > 0
    findings: list[tuple[MutationCase, str]] = []
    for case, outcome in zip(chosen, ran, strict=True):
        progress(case, outcome)
        # An engine that tolerates no liar must let nothing make it raise; the others are held to everything.
        broken = (violation for violation in outcome.violations if tolerates or _RAISED in violation)
        findings += [(case, violation) for violation in broken]
    return SweepResult(len(chosen), tuple(dict.fromkeys(case.message for case in chosen)), tuple(findings))
