"""Leader schedules: everybody's turn comes, and a context has round robin unless told otherwise."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.leaders import RoundRobin
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


@pytest.mark.parametrize("members", [1, 4, 7])
def test_a_context_has_round_robin_by_default(members):
    context = EngineContext(0, membership(members), None, Limits())
    assert context.leaders == RoundRobin(members)


def test_a_context_keeps_the_schedule_that_it_is_given():
    context = EngineContext(0, membership(4), None, Limits(), Always(2))
    assert context.leaders.leader(5) == 2
    assert msgspec.structs.replace(context, own=3).leaders == Always(2)
