"""Batches that wait: in order for each origin, fair among origins."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.batch import BatchRef
from bftkit.core.pending import PendingBatches


def ref(origin: int, number: int) -> BatchRef:
    return BatchRef(sha256(b"%d/%d" % (origin, number)).digest(), origin, 1, 1)


refs = st.builds(ref, st.integers(0, 3), st.integers(0, 9))


@given(st.lists(refs), st.integers(1, 7))
def test_everything_is_taken_once_and_in_order_for_each_origin(added, at_once):
    pending = PendingBatches(4)
    unique = list(dict.fromkeys(added))
    for one in added:
        new = one.digest not in pending
        assert pending.add(one) is new
    assert len(pending) == len(unique)
    assert list(pending) == unique
    taken = []
    while chunk := pending.take(at_once):
        assert len(chunk) <= at_once
        taken += chunk
    for origin in range(4):
        assert [one for one in taken if one.origin == origin] == [one for one in unique if one.origin == origin]
    assert len(taken) == len(unique)
    assert not len(pending)


@given(st.lists(st.integers(0, 12), min_size=4, max_size=4), st.integers(1, 9))
def test_origins_are_served_in_turn(backlogs, at_once):
    """While two origins both have batches left, neither is more than one ahead of the other."""
    pending = PendingBatches(4)
    for origin, backlog in enumerate(backlogs):
        for number in range(backlog):
            pending.add(ref(origin, number))
    served = [0] * 4
    while chunk := pending.take(at_once):
        for one in chunk:
            served[one.origin] += 1
            hungry = [origin for origin in range(4) if served[origin] < backlogs[origin]]
            assert all(served[one.origin] - served[origin] <= 1 for origin in hungry)


def test_a_batch_is_added_once_and_discarded_from_anywhere():
    pending = PendingBatches(2)
    assert pending.add(ref(0, 1))
    assert not pending.add(ref(0, 1))
    pending.add(ref(0, 2))
    pending.add(ref(0, 3))
    assert pending.discard(ref(0, 2).digest) == ref(0, 2)
    assert pending.discard(ref(0, 2).digest) is None
    assert ref(0, 2).digest not in pending
    assert pending.take(5) == [ref(0, 1), ref(0, 3)]
    assert pending.take(5) == []
