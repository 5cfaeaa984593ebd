"""Leader schedules: everybody's turn comes, and a context has round robin unless told otherwise."""

from itertools import combinations, product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.leaders import MAX_WEIGHT, InTurn, RoundRobin, schedule_of, weighted_order, weights_problem
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


# --- Weights with which a few silent members could stop the others ---------------------------------------------------


def may_stop(weights, faults: int, successive: int) -> bool:
    """The same, said plainly: try each set of silent members, and each run of turns."""
    order = weighted_order(weights)
    turns = order * (successive + 1)
    runs = [set(turns[first : first + successive]) for first in range(len(order))]
    return any(all(run & set(silent) for run in runs) for silent in combinations(range(len(weights)), faults))


@pytest.mark.parametrize("successive", [1, 2, 3])
def test_all_weights_of_four_are_judged_as_if_each_set_of_silent_members_was_tried(successive):
    for weights in product(range(1, MAX_WEIGHT + 1), repeat=4):
        assert (weights_problem(weights, 1, successive) is not None) is may_stop(weights, 1, successive), weights


@given(st.lists(st.integers(1, MAX_WEIGHT), min_size=4, max_size=7), st.integers(1, 4), st.data())
def test_weights_are_judged_as_if_each_set_of_silent_members_was_tried(weights, successive, data):
    faults = data.draw(st.integers(0, (len(weights) - 1) // 2))
    problem = weights_problem(weights, faults, successive)
    assert (problem is not None) is may_stop(weights, faults, successive)
    if problem is not None and "no weights" not in problem:
        proposed = [int(weight) for weight in problem.split("decided; ")[1].split(" would do")[0].split(", ")]
        assert not may_stop(proposed, faults, successive)


@pytest.mark.parametrize("members", range(1, 101))
def test_equal_weights_always_leave_chains_of_three_to_those_who_are_alive(members):
    faults = (members - 1) // 3
    for weight in (1, 5):
        assert weights_problem([weight] * members, faults, 3) is None
    assert weights_problem([1] * members, (members - 1) // 2, 1) is None


def test_a_member_that_leads_half_the_time_stands_between_all_others():
    assert weights_problem([4, 1, 1, 1], 1, 2) == (
        "the weights 4, 1, 1, 1 let 1 silent member leave no 2 successive views to the others: "
        "nothing would be decided; 3, 1, 1, 1 would do"
    )
    assert weights_problem([3, 1, 1, 1], 1, 2) is None
    assert "2, 1, 1, 1 would do" in str(weights_problem([3, 1, 1, 1], 1, 3))
    assert weights_problem([8, 1, 1, 1], 1, 1) is None
    assert "no weights would do" in str(weights_problem([1, 1, 1, 1], 1, 4))


def test_many_members_with_uneven_weights_are_judged_soon():
    weights = [1 + number * number % MAX_WEIGHT for number in range(100)]
    assert weights_problem(weights, 33, 3) is None
