"""Slots and slot epochs on the wall clock, in integers, for what is scheduled by time.

A slot is a fixed number of milliseconds, a *slot epoch* a fixed number of slots; both are counted from one instant that
all members know. (An epoch without "slot" is something else in this library: one configuration of a group.) Everything
is one multiplication or one floor division away from the clock, so nothing accumulates and nothing drifts.
"""

import msgspec

from bftkit.errors import ConfigurationError


class SlotClock(msgspec.Struct, frozen=True, kw_only=True):
    """Convert between wall-clock milliseconds, slot numbers and slot epochs.

    Instants before `origin_ms` fall into slots of negative number, so that the arithmetic has no special case.
    """

    origin_ms: int
    """Where slot 0 starts, in milliseconds since the Unix epoch."""
    slot_ms: int
    """How long a slot lasts, in milliseconds, at least 1."""
    slots_per_epoch: int = 1
    """How many slots make a slot epoch, at least 1."""

    def __post_init__(self) -> None:
        if self.slot_ms < 1 or self.slots_per_epoch < 1:
            raise ConfigurationError(
                f"a slot lasts at least 1 ms and an epoch at least 1 slot, "
                f"not {self.slot_ms} ms and {self.slots_per_epoch} slots"
            )

    def slot_at(self, now_ms: int) -> int:
        """Return the number of the slot that contains this instant."""
        return (now_ms - self.origin_ms) // self.slot_ms

    def start_of(self, slot: int) -> int:
        """Return the first millisecond of a slot."""
        return self.origin_ms + slot * self.slot_ms

    def until_next_ms(self, now_ms: int) -> int:
        """Return the milliseconds until the next slot starts: from 1 to `slot_ms`, never 0."""
        return self.slot_ms - (now_ms - self.origin_ms) % self.slot_ms

    def until_slot_ms(self, slot: int, now_ms: int) -> int:
        """Return the milliseconds until a slot starts, or 0 if it has started."""
        return max(0, self.start_of(slot) - now_ms)

    def epoch_of(self, slot: int) -> int:
        """Return the slot epoch that contains a slot."""
        return slot // self.slots_per_epoch

    def first_slot(self, epoch: int) -> int:
        """Return the first slot of a slot epoch."""
        return epoch * self.slots_per_epoch

    def align(self, slot: int) -> int:
        """Return the first slot of a slot epoch that is not before this slot."""
        return -(-slot // self.slots_per_epoch) * self.slots_per_epoch

    def next_aligned(self, now_ms: int) -> int:
        """Return the first slot of a slot epoch that starts at or after this instant."""
        return self.align(-(-(now_ms - self.origin_ms) // self.slot_ms))
