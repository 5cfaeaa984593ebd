"""The clock that everything here reads: monotonic, in whole milliseconds."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; the simulator has its own."""

    def now_ms(self) -> int:
        """Return milliseconds since an arbitrary point; it never goes back."""
        ...


class MonotonicClock:
    """The machine's monotonic clock: a step of the wall clock does not touch it."""

    def now_ms(self) -> int:
        """Return milliseconds since the machine started."""
        return time.monotonic_ns() // 1_000_000
