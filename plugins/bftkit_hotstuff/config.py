"""The options of HotStuff."""

from typing import Literal

import msgspec

from bftkit.core.engine import MAX_WINDOW_CHECKPOINTS

MAX_TIMEOUT_MS = 3_600_000
"""No timeout is longer than an hour."""


class HotStuffOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set; all members of an epoch share it. ValueError where a value is out of range."""

    rules: Literal["jolteon", "three_chain"] = "jolteon"
    """Which rules for voting and committing: Jolteon's (FC'22, two chains), or HotStuff's (PODC'19, three chains)."""
    leaders: Literal["reputation", "round_robin"] = "reputation"
    """Who leads: of all in turn only the ones that voted for what was committed lately, or really all.

    By reputation a member that is down costs one timeout; in turn it costs one each time that it should lead.
    """
    certificates: Literal["ed25519"] = "ed25519"
    """What quorum certificates are made of."""
    batches_per_block: int = 64
    """Batches that one block orders at most."""
    view_timeout_ms: int = 1_000
    """How long a member waits for a round to end before it gives the round up."""
    timeout_cap_factor: int = 8
    """The timeout grows by half with each round that fails in a row, up to this many times itself."""
    retransmit_ms: int | None = None
    """How long to wait before saying something again; a quarter of the timeout by default."""
    relay_delay_ms: int | None = None
    """How long a batch may wait here before the leader is offered it; a quarter of the timeout by default."""
    window_factor: int = 2
    """Heights above the newest stable checkpoint that may be voted for, in checkpoint intervals."""

    def __post_init__(self) -> None:
        ranges = {
            "batches_per_block": (self.batches_per_block, 1, 64),
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
    def longest_timeout_ms(self) -> int:
        """Return how long a round may take at last, where blocks are not piling up."""
        return self.view_timeout_ms * self.timeout_cap_factor

    @property
    def retransmit_delay_ms(self) -> int:
        """Return how long to wait before saying something again."""
        return self.view_timeout_ms // 4 if self.retransmit_ms is None else self.retransmit_ms

    @property
    def relay_after_ms(self) -> int:
        """Return how long a batch waits before it is offered to the leader."""
        return self.view_timeout_ms // 4 if self.relay_delay_ms is None else self.relay_delay_ms
