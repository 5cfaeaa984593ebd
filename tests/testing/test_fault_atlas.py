"""The atlas leaves as much as it promises, whatever is damaged where it allows it."""

from random import Random

import pytest

from bftkit.testing.fault_atlas import FaultAtlas, Spare, is_memory

SEGMENT = "log/00000000000000000001.log"
MARK = "log/mark.0"
SNAPSHOT = "snapshots/00000000000000000024.snapshot"
PATHS = (SEGMENT, MARK, SNAPSHOT)
SIZES = [(1, 0), (3, 1), (4, 1), (7, 2), (31, 10)]


def whole(atlas, members, path):
    """Members that keep a file."""
    return [member for member in range(members) if not atlas.may_damage(member, path)]


@pytest.mark.parametrize(("members", "budget"), SIZES)
@pytest.mark.parametrize("spare", [Spare.QUORUM, Spare.COPY])
def test_no_more_members_lose_their_memory_than_the_budget_has(members, budget, spare):
    for seed in range(50):
        atlas = FaultAtlas(members, budget, Random(seed), spare=spare)
        assert len(atlas.victims) == budget
        for path in (SEGMENT, MARK):
            assert len(whole(atlas, members, path)) == members - budget
        # Whoever keeps a copy can still be asked for it.
        keepers = whole(atlas, members, SNAPSHOT)
        assert len(keepers) == (1 if spare is Spare.COPY else members - budget)
        assert not set(keepers) & set(atlas.victims)


def test_a_budget_that_liars_have_used_up_leaves_no_victims():
    for seed in range(50):
        atlas = FaultAtlas(7, 2, Random(seed), faulty=(3,))
        assert len(atlas.victims) == 1
        assert 3 not in atlas.victims
        assert atlas.may_damage(3, SEGMENT)
        assert len(whole(atlas, 7, SEGMENT)) == 5
        assert atlas.keeper not in (3, None)
        assert FaultAtlas(7, 2, Random(seed), faulty=(3, 1, 0)).victims == ()


def test_nothing_need_stay_for_a_run_that_may_halt():
    atlas = FaultAtlas(4, 1, Random(1), spare=Spare.NOTHING)
    assert all(whole(atlas, 4, path) == [] for path in PATHS)
    assert atlas.keeper is None


def test_every_member_is_a_victim_for_some_seed():
    assert {FaultAtlas(4, 1, Random(seed)).victims for seed in range(100)} == {(0,), (1,), (2,), (3,)}
    assert {FaultAtlas(4, 1, Random(seed)).keeper for seed in range(100)} == {0, 1, 2, 3}


def test_a_place_is_chosen_where_damage_is_allowed_and_there_is_something():
    disks = [PATHS, PATHS, (), PATHS]
    for seed in range(50):
        atlas = FaultAtlas(4, 1, Random(seed))
        chosen = atlas.choose(disks, Random(seed))
        assert chosen == atlas.choose(disks, Random(seed))
        assert chosen is not None
        member, path = chosen
        assert path in disks[member]
        assert atlas.may_damage(member, path)
        assert path in atlas.damageable(member, reversed(PATHS))
    assert FaultAtlas(4, 0, Random(1), spare=Spare.QUORUM).choose(disks, Random(1)) is None
    drawn = [atlas.choose(disks, Random(seed)) for seed in range(300)]
    victim = atlas.victims[0]
    assert {place[1] for place in drawn if place and place[0] == victim} == set(disks[victim])


def test_only_snapshots_are_held_by_others_too():
    assert [is_memory(path) for path in (*PATHS, "log/lock", "snapshots")] == [True, True, False, True, True]
