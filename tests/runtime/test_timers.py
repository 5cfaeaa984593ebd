"""The heap of timers does what a plain dictionary of deadlines would do, in bounded space."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bftkit.runtime.timers import COMPACTION_FLOOR, TimerHeap, draw

KEYS = st.sampled_from(["view", "batch", "retry", ("watch", 1), ("watch", 2)])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("cancel"), KEYS),
        st.tuples(st.just("pop"), st.integers(0, 60)),
    ),
    max_size=200,
)


class NaiveTimers:
    """The same by searching through everything."""

    def __init__(self):
        self.deadlines: dict = {}

    def set(self, key, deadline_ms):
        self.deadlines.pop(key, None)
        self.deadlines[key] = deadline_ms

    def cancel(self, key):
        return self.deadlines.pop(key, None) is not None

    def pop_due(self, now_ms):
        # The sort is stable and a dictionary keeps the order of setting.
        due = sorted((key for key in self.deadlines if self.deadlines[key] <= now_ms), key=self.deadlines.__getitem__)
        for key in due:
            del self.deadlines[key]
        return due

    def next_deadline(self):
        return min(self.deadlines.values(), default=None)


@given(OPERATIONS)
def test_the_heap_equals_the_search(operations):
    clever: TimerHeap = TimerHeap()
    naive = NaiveTimers()
    for operation, *arguments in operations:
        match operation:
            case "set":
                clever.set(*arguments)
                naive.set(*arguments)
            case "cancel":
                assert clever.cancel(*arguments) == naive.cancel(*arguments)
            case "pop":
                assert clever.pop_due(*arguments) == naive.pop_due(*arguments)
        assert clever.next_deadline() == naive.next_deadline()
        assert len(clever) == len(naive.deadlines)
        assert all(key in clever for key in naive.deadlines)


def test_a_timer_that_is_moved_ever_again_takes_bounded_space():
    timers: TimerHeap[str] = TimerHeap()
    for key in "abc":
        timers.set(key, 1_000_000)
    for deadline in range(10_000):
        timers.set("view", deadline)
        assert len(timers._heap) <= 2 * len(timers) + COMPACTION_FLOOR + 1
    assert timers.pop_due(9_998) == []
    assert timers.pop_due(9_999) == ["view"]


def test_cancelled_timers_take_bounded_space():
    timers: TimerHeap[int] = TimerHeap()
    for key in range(1000):
        timers.set(key, key)
    for key in range(1000):
        assert timers.cancel(key)
        assert len(timers._heap) <= 2 * len(timers) + COMPACTION_FLOOR + 1
    assert not timers.cancel(0)
    assert timers.next_deadline() is None


def test_keys_that_cannot_be_compared_may_share_a_deadline():
    timers: TimerHeap = TimerHeap()
    timers.set(1, 5)
    timers.set("one", 5)
    assert timers.pop_due(5) == [1, "one"]


@given(st.integers(0, 1000), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_jitter_only_lengthens_a_delay(delay_ms, jitter_ms, random):
    assert delay_ms <= draw(delay_ms, jitter_ms, random) <= delay_ms + jitter_ms


def test_jitter_reaches_both_ends():
    random = Random(0)
    assert {draw(10, 2, random) for _ in range(100)} == {10, 11, 12}
