"""Which bodies are held, on their way to disk, or missing."""

from __future__ import annotations

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.replica.messages import MAX_LISTED, FetchBodies
from bftkit.replica.outputs import SendBody
from bftkit.replica.payloads import MAX_ASKED, MAX_OFFERED, Payloads
from tests.replica.parts import body_of

BODY, OTHER = body_of("one"), body_of("two")


def ref_of(number: int) -> BatchRef:
    return BatchRef(number.to_bytes(32, "big"), 1, 1, 10)


def asked(sends) -> list[tuple[int, tuple[bytes, ...]]]:
    return [(send.to, send.message.digests) for send in sends]


def held(payloads: Payloads, body=BODY, index: int = 1) -> None:
    payloads.store(body, index)
    payloads.durable((body.ref,))


def test_a_body_is_held_once_it_is_durable():
    payloads = Payloads(0, 4)
    payloads.store(BODY, 3)
    assert payloads.is_known(BODY.ref.digest)
    assert not payloads.holds(BODY.ref)
    assert payloads.answer(1, (BODY.ref.digest,)) == []
    assert payloads.durable((BODY.ref, OTHER.ref)) == (BODY.ref,)
    assert payloads.holds(BODY.ref)
    assert payloads.durable((BODY.ref,)) == ()
    assert payloads.answer(1, (BODY.ref.digest, OTHER.ref.digest, BODY.ref.digest)) == [SendBody(1, BODY.ref)]
    assert payloads.lacks((BODY.ref.digest, OTHER.ref.digest))
    assert not payloads.lacks((BODY.ref.digest,))


def test_a_reference_that_lies_about_a_body_is_not_held():
    payloads = Payloads(0, 4)
    held(payloads)
    for lie in ({"count": 2}, {"origin": 2}, {"size": 1}, {"control": True}):
        assert not payloads.holds(msgspec.structs.replace(BODY.ref, **lie))


def test_missing_bodies_are_asked_for_once_at_the_source():
    payloads = Payloads(0, 4)
    held(payloads)
    assert asked(payloads.want((BODY.ref, OTHER.ref), (0, 2))) == [(2, (OTHER.ref.digest,))]
    assert payloads.want((OTHER.ref,), (3,)) == []
    assert payloads.missing == (OTHER.ref,)


def test_asking_again_goes_round_the_sources_and_then_everybody():
    payloads = Payloads(0, 4)
    first = asked(payloads.want((OTHER.ref,), (2,)))
    rounds = [asked(payloads.ask_again(0)) for _ in range(5)]
    assert [entry[0][0] for entry in (first, *rounds)] == [2, 1, 3, 2, 1, 3]
    payloads.want((OTHER.ref,), (3,))
    payloads.store(OTHER, 1)
    assert payloads.ask_again(0) == []


def test_without_a_source_everybody_is_asked_in_turn():
    payloads = Payloads(1, 4)
    first = asked(payloads.want((OTHER.ref,), ()))
    assert [entry[0][0] for entry in (first, *(asked(payloads.ask_again(0)) for _ in range(3)))] == [0, 2, 3, 0]


def test_alone_there_is_nobody_to_ask():
    payloads = Payloads(0, 1)
    assert payloads.want((OTHER.ref,), (0,)) == []
    assert payloads.ask_again(0) == []


def test_long_lists_are_divided():
    payloads = Payloads(0, 4)
    sends = payloads.want(tuple(ref_of(number) for number in range(MAX_LISTED + 1)), (1,))
    assert [len(send.message.digests) for send in sends] == [MAX_LISTED, 1]
    assert all(isinstance(send.message, FetchBodies) for send in sends)


def test_what_no_decision_names_is_given_up_in_the_end():
    payloads = Payloads(0, 4)
    payloads.want((ref_of(1), ref_of(2)), (1,))
    payloads.decided(ref_of(2), 9)
    for _ in range(MAX_ASKED):
        payloads.ask_again(0)
    assert payloads.missing == (ref_of(2),)
    assert payloads.want((ref_of(1),), (1,)) != [], "it may be wanted anew"


def test_what_was_executed_without_it_is_not_asked_for_for_ever():
    payloads = Payloads(0, 4)
    payloads.want((ref_of(1),), (1,))
    payloads.decided(ref_of(1), 9)
    for _ in range(MAX_ASKED):
        payloads.ask_again(8)
    assert payloads.missing == (ref_of(1),)
    payloads.ask_again(9)
    assert payloads.missing == (), "a state that was taken over holds its effect"


def test_offers_are_bounded_for_each_member_and_given_up_soon():
    payloads = Payloads(0, 4)
    refs = tuple(ref_of(number) for number in range(MAX_OFFERED + 5))
    assert len(payloads.want_offered(refs, 1)[0].message.digests) == MAX_OFFERED
    assert payloads.want_offered(refs[-5:], 1) == []
    assert asked(payloads.want_offered(refs[-1:], 2)) == [(2, (refs[-1].digest,))]
    for _ in range(4):
        payloads.ask_again(0)
    assert payloads.missing == ()
    assert len(payloads.want_offered(refs, 1)[0].message.digests) == MAX_OFFERED


def test_an_offer_that_arrives_or_is_proposed_makes_room_for_another():
    payloads = Payloads(0, 4)
    refs = [BODY.ref, *(ref_of(number) for number in range(MAX_OFFERED - 1))]
    payloads.want_offered(tuple(refs), 1)
    assert payloads.want_offered((ref_of(900),), 1) == []
    payloads.store(BODY, 1)
    assert payloads.want_offered((ref_of(900),), 1) != []
    assert payloads.want_offered((ref_of(901),), 1) == []
    payloads.want((ref_of(0),), (2,))
    assert payloads.want_offered((ref_of(901),), 1) != []
    for _ in range(8):
        payloads.ask_again(0)
    assert payloads.missing == (ref_of(0),), "what was proposed is asked for longer"


def test_what_was_decided_is_forgotten_below_a_snapshot():
    payloads = Payloads(0, 4)
    held(payloads)
    payloads.store(OTHER, 2)
    payloads.want((ref_of(1),), ())
    for position, ref in enumerate((BODY.ref, OTHER.ref, ref_of(1)), 1):
        payloads.decided(ref, position)
    assert payloads.is_decided(BODY.ref.digest)
    assert payloads.decided_at(OTHER.ref.digest) == 2
    assert payloads.forget_through(2) == (BODY.ref.digest, OTHER.ref.digest)
    assert len(payloads) == 0
    assert payloads.missing == (ref_of(1),)
    assert payloads.durable((OTHER.ref,)) == ()
    assert payloads.forget_through(3) == (ref_of(1).digest,)
    assert payloads.missing == ()


def test_a_batch_that_was_decided_twice_stays_for_the_later_position():
    payloads = Payloads(0, 4)
    held(payloads)
    payloads.decided(BODY.ref, 1)
    payloads.decided(BODY.ref, 9)
    assert payloads.forget_through(5) == ()
    assert payloads.holds(BODY.ref)


def test_the_oldest_index_is_the_lowest_one_even_where_a_body_was_stored_twice():
    payloads = Payloads(0, 4)
    assert payloads.oldest_index is None
    for index, body in [(3, BODY), (5, OTHER), (8, BODY)]:
        payloads.recovered(body.ref, index)
    assert payloads.oldest_index == 5
    assert list(payloads.indices()) == [(OTHER.ref.digest, 5), (BODY.ref.digest, 8)]


def test_a_batch_that_is_named_again_outlives_its_first_decision():
    payloads = Payloads(0, 4)
    held(payloads)
    payloads.named_again(BODY.ref, 9)
    payloads.decided(BODY.ref, 1)
    payloads.named_again(BODY.ref, 9)
    assert payloads.decided_at(BODY.ref.digest) == 1
    assert payloads.forget_through(8) == ()
    assert payloads.holds(BODY.ref)
    assert payloads.forget_through(9) == (BODY.ref.digest,)


def test_a_batch_that_waits_to_be_decided_once_more_is_not_forgotten():
    payloads = Payloads(0, 4)
    held(payloads)
    payloads.decided(BODY.ref, 1)
    payloads.undecided(BODY.ref)
    assert not payloads.is_decided(BODY.ref.digest)
    assert payloads.forget_through(99) == ()
