"""The options of PBFT."""

import msgspec

from bftkit.core.engine import MAX_WINDOW_CHECKPOINTS

MAX_TIMEOUT_MS = 3_600_000
"""No timeout is longer than an hour."""


class PbftOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set; all members of an epoch share it. ValueError where a value is out of range."""

    in_flight: int = 8
    """Proposals that a primary has outstanding."""
    batches_per_proposal: int = 16
    """Batches that one proposal orders at most."""
    view_timeout_ms: int = 1_000
    """How long a backup waits for the primary before it asks for the next view."""
    timeout_cap_factor: int = 8
    """The timeout doubles with each view that fails, up to this many times itself."""
    retransmit_ms: int | None = None
    """How long to wait before saying something again; a quarter of the view timeout by default."""
    relay_delay_ms: int | None = None
    """How long a batch may wait here before the primary is offered it; a quarter of the view timeout by default."""
    window_factor: int = 2
    """Length of the window of positions in checkpoint intervals: L = this times K."""

    def __post_init__(self) -> None:
        ranges = {
            "in_flight": (self.in_flight, 1, 1_024),
            "batches_per_proposal": (self.batches_per_proposal, 1, 64),
            "view_timeout_ms": (self.view_timeout_ms, 4, MAX_TIMEOUT_MS),
            "timeout_cap_factor": (self.timeout_cap_factor, 1, 8),
            "retransmit_ms": (self.retransmit_delay_ms, 1, MAX_TIMEOUT_MS),
            "relay_delay_ms": (self.relay_after_ms, 0, MAX_TIMEOUT_MS),
            "window_factor": (self.window_factor, 2, MAX_WINDOW_CHECKPOINTS),
        }
        for name, (value, lowest, highest) in ranges.items():
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value}, not between {lowest} and {highest}")

    @property
    def retransmit_delay_ms(self) -> int:
        """Return how long to wait before saying something again."""
        return self.view_timeout_ms // 4 if self.retransmit_ms is None else self.retransmit_ms

    @property
    def relay_after_ms(self) -> int:
        """Return how long a batch waits before it is offered to the primary."""
        return self.view_timeout_ms // 4 if self.relay_delay_ms is None else self.relay_delay_ms
