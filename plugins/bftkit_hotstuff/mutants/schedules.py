"""The schedules that most of the broken variants of HotStuff are looked for in."""

from typing import Any

from bftkit.testing.mutants import Schedules
from bftkit.testing.profile import Profile

ROUNDS = Profile(
    duration_ms=3_000,
    loss=0.1,
    partitions=3,
    cuts=3,
    crashes=3,
    link_us=(200, 20_000),
    clients=4,
    envelopes=16,
    think_ms=20,
    checkpoint_interval=16,
)
"""Many rounds that fail while much is under way."""

CALM = Profile(clients=4, envelopes=16, think_ms=5)


def calm(**fields: Any) -> Schedules:
    """Look where nothing goes wrong but what a liar does."""
    return Schedules("hotstuff", profile=CALM, **fields)


def rough(**fields: Any) -> Schedules:
    """Look where many rounds fail."""
    return Schedules("hotstuff", profile=ROUNDS, **fields)
