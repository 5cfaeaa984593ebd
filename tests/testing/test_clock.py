"""Virtual time."""

from __future__ import annotations

from bftkit.testing.clock import EventHeap, VirtualClock


def test_events_happen_in_order_of_time_and_then_of_scheduling():
    events, seen = EventHeap(), []
    for delay, name in [(5, "c"), (1, "a"), (5, "d"), (2, "b")]:
        events.after(delay, seen.append, name)
    assert not events.run(5)
    assert seen == ["a", "b", "c", "d"]
    assert (events.now_us, events.taken, len(events)) == (5, 4, 0)


def test_what_lies_beyond_waits_and_time_goes_on_to_the_end():
    events, seen = EventHeap(), []
    events.after(10, seen.append, "late")
    events.run(9)
    assert (seen, events.now_us, len(events)) == ([], 9, 1)
    events.run(10)
    assert seen == ["late"]


def test_a_condition_stops_the_run_right_after_the_event_that_fulfils_it():
    events, seen = EventHeap(), []
    for delay in (1, 2, 3):
        events.after(delay, seen.append, delay)
    assert events.run(100, lambda: len(seen) == 2)
    assert (seen, events.now_us) == ([1, 2], 2)


def test_each_clock_has_a_start_of_its_own():
    events = EventHeap()
    one, other = VirtualClock(events, 0), VirtualClock(events, 500)
    events.run(2_999)
    assert (one.now_ms(), other.now_ms()) == (2, 502)


def test_a_fast_clock_counts_more_and_its_delays_are_shorter():
    events = EventHeap()
    fast = VirtualClock(events, 0, 1_100)
    events.run(1_000_000)
    assert fast.now_ms() == 1_100
    assert fast.virtual_us(1_100) == 1_000_000


def test_a_leap_goes_forward_at_once():
    clock = VirtualClock(EventHeap(), 7)
    clock.leap(5_000)
    assert clock.now_ms() == 5_007
