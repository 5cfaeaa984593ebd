"""What goes wrong in a simulated schedule, how often and how badly: fixed, or drawn from a seed.

Swarm testing (Groce et al., "Swarm Testing", ISSTA 2012): each seed enables a random part of the faults
with random rates, because a run with a bit of everything hides what a run with a lot of one thing shows.
"""

from random import Random
from typing import Any

import msgspec

from bftkit.errors import ConfigurationError
from bftkit.testing.disk import CrashMode
from bftkit.testing.fault_atlas import Spare


class Profile(msgspec.Struct, frozen=True):
    """One schedule's environment. Delays are (least, spread) in virtual microseconds."""

    name: str = "calm"
    duration_ms: int = 4_000
    """How long faults may happen; then everything heals."""
    link_us: tuple[int, int] = (200, 1_000)
    """Delay of a message; each link draws its own share of the spread."""
    in_order: bool = True
    """Whether a link keeps the order of messages, as one connection does."""
    adversarial: bool = False
    """Whether an adversary picks what happens next, whatever the time: see `AdversarialHeap`."""
    loss: float = 0.0
    """Share of messages lost between two members, and between clients and members."""
    duplication: float = 0.0
    """Share of messages that arrive twice."""
    spike: float = 0.0
    """Share of messages that take a hundred times as long."""
    replay: float = 0.0
    """Share of messages that bring an old one of the same link with them, of whatever session."""
    corruption: float = 0.0
    """Share of frames that are changed or cut on their way; for encoded messages only."""
    partitions: int = 0
    """Splits of the members into two groups."""
    partial_partitions: int = 0
    """Splits of some members into two groups that the others still connect."""
    cuts: int = 0
    """Links that lose everything in one direction."""
    flaps: int = 0
    """Pairs whose connection comes and goes, about as fast as views time out."""
    clogs: int = 0
    """Rounds in which links stop one by one, lose nothing, and are released in random order."""
    throttles: int = 0
    lost_bulk: int = 0
    """Links over which each message takes its time."""
    resets: int = 0
    """Connections that break and are made again."""
    crashes: int = 0
    """Crashes of single members, at any moment."""
    crashes_at_output: int = 0
    """Crashes of single members in the middle of what one step wants done."""
    crashes_in_disk: int = 0
    """Crashes of single members in the middle of an operation of the disk."""
    crashes_in_recovery: int = 0
    """Crashes of single members that happen again, several times, while they start."""
    crash_loops: int = 0
    """Members that crash again and again for a while."""
    power_cuts: int = 0
    """Crashes of all members at once."""
    failpoints: int = 0
    """Crashes of single members at a place that has a name, see `bftkit.runtime.failpoints`."""
    sync_errors: int = 0
    """Syncs of a disk that fail, which stops a member until it is started again."""
    full_disks: int = 0
    """Disks without space for a while."""
    stalled_disks: int = 0
    """Disks whose syncs, reads or writes take up to two seconds for a while."""
    short_writes: int = 0
    """Writes that fail in the middle, which stops a member until it is started again."""
    io_errors: int = 0
    """Reads, writes and changes of names that fail, which stops a member likewise."""
    rot: int = 0
    """Members whose disk loses or mixes up what it held, as far as `FaultAtlas` allows it."""
    spare: Spare = Spare.QUORUM
    """What no disk may lose. With `Spare.NOTHING` the group need not stay live once something was lost."""
    pauses: int = 0
    """Members that stand still for a while and then go on as if nothing had been."""
    clock_leaps: int = 0
    """Clocks that go forward at once."""
    late_timers: float = 0.0
    """Share of timers that run out up to ten times too late."""
    clock_rates: tuple[int, ...] = (1_000,)
    """What clocks count in a thousand microseconds; one is drawn for each member."""
    liars: int = 0
    """Members that do as they like; never more than the engine claims to tolerate, with the rotten ones."""
    twins: bool = False
    """Whether the first liar is two honest instances with one key instead."""
    down_ms: tuple[int, int] = (20, 800)
    """How long a member stays down, or a link stays cut: least and spread in milliseconds."""
    crash_modes: tuple[CrashMode, ...] = (CrashMode.TORN,)
    """What crashes leave of writes that were not synced; one is drawn for each."""
    sync_us: tuple[int, int] = (100, 400)
    """How long a sync of the log takes."""
    apply_us: tuple[int, int] = (20, 200)
    """How long a visit to the application takes."""
    clients: int = 3
    envelopes: int = 12
    """Requests of each client, beside the one for its session."""
    think_ms: int = 100
    """Longest pause of a client between two requests."""
    repeat: float = 0.0
    """Share of requests that a client sends to several members at once, though nobody was slow."""
    reads: float = 0.0
    """Share of moments at which a client sends a request and reads besides."""
    two_faced: float = 0.0
    """Share of requests of which a client sends other commands under the same sequences to other members."""
    encoded: bool = False
    """Whether messages between members pass through their encoding, or by reference."""
    real_signatures: bool = False
    """Whether signatures are Ed25519, or tags that cost nothing and cannot be forged."""
    checkpoint_interval: int = 8
    snapshot_positions: int = 24
    """See `ReplicaTuning`: small, so that snapshots, trimming and state transfer happen."""
    segment_bytes: int = 16_384
    """Length of a segment of the log."""
    max_sessions: int = 0
    """See `Limits`, as the next two; 0 for those of the workload. Fewer than there are clients: sessions get lost."""
    session_window: int = 0
    """At least as many as the commands of one request."""
    session_reply_bytes: int = 0
    origin_batches: int = 0
    """See `ReplicaTuning`; 0 for its default."""
    collect_requests: int = 0
    """Of the longest requests, how many may wait to be put into a batch; 0 for the default of `ReplicaTuning`."""

    @property
    def faults(self) -> int:
        """Count the single faults that are planned."""
        return sum(getattr(self, kind) for kind in PLANNED)


PLANNED = (
    "crashes",
    "crashes_at_output",
    "crashes_in_disk",
    "crashes_in_recovery",
    "crash_loops",
    "power_cuts",
    "failpoints",
    "sync_errors",
    "full_disks",
    "stalled_disks",
    "short_writes",
    "io_errors",
    "rot",
    "pauses",
    "clock_leaps",
    "partitions",
    "partial_partitions",
    "cuts",
    "flaps",
    "clogs",
    "throttles",
    "lost_bulk",
    "resets",
)
"""Fields of a profile that say how often something happens at a moment that is planned beforehand."""

CALM = Profile()
"""Nothing goes wrong."""

_NETWORK = ("loss", "duplication", "spike", "replay", "corruption", "reorder", "adversarial", "partitions",
            "partial_partitions", "cuts", "flaps", "clogs", "throttles", "lost_bulk", "resets")  # fmt: skip
_CRASH = ("crashes", "crashes_at_output", "crashes_in_disk", "crashes_in_recovery", "crash_loops", "power_cuts",
          "failpoints", "pauses", "slow_apply")  # fmt: skip
_DISK = ("sync_errors", "full_disks", "stalled_disks", "short_writes", "io_errors", "slow_disk", "rot",
         "crashes_in_disk", "power_cuts")  # fmt: skip
_CLOCK = ("late_timers", "clock_rates", "clock_leaps", "pauses")
_BYZANTINE = ("liars", "two_faced")

_CLASSES = {
    "calm": (),
    "network": _NETWORK,
    "crash": _CRASH + _DISK,
    "disk": _DISK,
    "clock": _CLOCK,
    "byzantine": _NETWORK + _BYZANTINE,
    "all": tuple(dict.fromkeys(_NETWORK + _CRASH + _DISK + _CLOCK + _BYZANTINE)),
}

PROFILES = tuple(_CLASSES)
"""Names that `draw_profile` knows."""

_ALWAYS = {"byzantine": ("liars",)}
"""What a profile is never without."""

_SHARES = (0.15, 0.3, 0.5)
"""How many of its faults a seed enables."""

_REAL_SIGNATURES = 100
"""One seed in so many signs with Ed25519."""


def draw_profile(name: str, random: Random) -> Profile:
    """Draw an environment: a random part of the faults that the name stands for; ConfigurationError for no name."""
    if name not in _CLASSES:
        raise ConfigurationError(f"there is no profile {name!r}: say one of {', '.join(PROFILES)}")
    classes = _CLASSES[name]
    share = random.choice(_SHARES)
    always = _ALWAYS.get(name, ())
    on = {fault: random.random() < share or fault in always for fault in classes}

    def rate(fault: str, most: float) -> float:
        return random.random() * most if on.get(fault) else 0.0

    def count(fault: str, most: int) -> int:
        return random.randint(1, most) if on.get(fault) else 0

    counts: dict[str, Any] = {kind: count(kind, most) for kind, most in _MOST.items()}
    rates: dict[str, Any] = {kind: rate(kind, most) for kind, most in _RATES.items()}
    spread = random.choice((200, 1_000, 5_000, 20_000))
    return Profile(
        name=name,
        duration_ms=random.randint(1_000, 4_000) if classes else 1_500,
        link_us=(random.choice((50, 200, 1_000)), spread),
        in_order=not on.get("reorder"),
        adversarial=bool(on.get("adversarial")),
        **rates,
        **counts,
        spare=random.choice((Spare.QUORUM, Spare.COPY, Spare.COPY, Spare.NOTHING)),
        clock_rates=random.choice(((900, 1_100), (990, 1_010), (900, 1_000))) if on.get("clock_rates") else (1_000,),
        liars=random.choice((1, 1, 1, 31)) if on.get("liars") else 0,
        twins=bool(on.get("liars")) and random.random() < 0.2,
        down_ms=(random.choice((1, 20, 100)), random.choice((50, 500, 2_000))),
        crash_modes=tuple(mode for mode in CrashMode if random.random() < 0.6) or (CrashMode.TORN,),
        sync_us=(100, 20_000) if on.get("slow_disk") else (50, 400),
        apply_us=(20, 50_000) if on.get("slow_apply") else (10, 200),
        clients=random.randint(1, 4),
        envelopes=random.randint(4, 16),
        think_ms=random.choice((1, 30, 200)),
        repeat=random.choice((0.0, 0.1, 0.5)) if classes else 0.0,
        encoded=random.random() < 0.1 or rates["corruption"] > 0.0,
        real_signatures=random.randrange(_REAL_SIGNATURES) == 0,
        checkpoint_interval=random.choice((2, 4, 8, 16)),
        snapshot_positions=random.choice((4, 16, 64)),
        segment_bytes=random.choice((4_096, 16_384, 131_072)),
        reads=random.choice((0.0, 0.1, 0.3)),
        **_draw_bounds(random, _SMALL if classes else 0.0),
    )


def _draw_bounds(random: Random, rate: float) -> dict[str, Any]:
    """Draw small bounds for a share of the schedules, so that what happens at a bound does happen."""
    small = random.random() < rate
    return {name: random.choice(values) for name, values in _BOUNDS.items() if small and random.random() < 0.5}


def profile_of(profile: str | Profile, seed: int) -> Profile:
    """Return a fixed profile as it is, or what a seed draws from a name; ConfigurationError for no name."""
    return draw_profile(profile, Random(f"{seed}/profile")) if isinstance(profile, str) else profile


_SMALL = 0.25
"""Share of the schedules whose bounds may be small."""

_BOUNDS = {
    "max_sessions": (2, 3, 4),
    "session_window": (5, 8, 12),
    "session_reply_bytes": (40, 80, 160),
    "origin_batches": (1, 2, 4, 8),
    "collect_requests": (1, 2),
}
"""How small bounds may be."""

_MOST = {
    "crashes": 6,
    "crashes_at_output": 5,
    "crashes_in_disk": 5,
    "crashes_in_recovery": 3,
    "crash_loops": 2,
    "power_cuts": 2,
    "failpoints": 8,
    "sync_errors": 3,
    "full_disks": 3,
    "stalled_disks": 2,
    "short_writes": 3,
    "io_errors": 4,
    "rot": 2,
    "pauses": 4,
    "clock_leaps": 3,
    "partitions": 4,
    "partial_partitions": 3,
    "cuts": 5,
    "flaps": 2,
    "clogs": 2,
    "throttles": 3,
    "lost_bulk": 4,
    "resets": 6,
}
"""How often a planned fault happens at most."""

_RATES = {
    "loss": 0.25,
    "duplication": 0.2,
    "spike": 0.05,
    "replay": 0.1,
    "corruption": 0.02,
    "late_timers": 0.3,
    "two_faced": 0.3,
}
"""How large the share of messages, timers or requests is at most."""
