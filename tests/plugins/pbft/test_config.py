"""The options of PBFT."""

import msgspec
import pytest

from bftkit_pbft.config import PbftOptions


def test_delays_follow_the_view_timeout_unless_set():
    assert PbftOptions(view_timeout_ms=400).retransmit_delay_ms == 100
    assert PbftOptions(view_timeout_ms=400).relay_after_ms == 100
    assert PbftOptions(retransmit_ms=7, relay_delay_ms=0).retransmit_delay_ms == 7
    assert PbftOptions(retransmit_ms=7, relay_delay_ms=0).relay_after_ms == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"in_flight": 0},
        {"batches_per_proposal": 0},
        {"view_timeout_ms": 0},
        {"timeout_cap_factor": 9},
        {"retransmit_ms": 0},
        {"relay_delay_ms": -1},
        {"window_factor": 1},
    ],
)
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        PbftOptions(**setting)
    with pytest.raises(msgspec.ValidationError, match=next(iter(setting))):
        msgspec.convert(setting, PbftOptions)


def test_unknown_options_are_refused():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"in_fligth": 3}, PbftOptions)
