"""The view timeout: doubling, capped, back to the base after progress."""

from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.view_timer import ViewTimer


@given(st.integers(1, 10_000), st.integers(1, 8), st.integers(0, 10_000))
def test_the_timeout_doubles_up_to_its_cap(base, factor, failures):
    timer = ViewTimer(base, factor)
    before = timer.timeout_ms
    assert before == base
    for _ in range(min(failures, 20)):
        timer.failed()
        assert timer.timeout_ms == min(2 * before, base * factor)
        before = timer.timeout_ms
    timer.failures = failures
    assert base <= timer.timeout_ms <= base * factor
    timer.progressed()
    assert timer.timeout_ms == base
