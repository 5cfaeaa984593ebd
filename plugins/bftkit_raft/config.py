"""The options of Raft."""

import msgspec

from bftkit.core.engine import MAX_WINDOW_CHECKPOINTS

MAX_TIMEOUT_MS = 3_600_000
"""No timeout is longer than an hour."""

HEARTBEATS_PER_TIMEOUT = 10
"""An election timeout is at least so many heartbeats long: broadcast time << election timeout (Raft §3.9)."""


class RaftOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set; all members of an epoch share it. ValueError where a value is out of range."""

    election_timeout_ms: int = 600
    """T: without a word of a leader, a member stands for election after T to 2 T."""
    heartbeat_ms: int = 50
    """How often a leader is heard; at most a tenth of the election timeout."""
    in_flight: int = 16
    """Entries that a leader has appended and not committed."""
    batches_per_entry: int = 16
    """Batches that one entry orders at most."""
    uncommitted_bytes: int = 67_108_864
    """Bytes of batches in entries that are not committed, above which a leader appends nothing more."""
    entries_per_message: int = 64
    """Entries that one AppendEntries carries at most."""
    peer_messages: int = 64
    """AppendEntries with entries that one follower has not answered, at most."""
    peer_bytes: int = 1_048_576
    """Bytes of entries, without the bodies, that are on their way to one follower, at most."""
    relay_delay_ms: int | None = None
    """How long a batch may wait here before the leader is offered it; a quarter of the election timeout by default."""
    waiting_reads: int = 4_096
    """Reads that may wait for a leader or for its confirmation; more of them are dropped."""
    lease_reads: bool = False
    """Whether a leader answers reads by its clock while a quorum has heard it lately, without asking again.

    That is correct only while no member's clock gains or loses more than `clock_drift_percent` (Raft §6.4.1)."""
    clock_drift_percent: int = 10
    """How much the rate of any clock may be off, for reads by lease."""
    window_factor: int = 4
    """Positions above the stable checkpoint that may be ordered, in checkpoint intervals."""

    def __post_init__(self) -> None:
        ranges = {
            "election_timeout_ms": (self.election_timeout_ms, HEARTBEATS_PER_TIMEOUT, MAX_TIMEOUT_MS),
            "heartbeat_ms": (self.heartbeat_ms, 1, self.election_timeout_ms // HEARTBEATS_PER_TIMEOUT),
            "in_flight": (self.in_flight, 1, 1_024),
            "batches_per_entry": (self.batches_per_entry, 1, 64),
            "uncommitted_bytes": (self.uncommitted_bytes, 1, 1 << 34),
            "entries_per_message": (self.entries_per_message, 1, 1_024),
            "peer_messages": (self.peer_messages, 1, 1_024),
            "peer_bytes": (self.peer_bytes, 1, 1 << 30),
            "relay_delay_ms": (self.relay_after_ms, 0, MAX_TIMEOUT_MS),
            "waiting_reads": (self.waiting_reads, 1, 1_000_000),
            "clock_drift_percent": (self.clock_drift_percent, 0, 50),
            "window_factor": (self.window_factor, 2, MAX_WINDOW_CHECKPOINTS),
        }
        for name, (value, lowest, highest) in ranges.items():
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value}, not between {lowest} and {highest}")

    @property
    def relay_after_ms(self) -> int:
        """Return how long a batch waits before it is offered to the leader."""
        return self.election_timeout_ms // 4 if self.relay_delay_ms is None else self.relay_delay_ms

    @property
    def lease_ms(self) -> int:
        """Return how long a leader may rely on a follower's silence, by its own clock, from when it spoke to it.

        The follower waits T by a clock that may be fast, the leader counts by one that may be slow.
        """
        drift = self.clock_drift_percent
        return self.election_timeout_ms * (100 - drift) // (100 + drift)

    @property
    def silence_ms(self) -> int:
        """Return how long a restarted member neither votes nor stands for election, with leases.

        It may have answered a heartbeat just before it stopped, and no longer knows: one longest election
        timeout, and the drift of its clock.
        """
        return 2 * self.election_timeout_ms * (100 + self.clock_drift_percent) // 100
