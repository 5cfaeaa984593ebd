"""Work gets done: under loss, without a leader, after the worst is over; and who waits can say for what."""

from __future__ import annotations

from collections.abc import Callable

from bftkit.core.engine import EngineStatus
from bftkit.core.inputs import Available, EngineInput
from bftkit.core.outputs import EngineOutput
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import long_cut, rough, under_loss, with_gone
from bftkit.testing.engine_group import EngineGroup, Instance

_STUCK_MS = 20_000


def alive(trial: Trial) -> None:
    """Play; everything must be decided within the bound."""
    trial.play()


class _Told:
    """Which bodies the engines of a group were told of, each in its present life."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[int, dict[bytes, None]]] = {}

    def note(self, instance: Instance, event: EngineInput) -> None:
        """Note what an engine was told."""
        life, told = self._told.get(instance.number, (-1, {}))
        if life != instance.life:
            told = {}
            self._told[instance.number] = (instance.life, told)
        if isinstance(event, Available):
            told.update((ref.digest, None) for ref in event.refs)

    def is_pending(self, instance: Instance) -> bool:
        """Say whether an engine knows of a batch that is not decided, and may order it."""
        life, told = self._told.get(instance.number, (-1, {}))
        # At the end of a checkpoint interval an engine may have to wait for a stable checkpoint.
        full = instance.position >= instance.stable.position + instance.context.limits.checkpoint_interval
        return not full and life == instance.life and any(digest not in instance.decided for digest in told)


def armed(trial: Trial) -> None:
    """Look after each step whether an engine that has work would go on if nobody ever spoke to it again."""
    told = _Told()

    def watch(group: EngineGroup) -> None:
        def look(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
            if not instance.alive:
                return  # it crashed in this step, and will be told again when it is back
            told.note(instance, event)
            if told.is_pending(instance):
                expect(group.has_plans(instance), f"{instance.name} has work to do, and no timer is armed")

        group.on_step = look

    trial.play(watch)


def explains(trial: Trial) -> None:
    """Read what engines say of themselves after each step, and when nothing can go on."""
    told = _Told()

    def watch(group: EngineGroup) -> None:
        group.on_step = _look(trial, told)

    group = trial.play(watch)
    group.deliverable = lambda sender, receiver, what: False
    if trial.members > 1:
        group.submit("stuck")
        group.run(_STUCK_MS)
    for instance in group.instances:
        if told.is_pending(instance):
            status = instance.engine.status()
            expect(status.waiting_for, f"{instance.name} waits, and does not say for what: {status}")
            # Whoever hears nobody waits for others, unless there are none.
            others = [one for one in status.waiting_on if one != instance.identity]
            expect(others or trial.members == 1, f"{instance.name} waits, and does not say for whom: {status}")


def _look(trial: Trial, told: _Told) -> Callable[[Instance, EngineInput, list[EngineOutput]], None]:
    views: dict[tuple[int, int], int] = {}

    def look(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
        if not instance.alive:
            return
        told.note(instance, event)
        status: EngineStatus = instance.engine.status()
        name = f"{instance.name} says {status}"
        life = (instance.number, instance.life)
        expect(status.view >= views.get(life, 0), f"{name}: its view has fallen from {views.get(life)}")
        views[life] = status.view
        members = range(trial.members)
        expect(status.leader is None or status.leader in members, f"{name}: the leader is no member")
        expect(all(one in members for one in status.waiting_on), f"{name}: it waits for somebody who is no member")
        expect(status.mode, f"{name}: it does not say what it is doing")
        expect(status.position == len(instance.log), f"{name}: the last position is {len(instance.log)}")

    return look


PROPERTIES = (
    Property(
        "armed",
        "liveness",
        "A timer is armed whenever work is pending.",
        armed,
        rough,
    ),
    Property(
        "under-loss",
        "liveness",
        "Work gets done while a fifth of all messages gets lost.",
        alive,
        under_loss,
    ),
    Property(
        "without-leader",
        "liveness",
        "As many members as may fail, leaders among them, may go for good: the others go on.",
        alive,
        with_gone,
        needs_faults=True,
    ),
    Property(
        "heals",
        "liveness",
        "After the network has healed, work gets done within a bound that does not grow with the time it took.",
        alive,
        long_cut,
    ),
    Property(
        "explains",
        "liveness",
        "`status` says view, leader and position truly, and for what and from whom an engine waits that cannot go on.",
        explains,
        rough,
    ),
)
