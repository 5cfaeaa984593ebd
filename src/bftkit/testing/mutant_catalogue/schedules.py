"""The schedules that most of the broken variants of the library are looked for in."""

from bftkit.testing.disk import CrashMode
from bftkit.testing.profile import Profile

CRASHES = Profile(
    crashes=6,
    crashes_at_output=6,
    crashes_in_disk=4,
    power_cuts=3,
    crash_modes=(CrashMode.NOTHING, CrashMode.TORN, CrashMode.REORDERED),
    clients=3,
    envelopes=16,
    think_ms=20,
    sync_us=(100, 20_000),
    checkpoint_interval=2,
    snapshot_positions=4,
    segment_bytes=4_096,
)
"""Members that crash all the time, with snapshots and trimming in between."""


SPLIT = Profile(partitions=6, cuts=4, down_ms=(500, 1_000), clients=4, envelopes=16, think_ms=10)


REPEATING = Profile(repeat=1.0, clients=4, envelopes=16, think_ms=5, two_faced=0.3)


BUSY = Profile(
    clients=4,
    envelopes=40,
    think_ms=10,
    checkpoint_interval=2,
    snapshot_positions=4,
    segment_bytes=4_096,
)
"""Much to do, and little to keep."""


AWAY = Profile(
    crashes=2,
    down_ms=(2_000, 1_000),
    clients=4,
    envelopes=40,
    think_ms=10,
    checkpoint_interval=2,
    snapshot_positions=4,
    segment_bytes=4_096,
)
"""Members that are away for so long that they need a state."""


READING = Profile(
    crashes=8,
    power_cuts=3,
    down_ms=(1, 50),
    apply_us=(20, 50_000),
    clients=4,
    envelopes=30,
    think_ms=10,
    reads=1.0,
    checkpoint_interval=2,
)
"""Members that come back with a state that lags behind what was acknowledged, and clients that read all the time."""


LYING = Profile(liars=1, clients=3, envelopes=12, think_ms=20, reads=1.0)
"""A member that lies to clients too."""


CROWDED = Profile(
    clients=8,
    envelopes=10,
    think_ms=50,
    max_sessions=1,
    link_us=(200, 20_000),
    apply_us=(20, 50_000),
)
"""More clients than sessions: whoever opens one takes it from somebody."""
