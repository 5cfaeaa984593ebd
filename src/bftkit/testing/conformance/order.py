"""One order, the same everywhere, without a gap, whatever the network does."""

from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import calm, repeated, rough


def ordered(trial: Trial) -> None:
    """Play; the group compares decisions, and wants everything decided in the end."""
    trial.play()


def once(trial: Trial) -> None:
    """Play, and count how often each batch was decided."""
    for instance in trial.play().instances:
        refs = [ref for entry in instance.log for ref in entry.refs]
        expect(len(refs) == len(set(refs)), f"{instance.name} has decided a batch twice")


PROPERTIES = (
    Property(
        "ordered",
        "order",
        "Members decide the same batches at the same positions, without a gap, whatever gets lost or cut.",
        ordered,
        rough,
    ),
    Property(
        "calm",
        "order",
        "While nothing goes wrong, each batch is decided, and only once.",
        once,
        calm,
    ),
    Property(
        "repetition",
        "order",
        "Messages that come twice and out of order do no harm: each batch is decided, and only once.",
        once,
        repeated,
    ),
)
