"""Leader schedules: everybody's turn comes, and a context has round robin unless told otherwise."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.leaders import MAX_WEIGHT, InTurn, RoundRobin, schedule_of, weighted_order
from bftkit.core.membership import Member, Membership
from bftkit.core.quorum import FaultModel


class Always(msgspec.Struct, frozen=True):
    """One member leads for ever."""

    member: int

    def leader(self, view: int) -> int:
        return self.member


def membership(members: int) -> Membership:
    keys = [bytes([index]) * 32 for index in range(members)]
    return Membership(tuple(Member(f"n{index}", key) for index, key in enumerate(keys)), FaultModel.BYZANTINE)


@given(st.integers(1, 31), st.integers(0, 2**53))
def test_within_n_views_each_member_leads_once(members, view):
    schedule = RoundRobin(members)
    assert schedule.leader(0) == 0
    assert sorted(schedule.leader(view + step) for step in range(members)) == list(range(members))


@given(st.lists(st.integers(1, MAX_WEIGHT), min_size=1, max_size=10))
def test_each_member_leads_as_often_as_its_weight_says(weights):
    order = weighted_order(weights)
    assert [order.count(who) for who in range(len(weights))] == weights
    schedule = schedule_of(weights)
    assert [schedule.leader(view) for view in range(2 * len(order))] == [*order, *order]


@given(st.lists(st.integers(1, MAX_WEIGHT), min_size=4, max_size=7))
def test_no_member_leads_for_long_without_a_break(weights):
    order = weighted_order(weights) * 2
    longest = 0
    for who in range(len(weights)):
        run = 0
        for leader in order:
            run = run + 1 if leader == who else 0
            longest = max(longest, run)
    assert longest <= MAX_WEIGHT // 2


def test_the_heaviest_leads_first_and_equal_ones_in_turn():
    assert weighted_order([1, 3, 1]) == (1, 0, 1, 2, 1)
    assert schedule_of([2, 2, 2, 2]) == RoundRobin(4)
    assert schedule_of([1, 2, 1]) == InTurn((1, 0, 2, 1))


@pytest.mark.parametrize("weight", [0, MAX_WEIGHT + 1])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match="between 1 and 8"):
        schedule_of([1, 1, weight])


def test_a_context_follows_the_weights_of_its_members():
    members = membership(4).members
    heavy = Membership((msgspec.structs.replace(members[0], weight=3), *members[1:]), FaultModel.BYZANTINE)
    context = EngineContext(0, heavy, None, Limits())
    assert [context.leaders.leader(view) for view in range(6)] == list(weighted_order([3, 1, 1, 1]))


@pytest.mark.parametrize("members", [1, 4, 7])
def test_a_context_has_round_robin_by_default(members):
    context = EngineContext(0, membership(members), None, Limits())
    assert context.leaders == RoundRobin(members)


def test_a_context_keeps_the_schedule_that_it_is_given():
    context = EngineContext(0, membership(4), None, Limits(), Always(2))
    assert context.leaders.leader(5) == 2
    assert msgspec.structs.replace(context, own=3).leaders == Always(2)
