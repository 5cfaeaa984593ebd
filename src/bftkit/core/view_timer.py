"""How long to wait for a leader: doubling while views fail, back to the base after progress."""

import msgspec


class ViewTimer(msgspec.Struct):
    """Policy of the view timeout, in milliseconds.

    The cap bounds how long the group needs after a fault has healed, however long the fault lasted.
    """

    base_ms: int
    """Timeout of a view after progress."""
    cap_factor: int = 8
    """The timeout never exceeds this many times the base."""
    failures: int = 0
    """Views in a row that ended without a commit."""

    @property
    def timeout_ms(self) -> int:
        """Return how long to wait now."""
        return self.base_ms * min(self.cap_factor, 1 << min(self.failures, 16))

    def failed(self) -> None:
        """Note that a view ended without progress."""
        self.failures += 1

    def progressed(self) -> None:
        """Note a commit."""
        self.failures = 0
