"""Small changes of messages."""

from __future__ import annotations

import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.replica.messages import Commits, OfferBodies, Progress, StableCheckpoint
from bftkit.testing.message_mutation import count_mutations, leaves, mutations, nth_mutation, with_value

REF = BatchRef(b"d" * 32, 1, 2, 30)
OTHER = BatchRef(b"e" * 32, 2, 2, 30)


def test_every_value_inside_is_found_with_the_way_to_it():
    found = dict(leaves(OfferBodies((REF, OTHER))))
    assert found[("refs",)] == (REF, OTHER)
    assert found[("refs", 0, "origin")] == 1
    assert found[("refs", 1, "digest")] == b"e" * 32


def test_one_value_is_changed_and_nothing_else():
    changed = with_value(OfferBodies((REF, OTHER)), ("refs", 1, "count"), 9)
    assert changed.refs[0] == REF
    assert changed.refs[1] == BatchRef(b"e" * 32, 2, 9, 30)


@pytest.mark.parametrize("message", [Progress(5, 7, 4), OfferBodies((REF, OTHER)), Commits((), 3)])
def test_all_mutations_differ_from_the_message_and_keep_its_type(message):
    made = [nth_mutation(message, number) for number in range(count_mutations(message))]
    assert made
    assert all(one != message and type(one) is type(message) for one in made)


def test_numbers_are_off_by_one_gone_and_swapped_and_values_are_stale():
    made = {(one.position, one.height, one.stable) for one in (each() for each in mutations(Progress(5, 7, 4)))}
    assert {(6, 7, 4), (4, 7, 4), (0, 7, 4), (7, 7, 4), (5, 7, 5)} <= made
    stale = [each() for each in mutations(Progress(5, 7, 4), Progress(2, 3, 1))]
    assert Progress(2, 7, 4) in stale
    assert Progress(5, 3, 4) in stale


def test_elements_are_dropped_doubled_and_turned():
    made = [one.refs for one in (each() for each in mutations(OfferBodies((REF, OTHER))))]
    for refs in ((), (REF,), (OTHER,), (OTHER, REF), (REF, OTHER, OTHER)):
        assert refs in made


def checkpoint(position: int) -> CheckpointCertificate:
    reached = Checkpoint(position, position, b"l" * 32, b"s" * 32, b"t" * 32)
    return CheckpointCertificate(reached, QuorumCertificate(reached.statement(), (0, 1, 2), (b"x", b"y", b"z")))


def test_what_may_be_missing_is_left_out():
    made = [one() for one in mutations(StableCheckpoint(checkpoint(8)))]
    assert StableCheckpoint(CheckpointCertificate(checkpoint(8).checkpoint, None)) in made


def test_whole_parts_go_stale_so_that_what_others_have_signed_stays_valid():
    made = [one() for one in mutations(StableCheckpoint(checkpoint(8)), StableCheckpoint(checkpoint(4)))]
    assert StableCheckpoint(checkpoint(4)) in made
    assert StableCheckpoint(CheckpointCertificate(checkpoint(8).checkpoint, checkpoint(4).certificate)) in made


def test_elements_take_the_place_of_each_other():
    assert OfferBodies((OTHER, OTHER)) in [one() for one in mutations(OfferBodies((REF, OTHER)))]


def test_no_place_gets_the_same_value_twice():
    message = Progress(1, 0, 0)
    made = [
        (one.position, one.height, one.stable, one.asks) for one in (each() for each in mutations(message, message))
    ]
    assert len(set(made)) == len(made)
