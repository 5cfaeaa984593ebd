"""What goes wrong in a simulated schedule, how often and how badly: fixed, or drawn from a seed.

Swarm testing (Groce et al., "Swarm Testing", ISSTA 2012): each seed enables a random part of the faults
with random rates, because a run with a bit of everything hides what a run with a lot of one thing shows.
"""

from random import Random

import msgspec

from bftkit.errors import ConfigurationError
from bftkit.testing.disk import CrashMode


class Profile(msgspec.Struct, frozen=True):
    """One schedule's environment. Delays are (least, spread) in virtual microseconds."""

    name: str = "calm"
    duration_ms: int = 4_000
    """How long faults may happen; then everything heals."""
    link_us: tuple[int, int] = (200, 1_000)
    """Delay of a message; each link draws its own share of the spread."""
    in_order: bool = True
    """Whether a link keeps the order of messages, as one connection does."""
    loss: float = 0.0
    """Share of messages lost between two members, and between clients and members."""
    duplication: float = 0.0
    """Share of messages that arrive twice."""
    spike: float = 0.0
    """Share of messages that take a hundred times as long."""
    crashes: int = 0
    """Crashes of single members, at any moment."""
    crashes_at_output: int = 0
    """Crashes of single members in the middle of what one step wants done."""
    crashes_in_disk: int = 0
    """Crashes of single members in the middle of an operation of the disk."""
    power_cuts: int = 0
    """Crashes of all members at once."""
    partitions: int = 0
    """Splits of the members into two groups."""
    cuts: int = 0
    """Links that lose everything in one direction."""
    sync_errors: int = 0
    """Syncs of a disk that fail, which stops a member until it is started again."""
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
    encoded: bool = False
    """Whether messages between members pass through their encoding, or by reference."""
    checkpoint_interval: int = 8
    snapshot_positions: int = 24
    """See `ReplicaTuning`: small, so that snapshots, trimming and state transfer happen."""
    segment_bytes: int = 16_384
    """Length of a segment of the log."""

    @property
    def faults(self) -> int:
        """Count the single faults that will happen."""
        return (
            self.crashes
            + self.crashes_at_output
            + self.crashes_in_disk
            + self.power_cuts
            + self.partitions
            + self.cuts
            + self.sync_errors
        )


CALM = Profile()
"""Nothing goes wrong."""

PROFILES = ("calm", "network", "crash", "all")
"""Names that `draw_profile` knows."""

_NETWORK = ("loss", "duplication", "spike", "reorder", "partitions", "cuts")
_CRASH = ("crashes", "crashes_at_output", "crashes_in_disk", "power_cuts", "sync_errors", "slow_disk", "slow_apply")


def draw_profile(name: str, random: Random) -> Profile:
    """Draw an environment: a random part of the faults that the name stands for; ConfigurationError for no name."""
    if name not in PROFILES:
        raise ConfigurationError(f"there is no profile {name!r}: say one of {', '.join(PROFILES)}")
    classes = {"calm": (), "network": _NETWORK, "crash": _CRASH, "all": _NETWORK + _CRASH}[name]
    on = {fault: random.random() < 0.5 for fault in classes}

    def rate(fault: str, most: float) -> float:
        return random.random() * most if on.get(fault) else 0.0

    def count(fault: str, most: int) -> int:
        return random.randint(1, most) if on.get(fault) else 0

    spread = random.choice((200, 1_000, 5_000, 20_000))
    slow_disk, slow_apply = on.get("slow_disk"), on.get("slow_apply")
    modes = tuple(mode for mode in CrashMode if random.random() < 0.6) or (CrashMode.TORN,)
    return Profile(
        name=name,
        duration_ms=random.randint(1_000, 5_000) if classes else 1_500,
        link_us=(random.choice((50, 200, 1_000)), spread),
        in_order=not on.get("reorder"),
        loss=rate("loss", 0.25),
        duplication=rate("duplication", 0.2),
        spike=rate("spike", 0.05),
        crashes=count("crashes", 6),
        crashes_at_output=count("crashes_at_output", 5),
        crashes_in_disk=count("crashes_in_disk", 5),
        power_cuts=count("power_cuts", 2),
        partitions=count("partitions", 4),
        cuts=count("cuts", 5),
        sync_errors=count("sync_errors", 3),
        down_ms=(random.choice((1, 20, 100)), random.choice((50, 500, 2_000))),
        crash_modes=modes,
        sync_us=(100, 20_000) if slow_disk else (50, 400),
        apply_us=(20, 50_000) if slow_apply else (10, 200),
        clients=random.randint(1, 4),
        envelopes=random.randint(4, 20),
        think_ms=random.choice((1, 30, 200)),
        repeat=random.choice((0.0, 0.1, 0.5)) if classes else 0.0,
        encoded=random.random() < 0.2,
        checkpoint_interval=random.choice((2, 4, 8, 16)),
        snapshot_positions=random.choice((4, 16, 64)),
        segment_bytes=random.choice((4_096, 16_384, 131_072)),
    )
