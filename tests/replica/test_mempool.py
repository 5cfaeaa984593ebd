"""Requests on their way into batches, and batches on their way into the log."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.ids import canonical
from bftkit.replica.inputs import Submission
from bftkit.replica.mempool import Mempool
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import LIMITS, body_of, settings_of

TUNING = ReplicaTuning(
    batches_in_flight=2, max_batches_in_flight=4, collect_bytes=500, origin_batches=2, origin_bytes=100
)


def pool(**limits) -> Mempool:
    return Mempool(settings_of(tuning=TUNING, limits=msgspec.structs.replace(LIMITS, max_batch_bytes=105, **limits)))


def submission(number: int, size: int = 10, count: int = 1) -> Submission:
    return Submission(number, b"key %d" % number, canonical(b"%d" % number * size)[:size].ljust(size, b"."), count)


def test_while_few_batches_are_on_their_way_a_new_one_is_closed_at_once():
    mempool = pool()
    mempool.admit(submission(1))
    (first,) = mempool.close_batches(1)
    mempool.admit(submission(2))
    (second,) = mempool.close_batches(1)
    mempool.admit(submission(3))
    assert mempool.close_batches(1) == []
    assert mempool.waiting_commands == 1
    mempool.committed(first.ref)
    assert len(mempool.close_batches(1)) == 1
    assert (first.ref.origin, first.ref.count, second.ref.count) == (0, 1, 1)


def test_beyond_that_commands_gather_until_a_batch_is_full():
    mempool = pool()
    for number in range(2):
        mempool.admit(submission(number))
        mempool.close_batches(1)
    for number in range(2, 12):
        mempool.admit(submission(number, count=3))
        assert mempool.close_batches(1) == []
    mempool.admit(submission(12))
    (full,) = mempool.close_batches(1)
    assert full.ref.size <= 105
    assert full.ref.count == 30
    assert mempool.waiting_commands == 1


def test_beyond_the_most_batches_even_full_ones_wait():
    mempool = pool()
    made = []
    for number in range(100):
        mempool.admit(submission(number))
        made += mempool.close_batches(1)
    assert len(made) == 4
    mempool.committed(made[0].ref)
    assert len(mempool.close_batches(1)) == 1


def test_a_request_that_is_on_its_way_is_not_taken_twice():
    mempool = pool()
    assert mempool.admit(submission(1)) is None
    assert mempool.admit(submission(1)) is None
    assert mempool.waiting_commands == 1
    (body,) = mempool.close_batches(1)
    assert mempool.admit(submission(1)) is None
    assert mempool.waiting_commands == 0
    mempool.committed(body.ref)
    assert mempool.admit(submission(1)) is None
    assert mempool.waiting_commands == 1, "once decided it may come again: its answer may have been lost"


def test_what_fits_no_batch_and_what_is_too_much_is_refused():
    mempool = pool()
    assert mempool.admit(submission(1, size=101)) == "the request is larger than a batch"
    for number in range(5):
        assert mempool.admit(submission(number, size=100)) is None
    assert mempool.admit(submission(9, size=1)) == "overloaded"
    mempool.close_batches(1)
    assert mempool.admit(submission(9, size=1)) is None


def test_each_member_has_a_quota_for_what_it_brings_whoever_made_it():
    mempool = pool()
    first, second, third = (body_of(f"batch {number}", origin=2).ref for number in range(3))
    mempool.add(first, 1)
    mempool.add(first, 1)
    assert mempool.has_room(1, second.size)
    mempool.add(second, 1)
    assert not mempool.has_room(1, third.size)
    assert mempool.has_room(2, third.size), "the quota of another, also of the one that the batches name"
    assert mempool.uncommitted == (first, second)
    mempool.committed(first)
    mempool.committed(first)
    assert mempool.has_room(1, third.size)
    assert not mempool.has_room(1, 100)


def test_what_a_proposal_names_counts_against_nobody():
    mempool = pool()
    for number in range(5):
        mempool.add(body_of(f"batch {number}").ref, None)
    assert all(mempool.has_room(member, 10) for member in range(4))
    mempool.committed(body_of("batch 1").ref)
    assert all(mempool.has_room(member, 10) for member in range(4))


def test_idle_means_that_nothing_waits():
    mempool = pool()
    assert mempool.idle
    mempool.admit(submission(1))
    assert not mempool.idle
    (body,) = mempool.close_batches(1)
    mempool.add(body.ref, 0)
    assert not mempool.idle
    mempool.committed(body.ref)
    assert mempool.idle


@given(st.lists(st.one_of(st.integers(1, 100), st.just("commit"), st.just("close")), max_size=80))
def test_every_request_ends_in_exactly_one_batch_in_order_and_no_batch_is_too_large(steps):
    mempool = pool()
    taken: list[bytes] = []
    batches = []
    open_batches = []
    for number, step in enumerate(steps):
        if step == "commit":
            if open_batches:
                mempool.committed(open_batches.pop(0).ref)
        elif step == "close":
            made = mempool.close_batches(1)
            batches += made
            open_batches += made
            assert len(open_batches) <= 4
        else:
            entry = Submission(number, b"%d" % number, canonical(b"%03d" % number + b"." * step), 1)
            if mempool.admit(entry) is None:
                taken.append(entry.data)
    while open_batches or mempool.waiting_commands:
        made = mempool.close_batches(1)
        batches += made
        open_batches += made
        mempool.committed(open_batches.pop(0).ref)
    assert all(len(body.blob) <= 105 for body in batches)
    inside = [canonical(command) for body in batches for command in msgspec.msgpack.decode(body.blob)]
    assert inside == taken
    assert [body.ref.count for body in batches] == [len(msgspec.msgpack.decode(body.blob)) for body in batches]


def test_a_request_that_comes_again_after_it_was_decided_makes_another_batch():
    mempool = pool()
    mempool.admit(submission(1))
    (first,) = mempool.close_batches(7)
    mempool.committed(first.ref)
    mempool.admit(submission(1))
    (second,) = mempool.close_batches(8)
    assert first.blob == second.blob
    assert first.ref.digest != second.ref.digest
