"""The tree over a dictionary: the root kept up to date equals the root made anew."""

from hypothesis import given
from hypothesis import strategies as st

from bftkit.batteries.state_tree import FAN_OUT, LEVELS, StateTree

EDITS = st.lists(st.tuples(st.integers(0, 30), st.none() | st.binary(max_size=2)), max_size=40)


@given(st.lists(EDITS, max_size=5))
def test_the_root_kept_up_to_date_equals_the_root_made_anew(rounds):
    data: dict[bytes, bytes] = {}
    tree = StateTree(data)
    for edits in rounds:
        for number, value in edits:
            key = b"%d" % number
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
            tree.changed[key] = None
        assert tree.root() == StateTree(dict(data)).root()
        assert (tree.root() == bytes(32)) == (not data)


def test_keys_and_values_do_not_flow_into_each_other():
    one = StateTree({b"ab": b"c"}).root()
    other = StateTree({b"a": b"bc"}).root()
    assert one != other
    assert StateTree({b"a": b""}).root() != bytes(32)


def test_neighbours_in_one_leaf_both_count():
    """With more keys than leaves, some share a leaf: each of them must show in the root."""
    data = {b"%d" % number: b"" for number in range(FAN_OUT**LEVELS + 1)}
    tree = StateTree(data)
    full = tree.root()
    for key in list(data)[:50]:
        value = data.pop(key)
        tree.changed[key] = None
        assert tree.root() != full
        data[key] = value
        tree.changed[key] = None
        assert tree.root() == full


def test_a_root_that_nobody_asked_for_costs_nothing():
    tree = StateTree({b"a": b"1"})
    first = tree.root()
    assert not tree.changed
    assert tree.root() == first
