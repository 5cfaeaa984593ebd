"""One scenario of the Twins method, played on bare engines; what must always hold is checked at each step.

While the views of the scenario last, a message belongs to the view that it names, or to the latest one that its
sender has named, and passes within one block of that view only. Decided positions and checkpoints pass nowhere:
whoever lacks them has to cope. An engine may keep a leader for as long as he serves, so each view is brought to its
end: after a while its leader is not heard any more, and what it takes to give him up passes between all. Afterwards
the network is whole, and honest members lead in turn: then everything must be ordered everywhere.
"""

import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineSpec
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import CommitEntry
from bftkit.plugins import load_engine
from bftkit.testing.checkers import Violation
from bftkit.testing.engine_group import START, EngineGroup
from bftkit.testing.group_settings import GroupSettings
from bftkit.testing.message_sorts import sort_of
from bftkit.testing.specs import scripted_options
from bftkit.testing.twins_scenarios import VIEW_CHANGES, Scenario, instance_name

_LEARNT = (CommitEntry, CheckpointCertificate)
"""What passes only once the network is whole."""


class TwinsTiming(msgspec.Struct, frozen=True):
    """How long things take, in virtual milliseconds."""

    delay_ms: tuple[int, int] = (1, 3)
    """Shortest and longest time that a message is under way."""
    slice_ms: int = 40
    """How long the leader of a view is heard once he speaks of it."""
    wait_ms: int = 600
    """How long he is waited for, counted from when anybody speaks of his view."""
    patience_ms: int = 30_000
    """A view that has not ended by then is the last one of its scenario."""
    bound_ms: int = 60_000
    """How long it may take to order everything once the network is whole."""
    seed: int = 0
    """What delays are drawn from."""


class TwinsCase(msgspec.Struct, frozen=True):
    """How one scenario went."""

    problem: str | None
    """What was violated, or None."""
    views: int
    """How many views of the scenario were reached."""
    events: int
    """Inputs that engines took."""
    commits: int
    """Positions that honest instances decided, each counted once."""
    trace: tuple[str, ...] = ()
    """What happened, where that was asked for."""


def run_twins_case(
    engine: str | EngineSpec,
    scenario: Scenario,
    *,
    options: Any = None,
    timing: TwinsTiming | None = None,
    traced: bool = False,
) -> TwinsCase:
    """Play one scenario. An engine that raises breaks its promise to be total: that is a violation like others."""
    spec = load_engine(engine) if isinstance(engine, str) else engine
    play = _Play(spec, scenario, options, timing or TwinsTiming(), traced=traced)
    problem: str | None = None
    try:
        play.play()
    except Violation as violation:
        problem = str(violation)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({place.name}, {place.filename}:{place.lineno})"
    group = play.group
    reached = min(play.frontier + 1, len(scenario.views))
    return TwinsCase(problem, reached, group.steps, len(group.hosting.decided), tuple(group.trace))


class _Leaders(msgspec.Struct):
    """The leaders of a scenario's views; then some members in turn."""

    listed: tuple[ReplicaIndex, ...]
    later: tuple[ReplicaIndex, ...]
    first: int = 0
    """What the engine calls the first view of the scenario."""

    def leader(self, view: int) -> ReplicaIndex:
        """Return who leads what the engine calls a view."""
        place = max(0, view - self.first)
        beyond = place - len(self.listed)
        return self.listed[place] if beyond < 0 else self.later[beyond % len(self.later)]


_VIEWS = ("view", "term", "round")
"""What messages call the view that they are about."""


class _Play:
    """A scenario, the group that it is played on, and how far it is."""

    def __init__(
        self, spec: EngineSpec, scenario: Scenario, options: Any, timing: TwinsTiming, *, traced: bool
    ) -> None:
        self._scenario = scenario
        self._views = scenario.views
        self._identity = scenario.identity
        self._timing = timing
        listed = tuple(view.leader for view in scenario.views)
        honest = tuple(range(scenario.twins, scenario.members)) or tuple(range(scenario.members))
        leaders = _Leaders(listed, honest)
        options = scripted_options(spec) if options is None else options
        settings = GroupSettings(options=options, leaders=leaders, invariants=True, traced=traced)
        self.group = EngineGroup(spec, scenario.members, timing.seed, identity=self._identity, settings=settings)
        for instance in self.group.instances:
            instance.name = instance_name(scenario, instance.number)
        begin = spec.build(self.group.instances[0].context, self.group.genesis, START, ())
        self._first = leaders.first = begin.status().view
        """The view that engines begin in: terms, views and rounds are not counted from the same number."""
        self.group.delay_ms = timing.delay_ms
        self.group.deliverable = self._passes
        self.frontier = -1
        """The highest view that anybody has named."""
        self._entered_at = 0
        """When that was."""
        self._named = [-1] * scenario.instances
        """For each instance the highest view that it has named."""
        self._ended = [False] * len(scenario.views)
        self._whole = False
        self._kinds: dict[type, str] = {}
        self._batches: list[bytes] = []
        """Everything that was handed out."""

    def play(self) -> None:
        """Go through the views, then make the network whole and wait; Violation where a rule is broken."""
        group, timing = self.group, self._timing
        group.start()
        if self.frontier < 0:
            self._enter(0)
        while self.frontier < len(self._views) and group.now - self._entered_at < timing.patience_ms:
            group.run(timing.slice_ms)
        self._whole = True
        self._hand_out(self._batch("last"))
        end = group.now + timing.bound_ms
        while not self._all_ordered():
            if group.now >= end:
                raise Violation("\n".join([f"not everything is ordered after {timing.bound_ms} ms:", *group.states()]))
            group.run(timing.slice_ms)

    def _all_ordered(self) -> bool:
        honest = (instance for instance in self.group.instances if instance.honest)
        return all(digest in one.decided for one in honest for digest in self._batches)

    # -- what passes ------------------------------------------------------------------------------

    def _passes(self, sender: int, receiver: int, what: Any) -> bool:
        """Say whether something reaches an instance. Twins do not hear each other: nobody connects to himself."""
        view = self._view_of(what)
        if view is None:
            view = max(self._named[sender], 0)
        elif view > self._named[sender]:
            self._name(sender, view)
        if self._identity[sender] == self._identity[receiver]:
            return False
        if self._whole or isinstance(what, _LEARNT):
            return self._whole
        if view >= len(self._views):
            return True
        rule, ended = self._views[view], self._ended[view]
        if ended and self._identity[sender] == rule.leader:
            return False
        kind = self._kinds.get(type(what))
        if kind is None:
            kind = self._kinds[type(what)] = sort_of(type(what))
        if kind == VIEW_CHANGES and ended:
            return True
        if kind == rule.lost and rule.at in (None, receiver):
            return False
        return rule.blocks[sender] == rule.blocks[receiver]

    def _view_of(self, what: Any) -> int | None:
        """Return which of the scenario's views something is about, if it says so."""
        named = next((view for name in _VIEWS if (view := getattr(what, name, None)) is not None), None)
        return None if named is None else max(0, named - self._first)

    # -- the course of a view ---------------------------------------------------------------------

    def _name(self, instance: int, view: int) -> None:
        """Note that an instance speaks of a view for the first time."""
        self._named[instance] = view
        if view > self.frontier:
            self._enter(view)
        if view < len(self._views) and self._identity[instance] == self._views[view].leader:
            leader = self.group.of_identity[self._views[view].leader]
            if all(self._named[one.number] >= view for one in leader):
                self._plan(self._timing.slice_ms, self._end, view)

    def _enter(self, view: int) -> None:
        """Plan what happens in a view that nobody has spoken of before; those that were left out are over."""
        for skipped in range(self.frontier + 1, min(view, len(self._views))):
            self._ended[skipped] = True
        self.frontier, self._entered_at = view, self.group.now
        if view < len(self._views):
            self._plan(0, self._begin, view)
            self._plan(self._timing.wait_ms, self._end, view)

    def _plan(self, delay: int, action: Callable[[int], None], view: int) -> None:
        self.group.after_any_life(delay, lambda *_: action(view), self.group.instances[0])

    def _begin(self, view: int) -> None:
        """Hand out two batches, to the second instances of twins in the other order: so twins equivocate."""
        first, second = self._batch(f"a{view}"), self._batch(f"b{view}")
        for instance in self.group.instances:
            is_second = instance.number >= self._scenario.members
            self.group.hosting.arrive(instance, (second, first) if is_second else (first, second))

    def _end(self, view: int) -> None:
        """Take the leader's voice away, and give everybody something to wait for; restart whom the scenario says."""
        if self._ended[view] or self._whole:
            return
        self._ended[view] = True
        restart = self._views[view].restart
        if restart is not None:
            self.group.crash(restart)
            self.group.restart(restart, memory=not self._scenario.is_twin(restart))
        self._hand_out(self._batch(f"c{view}"))

    # -- batches ----------------------------------------------------------------------------------

    def _batch(self, name: str) -> BatchRef:
        """Make a batch; all are of one origin, so that each engine takes them in the order in which they came."""
        ref = self.group.batch(name, self._scenario.members - 1)
        self._batches.append(ref.digest)
        return ref

    def _hand_out(self, ref: BatchRef) -> None:
        for instance in self.group.instances:
            self.group.hosting.arrive(instance, (ref,))
