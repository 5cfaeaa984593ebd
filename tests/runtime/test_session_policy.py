"""How a client behaves towards replicas."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bftkit.runtime.session_policy import SessionPolicy, reopening_pause_ms

POLICY = SessionPolicy(open_retry_ms=250, longest_retry_ms=10_000)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_who_loses_session_after_session_waits_longer_up_to_the_longest_wait(losses, share):
    pause = reopening_pause_ms(POLICY, losses, share)
    assert 0 <= pause < 10_000
    assert pause <= reopening_pause_ms(POLICY, losses + 1, share)


def test_pauses_double_and_the_share_says_how_much_of_one_is_waited():
    assert [reopening_pause_ms(POLICY, losses, 0.5) for losses in (0, 1, 2, 9)] == [125, 250, 500, 5_000]
    assert reopening_pause_ms(POLICY, 3, 0.0) == 0
