"""Slots: every instant in exactly one, no drift, no float."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError
from bftkit.runtime.slots import SlotClock

CLOCKS = st.builds(
    SlotClock,
    origin_ms=st.integers(0, 1 << 45),
    slot_ms=st.integers(1, 86_400_000),
    slots_per_epoch=st.integers(1, 10_000),
)
INSTANTS = st.integers(0, 1 << 46)


@given(CLOCKS, INSTANTS)
def test_every_instant_lies_in_its_slot(clock, now_ms):
    slot = clock.slot_at(now_ms)
    assert clock.start_of(slot) <= now_ms < clock.start_of(slot + 1)
    assert clock.until_next_ms(now_ms) == clock.start_of(slot + 1) - now_ms
    assert 1 <= clock.until_next_ms(now_ms) <= clock.slot_ms


@given(CLOCKS, st.integers(-(1 << 40), 1 << 40))
def test_starts_and_slots_are_inverse(clock, slot):
    assert clock.slot_at(clock.start_of(slot)) == slot
    assert clock.slot_at(clock.start_of(slot) - 1) == slot - 1


@given(CLOCKS, st.integers(-(1 << 40), 1 << 40))
def test_alignment_is_the_nearest_start_of_an_epoch_that_is_not_before(clock, slot):
    aligned = clock.align(slot)
    assert slot <= aligned < slot + clock.slots_per_epoch
    assert aligned == clock.first_slot(clock.epoch_of(aligned))
    assert clock.epoch_of(clock.first_slot(clock.epoch_of(slot)) - 1) == clock.epoch_of(slot) - 1


@given(CLOCKS, INSTANTS)
def test_the_next_aligned_slot_has_not_begun_before(clock, now_ms):
    slot = clock.next_aligned(now_ms)
    assert clock.start_of(slot) >= now_ms
    assert clock.start_of(slot) - now_ms < clock.slot_ms * clock.slots_per_epoch
    assert slot % clock.slots_per_epoch == 0


def test_by_hand():
    clock = SlotClock(origin_ms=1_000, slot_ms=400, slots_per_epoch=3)
    assert [clock.slot_at(now) for now in (999, 1_000, 1_399, 1_400)] == [-1, 0, 0, 1]
    assert clock.until_next_ms(1_000) == 400
    assert clock.until_slot_ms(2, 1_500) == 300
    assert clock.until_slot_ms(2, 5_000) == 0
    assert [clock.align(slot) for slot in (0, 1, 3, 4)] == [0, 3, 3, 6]
    assert clock.next_aligned(1_000) == 0
    assert clock.next_aligned(1_001) == 3


def test_a_hundred_years_do_not_drift():
    clock = SlotClock(origin_ms=0, slot_ms=333)
    century_ms = 100 * 365 * 86_400_000
    assert clock.start_of(clock.slot_at(century_ms)) == century_ms // 333 * 333


@pytest.mark.parametrize(("slot_ms", "slots_per_epoch"), [(0, 1), (1, 0), (-5, 1)])
def test_absurd_lengths_are_refused(slot_ms, slots_per_epoch):
    with pytest.raises(ConfigurationError):
        SlotClock(origin_ms=0, slot_ms=slot_ms, slots_per_epoch=slots_per_epoch)
