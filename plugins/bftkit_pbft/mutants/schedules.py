"""The schedules that most of the broken variants of PBFT are looked for in."""

from bftkit.testing.profile import Profile

VIEWS = Profile(
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
"""Many view changes while much is under way."""


CALM = Profile(clients=4, envelopes=16, think_ms=5)
