"""Scenarios for twins: counted as Burnside says, numbered without gap or repetition, and the same as text."""

from itertools import permutations, product
from math import factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.testing.twins_scenarios import (
    LOSSES,
    Scenario,
    ScenarioSpace,
    View,
    parse_scenario,
    scenario_text,
)


def renamed(scenario: Scenario, order: tuple[int, ...]) -> Scenario:
    """The scenario with its honest members in another order, blocks counted from that of the first instance."""
    honest = range(scenario.twins, scenario.members)
    to = list(range(scenario.instances))
    for place, member in zip(honest, order, strict=True):
        to[place] = member
    views = []
    for view in scenario.views:
        blocks = [0] * scenario.instances
        for instance, block in enumerate(view.blocks):
            blocks[to[instance]] = block
        flipped = tuple(block ^ blocks[0] for block in blocks)
        at = None if view.at is None else to[view.at]
        restart = None if view.restart is None else to[view.restart]
        views.append(View(to[view.leader], flipped, view.lost, at, restart))
    return Scenario(scenario.members, scenario.twins, tuple(views))


def orbit(scenario: Scenario) -> list[Scenario]:
    return [renamed(scenario, order) for order in permutations(range(scenario.twins, scenario.members))]


# --- Counting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("views", "scenarios"), [(1, 20), (2, 816), (3, 45_760), (4, 2_829_056)])
def test_four_members_and_one_twin_have_so_many_scenarios(views, scenarios):
    assert (64**views + 3 * 16**views + 2 * 4**views) // 6 == scenarios
    assert ScenarioSpace(4, 1, views).size == scenarios


def test_long_scenarios_are_more_than_a_machine_word_counts():
    space = ScenarioSpace(4, 1, 11)
    assert space.size == (64**11 + 3 * 16**11 + 2 * 4**11) // 6
    assert len(space.scenario(space.size - 1).views) == 11


@pytest.mark.parametrize("views", [1, 2, 3])
def test_enumeration_gives_as_many_different_ones_in_order(views):
    space = ScenarioSpace(4, 1, views)
    found = [space.scenario(index) for index in range(space.size)]
    assert len(set(found)) == space.size
    order = {view: number for number, view in enumerate(one.views[0] for one in all_of(4, 1, 1))}
    keys = [tuple(order[view] for view in one.views) for one in found]
    assert keys == sorted(keys)


def all_of(members: int, twins: int, views: int, losses=("",), aimed=(None,), restarts=(None,)) -> list[Scenario]:
    """Every scenario, named apart."""
    blocks = [(0, *rest) for rest in product((0, 1), repeat=members + twins - 1)]
    each = [
        View(leader, block, lost, at, restart)
        for block, leader, lost, at, restart in product(blocks, range(members), losses, aimed, restarts)
        if lost or at is None
    ]
    return [Scenario(members, twins, one) for one in product(each, repeat=views)]


@pytest.mark.parametrize(
    ("members", "twins", "views", "losses", "aimed", "restarts"),
    [
        (4, 1, 2, ("",), False, False),
        (4, 0, 2, ("",), False, False),
        (3, 1, 2, ("", "votes"), False, True),
        (3, 1, 2, ("votes", ""), True, False),
        (4, 2, 1, LOSSES, True, True),
        (1, 1, 3, ("",), False, False),
        (5, 1, 1, ("",), False, True),
    ],
)
def test_each_scenario_has_one_representative(members, twins, views, losses, aimed, restarts):
    """Small spaces whole: the canonical scenarios' orbits are disjoint, and together everything."""
    space = ScenarioSpace(members, twins, views, losses=losses, aimed=aimed, restarts=restarts)
    anybody = (None, *range(members + twins))
    more = (losses, anybody if aimed else (None,), anybody if restarts else (None,))
    everything = all_of(members, twins, views, *more)
    order = {one.views[0]: number for number, one in enumerate(all_of(members, twins, 1, *more))}
    covered: set[Scenario] = set()
    for index in range(space.size):
        scenario = space.scenario(index)
        same = set(orbit(scenario))
        assert min(same, key=lambda one: [order[view] for view in one.views]) == scenario
        assert factorial(members - twins) % len(same) == 0
        assert not same & covered
        covered |= same
    assert covered == set(everything)


def test_a_number_beyond_the_last_is_an_error():
    space = ScenarioSpace(4, 1, 1)
    for index in (-1, space.size):
        with pytest.raises(IndexError):
            space.scenario(index)


def test_spaces_that_make_no_sense_are_refused():
    for arguments in ((4, 5, 1), (4, 1, 0), (8, 1, 1), (0, 0, 1)):
        with pytest.raises(ValueError, match=r"."):
            ScenarioSpace(*arguments)
    with pytest.raises(ValueError, match="no kind of message"):
        ScenarioSpace(4, 1, 1, losses=("everything",))


# --- Shuffling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_a_shuffled_order_has_everything_once(views, seed):
    space = ScenarioSpace(4, 1, views)
    order = [space.shuffled(index, seed) for index in range(space.size)]
    assert sorted(order) == list(range(space.size))
    assert order != list(range(space.size))
    assert order != [space.shuffled(index, seed + 1) for index in range(space.size)]


def test_long_scenarios_are_shuffled_too():
    space = ScenarioSpace(4, 1, 9)
    assert len({space.shuffled(index, 7) for index in range(1_000)}) == 1_000
    assert all(0 <= space.shuffled(index, 7) < space.size for index in range(1_000))


# --- As text ----------------------------------------------------------------------------------------------------------


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    members = draw(st.integers(1, 7))
    twins = draw(st.integers(0, members))
    instances = members + twins
    views = []
    for _ in range(draw(st.integers(0, 5))):
        # Blocks are numbered in the order of their first instances or not at all: the text names them in any order.
        blocks = draw(st.lists(st.integers(0, 3), min_size=instances, max_size=instances))
        numbers = {block: number for number, block in enumerate(sorted(set(blocks)))}
        anybody = st.none() | st.integers(0, instances - 1)
        leader, lost = draw(st.integers(0, members - 1)), draw(st.sampled_from(LOSSES))
        at = draw(anybody) if lost else None
        views.append(View(leader, tuple(numbers[one] for one in blocks), lost, at, draw(anybody)))
    return Scenario(members, twins, tuple(views))


@given(scenarios())
def test_reading_undoes_writing(scenario):
    assert parse_scenario(scenario_text(scenario)) == scenario


def test_a_scenario_reads_as_one_writes_it():
    text = """
    # Comments and empty lines are for people.
    members 4
    twins 1

    leader n0, blocks n0 n1 | n0' n2 n3, lost votes, restart n0'
    leader n3, blocks n0 n1 n2 n3 n0', lost view changes at n2
    """
    first = View(0, (0, 0, 1, 1, 1), "votes", None, 4)
    second = View(3, (0, 0, 0, 0, 0), "view changes", 2)
    assert parse_scenario(text) == Scenario(4, 1, (first, second))


@pytest.mark.parametrize(
    "text",
    [
        "members 4",
        "twins 1\nleader n0, blocks n0",
        "members 4\ntwins 5",
        "members 2\ntwins 0\nleader n0, blocks n0",
        "members 2\ntwins 0\nleader n2, blocks n0 n1",
        "members 2\ntwins 0\nleader n0, blocks n0 n1 | n1",
        "members 2\ntwins 1\nleader n0', blocks n0 n1 n0'",
        "members 2\ntwins 0\nleader n0, blocks n0 n1, lost everything",
        "members 2\ntwins 0\nleader n0, blocks n0 n1, restart n5",
        "members 2\ntwins 0\nleader n0, blocks n0 n1, lost votes at n5",
        "members 2\ntwins 0\nleader n0, blocks n0 n1, lost  at n1",
        "members 2\ntwins 0\nleader n0, blocks n0 n1, leader n1",
        "members 2\ntwins 0\nblocks n0 n1",
        "members 2\ntwins 0\nsomething else",
    ],
)
def test_a_text_that_is_no_scenario_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_scenario(text)
