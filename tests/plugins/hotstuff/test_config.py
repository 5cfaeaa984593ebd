"""The options of HotStuff."""

import msgspec
import pytest

from bftkit_hotstuff.certificates import SCHEMES
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.rules import RULES


def test_delays_follow_the_timeout_unless_set():
    assert HotStuffOptions(view_timeout_ms=400).retransmit_delay_ms == 100
    assert HotStuffOptions(view_timeout_ms=400).relay_after_ms == 100
    assert HotStuffOptions(retransmit_ms=7, relay_delay_ms=0).retransmit_delay_ms == 7
    assert HotStuffOptions(retransmit_ms=7, relay_delay_ms=0).relay_after_ms == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"batches_per_block": 0},
        {"batches_per_block": 65},
        {"view_timeout_ms": 0},
        {"timeout_cap_factor": 9},
        {"retransmit_ms": 0},
        {"relay_delay_ms": -1},
        {"window_factor": 1},
    ],
)
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        HotStuffOptions(**setting)


@pytest.mark.parametrize(
    "setting", [{"rules": "four_chain"}, {"leaders": "loudest"}, {"certificates": "none"}, {"x": 1}]
)
def test_what_does_not_exist_is_refused(setting):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(setting, HotStuffOptions)


def test_whatever_can_be_chosen_exists():
    for rules in RULES:
        assert msgspec.convert({"rules": rules}, HotStuffOptions).rules == rules
    for scheme in SCHEMES:
        assert msgspec.convert({"certificates": scheme}, HotStuffOptions).certificates == scheme
