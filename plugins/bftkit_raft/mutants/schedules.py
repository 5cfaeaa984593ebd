"""The schedules that most of the broken variants of Raft are looked for in."""

import msgspec

from bftkit.testing.profile import Profile

TERMS = Profile(
    duration_ms=3_000,
    loss=0.1,
    partitions=3,
    cuts=3,
    crashes=4,
    power_cuts=1,
    link_us=(200, 20_000),
    clients=4,
    envelopes=16,
    think_ms=20,
    checkpoint_interval=16,
)
"""Many elections while much is under way."""

CRASHES = msgspec.structs.replace(TERMS, crashes=8, crashes_at_output=4, power_cuts=3, checkpoint_interval=4)
"""Members that come back with what their disks hold, again and again."""

CALM = Profile(clients=4, envelopes=16, think_ms=5)
