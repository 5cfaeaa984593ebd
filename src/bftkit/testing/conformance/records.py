"""What was persisted is enough to be built again from, and to contradict nothing."""

from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import crashes_at_outputs, everybody_crashes, rough


def restarts(trial: Trial) -> None:
    """Play; the group remembers what everybody has signed, and wants everything decided in the end."""
    trial.play()


def rebuilt(trial: Trial) -> None:
    """Build each engine again, twice, from its records: the same comes of it, and no view is forgotten."""
    raises = max((rule.raises_floor or 0 for rule in trial.spec.signing.values()), default=0)
    group = trial.play()
    for instance in group.instances:
        built = []
        for _ in range(2):
            engine = trial.spec.build(instance.context, group.genesis, instance.stable, tuple(instance.records))
            built.append((engine.start(group.now), engine.status()))
        expect(built[0] == built[1], f"{instance.name} is built in two ways from the same records")
        view, signed = built[0][1].view, instance.guard.floor - raises
        expect(view >= signed, f"{instance.name} is in view {view} when built again, and has signed in view {signed}")


PROPERTIES = (
    Property(
        "restarts",
        "records",
        "A member that crashes between any two outputs comes back, contradicts nothing it signed, and goes on.",
        restarts,
        crashes_at_outputs,
        seeds=8,
    ),
    Property(
        "everybody-restarts",
        "records",
        "All members may crash at once: what they had decided stands, and they go on.",
        restarts,
        everybody_crashes,
        seeds=8,
    ),
    Property(
        "rebuilt",
        "records",
        "The records above a stable checkpoint are enough: the same engine comes of them, in no earlier view.",
        rebuilt,
        rough,
    ),
)
