"""The clock that everything here reads: monotonic, in whole milliseconds, and the time of day for dates."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; the simulator has its own, and a program may put one in."""

    def now_ms(self) -> int:
        """Return milliseconds since an arbitrary point; it never goes back."""
        ...

    def wall_time(self) -> datetime:
        """Return the date and time of day, with its zone: what certificates are judged by, and nothing else."""
        ...


class SystemClock:
    """The machine's clocks: a step of the wall clock does not touch the monotonic one."""

    def now_ms(self) -> int:
        """Return milliseconds since the machine started."""
        return time.monotonic_ns() // 1_000_000

    def wall_time(self) -> datetime:
        """Return what the machine takes for the date and the time of day."""
        return datetime.now(UTC)
