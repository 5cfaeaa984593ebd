"""What a leader knows of each follower: how far its log is the leader's, and what is on its way (Raft §10.2.1)."""

from collections import deque
from enum import Enum

from bftkit_raft.messages import Entry

ENTRY_BYTES = 8
REF_BYTES = 48
"""About as much take an entry and a reference in a message."""

STALLED_TICKS = 2
"""Heartbeats without a new acknowledgement after which what is on its way counts as lost."""


class Mode(Enum):
    """How a follower is served."""

    PROBE = "probe"
    """Where its log parts from the leader's is not known: one message at a time."""
    REPLICATE = "replicate"
    """Its log is the leader's as far as it goes: entries are sent as they come."""
    SNAPSHOT = "snapshot"
    """It lacks what the leader's log holds no more."""


class Progress:
    """One follower, as its leader sees it; or the leader itself, whose own disk is one more follower."""

    __slots__ = (
        "_bytes",
        "_on_way",
        "asked",
        "commit_sent",
        "heard_at",
        "match",
        "match_at_tick",
        "mode",
        "next",
        "round",
        "round_sent",
        "ticks",
    )

    def __init__(self, next_position: int, now: int) -> None:
        self.mode = Mode.PROBE
        self.match = 0
        """Its log is known to be the leader's, durably, up to here."""
        self.next = next_position
        """The first position that is to be sent next."""
        self.asked = False
        """Whether a probe waits for its answer."""
        self.heard_at = now
        self.round = 0
        """Newest round of the leader that it has answered."""
        self.round_sent = 0
        self.commit_sent = 0
        self.ticks = 0
        """Heartbeats since it acknowledged something new, while something is on its way."""
        self.match_at_tick = 0
        self._on_way: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def sent(self, last: int, size: int) -> None:
        """Note that entries up to a position are on their way."""
        self._on_way.append((last, size))
        self._bytes += size
        self.next = last + 1

    def is_full(self, messages: int, size: int) -> bool:
        """Say whether so many messages or bytes wait for their acknowledgement."""
        return len(self._on_way) >= messages or self._bytes >= size

    def accepted(self, position: int) -> bool:
        """Note that its log is the leader's up to a position; say whether that is new."""
        self.asked = False
        while self._on_way and self._on_way[0][0] <= position:
            self._bytes -= self._on_way.popleft()[1]
        is_new = position > self.match
        if is_new:
            self.match = position
            self.ticks = 0
        if self.mode is not Mode.REPLICATE:
            self.next = self.match + 1
        self.mode = Mode.REPLICATE
        self.next = max(self.next, self.match + 1)
        return is_new

    def probe(self, next_position: int) -> None:
        """Look for the place where its log parts from the leader's: nothing before it counts as under way."""
        self.mode = Mode.PROBE
        self.next = max(next_position, self.match + 1)
        self.asked = False
        self.ticks = 0
        self._on_way.clear()
        self._bytes = 0

    def tick(self) -> None:
        """Note a heartbeat: a probe may be repeated, and what is not acknowledged for long is sent again."""
        self.asked = False
        if self.match == self.match_at_tick and self.next > self.match + 1:
            self.ticks += 1
            if self.ticks >= STALLED_TICKS:
                self.probe(self.match + 1)
        else:
            self.ticks = 0
        self.match_at_tick = self.match


def size_of(entries: tuple[Entry, ...]) -> int:
    """Return about how many bytes entries take in a message."""
    return sum(ENTRY_BYTES + REF_BYTES * len(entry.refs) for entry in entries)
