"""Thresholds: two quorums share a correct member, and the correct ones alone are a quorum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.quorum import FaultModel, Quorum, members_needed

sizes = st.integers(1, 10_000)


@given(sizes)
def test_two_byzantine_quorums_share_a_correct_member(members):
    quorum = Quorum.of(FaultModel.BYZANTINE, members)
    assert 2 * quorum.quorum - members > quorum.faults


@given(sizes)
def test_the_correct_members_alone_are_a_quorum(members):
    for model in FaultModel:
        quorum = Quorum.of(model, members)
        assert members - quorum.faults >= quorum.quorum


@given(sizes)
def test_a_byzantine_quorum_is_no_larger_than_it_must_be(members):
    quorum = Quorum.of(FaultModel.BYZANTINE, members)
    assert 2 * (quorum.quorum - 1) - members <= quorum.faults


@given(sizes)
def test_a_weak_set_has_a_correct_member(members):
    for model in FaultModel:
        quorum = Quorum.of(model, members)
        lying = quorum.faults if model is FaultModel.BYZANTINE else 0
        assert quorum.weak > lying


@given(sizes)
def test_two_majorities_share_a_member(members):
    assert 2 * Quorum.of(FaultModel.CRASH, members).quorum > members


@pytest.mark.parametrize(
    ("members", "faults", "quorum"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (10, 3, 7), (31, 10, 21)],
)
def test_byzantine_thresholds_of_small_groups(members, faults, quorum):
    assert Quorum.of(FaultModel.BYZANTINE, members) == Quorum(members, faults, quorum, faults + 1)


@given(st.integers(0, 100), st.sampled_from(FaultModel))
def test_the_members_needed_for_some_faults_are_enough_and_not_too_many(faults, model):
    needed = members_needed(model, faults)
    assert Quorum.of(model, needed).faults == faults
    assert needed == 1 or Quorum.of(model, needed - 1).faults < faults


def test_nobody_is_no_group():
    with pytest.raises(ValueError, match="at least one"):
        Quorum.of(FaultModel.BYZANTINE, 0)
