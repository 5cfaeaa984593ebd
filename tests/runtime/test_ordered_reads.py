"""Reads through the log, as a client sees them: whom they go to, and whose answer counts."""

from __future__ import annotations

import pytest

from bftkit.core.ids import canonical
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.replica.client_messages import Busy, ReadReply, decode_request, request_statement
from bftkit.runtime.ordered_reads import LONGEST_RETRY_MS, RETRY_MS, OrderedReads
from bftkit.wire.auth import verify
from tests.replica.parts import CLIENT, DOMAIN

NONCE = b"n" * 16


class Rig:
    def __init__(self, model: FaultModel = FaultModel.BYZANTINE, members: int = 4, contact: int = 0) -> None:
        self.reads = OrderedReads(CLIENT, DOMAIN, Quorum.of(model, members), contact=contact)
        self.told = 0
        self.now = 1_000
        for replica in range(members):
            assert self.reads.on_connected(replica, self.now) == []

    def done(self) -> None:
        self.told += 1

    def start(self, nonce: bytes = NONCE):
        read, sends = self.reads.start(nonce, b"q", self.done, self.now)
        return read, receivers(sends)

    def reply(self, replica: int, height: int = 5, answer: bytes = b"a", nonce: bytes = NONCE) -> None:
        reply = ReadReply(nonce, height, answer)
        self.reads.on_reply(replica, reply, canonical(reply))

    def busy(self, replica: int, reason: str = "overloaded", retry_ms: int = 100) -> list[tuple[int, ...]]:
        return receivers(self.reads.on_busy(replica, Busy((0, 0), 0, reason, retry_ms, NONCE), self.now))

    def tick(self, ms: int) -> list[tuple[int, ...]]:
        self.now += ms
        return receivers(self.reads.on_tick(self.now))


def receivers(sends) -> list[tuple[int, ...]]:
    return [send.replicas for send in sends]


def test_a_read_is_signed_and_goes_to_the_contact():
    rig = Rig(contact=2)
    read, sent = rig.start()
    assert sent == [(2,)]
    request = decode_request(read.data)
    assert (request.public_key, request.nonce, request.request) == (CLIENT.public_key, NONCE, b"q")
    assert verify(request.public_key, request_statement(DOMAIN, request), request.signature)
    assert rig.reads.pending


def test_the_answer_is_what_enough_replicas_say_alike():
    rig = Rig()
    read, _ = rig.start()
    rig.reply(3, answer=b"lie")
    rig.reply(3, answer=b"lie")
    rig.reply(0)
    rig.reply(1, height=6)
    assert read.outcome is None
    rig.reply(2)
    assert read.outcome == ReadReply(NONCE, 5, b"a")
    assert rig.told == 1
    rig.reply(1)
    assert rig.told == 1
    assert not rig.reads.pending


def test_a_read_that_was_executed_twice_is_answered_by_whichever_height_enough_agree_on():
    rig = Rig()
    read, _ = rig.start()
    rig.reply(0, height=5)
    rig.reply(0, height=9)
    rig.reply(1, height=5)
    assert read.outcome is None
    rig.reply(1, height=9)
    assert read.outcome == ReadReply(NONCE, 9, b"a")


def test_one_answer_is_enough_where_nobody_lies():
    rig = Rig(FaultModel.CRASH, 3)
    read, _ = rig.start()
    rig.reply(2)
    assert read.outcome == ReadReply(NONCE, 5, b"a")


def test_answers_to_other_reads_are_not_counted():
    rig = Rig()
    read, _ = rig.start()
    for replica in range(4):
        rig.reply(replica, nonce=b"x" * 16)
    assert read.outcome is None
    assert rig.reads.on_busy(0, Busy((0, 0), 0, "no", 0, b"x" * 16), rig.now) == []


def test_without_an_answer_it_goes_to_everybody_later_and_later():
    rig = Rig()
    rig.start()
    assert rig.tick(RETRY_MS - 1) == []
    assert rig.tick(1) == [(0, 1, 2, 3)]
    assert rig.tick(2 * RETRY_MS - 1) == []
    assert rig.tick(1) == [(0, 1, 2, 3)]
    for _ in range(10):
        rig.tick(LONGEST_RETRY_MS)
    assert rig.tick(LONGEST_RETRY_MS) == [(0, 1, 2, 3)]
    _, sent = rig.start(b"m" * 16)
    assert sent != [(0,)], "who kept reads to himself is not the contact any more"


def test_who_does_not_take_it_is_passed_over_and_asked_again_after_a_while():
    rig = Rig()
    _, sent = rig.start()
    assert [sent, *(rig.busy(replica) for replica in range(4))] == [[(0,)], [(1,)], [(2,)], [(3,)], []]
    assert rig.tick(99) == []
    assert rig.tick(1) == [(0, 1, 2, 3)]


def test_a_refusal_for_good_counts_when_enough_say_it():
    rig = Rig()
    read, _ = rig.start()
    assert rig.busy(0, "no", 0) == [(1,)]
    assert read.outcome is None
    assert rig.busy(1, "no", 0) == []
    assert read.outcome == Busy((0, 0), 0, "no", 0, NONCE)


def test_what_only_one_replica_had_goes_to_another_when_it_is_gone():
    rig = Rig()
    rig.start()
    assert receivers(rig.reads.on_disconnected(1, rig.now)) == []
    assert receivers(rig.reads.on_disconnected(0, rig.now)) == [(2,)]


def test_what_reached_nobody_goes_to_whoever_comes():
    rig = Rig()
    for replica in range(4):
        rig.reads.on_disconnected(replica, rig.now)
    read, sent = rig.start()
    assert sent == []
    assert rig.tick(10 * RETRY_MS) == []
    assert receivers(rig.reads.on_connected(3, rig.now)) == [(3,)]
    assert receivers(rig.reads.on_connected(2, rig.now)) == []
    rig.reads.drop(read)
    assert not rig.reads.pending


@pytest.mark.parametrize("reads", [0, 3])
def test_closing_tells_everybody(reads):
    rig = Rig()
    for number in range(reads):
        rig.start(bytes([number]) * 16)
    rig.reads.close()
    assert rig.told == reads
