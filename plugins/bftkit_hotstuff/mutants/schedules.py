"""The schedules that most of the broken variants of HotStuff are looked for in."""

from typing import Any

from bftkit.testing.mutants import Scenarios, Schedules
from bftkit.testing.profile import Profile
from bftkit_hotstuff.config import HotStuffOptions

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

THREE_CHAIN = (("rules", "three_chain"),)
"""The option of the rules that know a lock."""

CALM = Profile(clients=4, envelopes=16, think_ms=5)


def aimed(**options: Any) -> Scenarios:
    """Look where views lose proposals, votes or timeouts at single instances, beside one member with two."""
    losses = ("", "votes", "view changes", "proposals")
    return Scenarios("hotstuff", losses=losses, aimed=True, views=4, count=3_000, options=HotStuffOptions(**options))


def calm(**fields: Any) -> Schedules:
    """Look where nothing goes wrong but what a liar does."""
    return Schedules("hotstuff", profile=CALM, **fields)


def rough(**fields: Any) -> Schedules:
    """Look where many rounds fail."""
    return Schedules("hotstuff", profile=ROUNDS, **fields)
