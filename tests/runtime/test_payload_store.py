"""Bodies: young ones in memory, all of them in the log."""

from __future__ import annotations

import pytest

from bftkit.core.batch import BatchBody, make_batch
from bftkit.replica.records import RecordKind
from bftkit.runtime.payload_store import PayloadStore
from bftkit.storage.log import Log
from bftkit.storage.memory import MemoryStorage

BODIES = [make_batch(0, 1, [b"\xc4\x32" + bytes([number]) * 50], 1) for number in range(5)]


@pytest.fixture
def log():
    with Log.open(MemoryStorage(), "log", bytes(32), indexed_kinds=(RecordKind.BODY,)) as opened:
        yield opened


def add(store: PayloadStore, log: Log, body: BatchBody) -> None:
    index = log.append(RecordKind.BODY, 0, (body.header, body.blob), body.ref.digest)
    store.add(body.ref, index, body.header, body.blob)


def content(found) -> tuple[bytes, bytes]:
    assert found is not None
    return found[0], bytes(found[1])


def test_every_body_is_found_and_memory_stays_within_its_budget(log):
    store = PayloadStore(log, memory_bytes=120)
    for body in BODIES:
        add(store, log, body)
        assert store.memory_bytes <= 120
    assert len(store) == 5
    for _ in range(2):
        for body in BODIES:
            assert content(store.get(body.ref.digest)) == (body.header, body.blob)
        log.flush_and_sync()


def test_a_body_beyond_the_budget_is_still_kept_while_it_is_the_youngest(log):
    store = PayloadStore(log, memory_bytes=10)
    add(store, log, BODIES[0])
    assert store.memory_bytes == len(BODIES[0].blob)


def test_what_was_forgotten_is_gone_and_its_memory_free(log):
    store = PayloadStore(log)
    for body in BODIES[:2]:
        add(store, log, body)
    store.forget((BODIES[0].ref.digest, bytes(32)))
    assert store.get(BODIES[0].ref.digest) is None
    assert store.memory_bytes == len(BODIES[1].blob)
    store.forget((BODIES[1].ref.digest,))
    assert (store.memory_bytes, len(store)) == (0, 0)


def test_adding_a_body_twice_counts_its_memory_once(log):
    store = PayloadStore(log)
    add(store, log, BODIES[0])
    add(store, log, BODIES[0])
    assert store.memory_bytes == len(BODIES[0].blob)


def test_bodies_of_an_earlier_life_are_read_from_the_log(log):
    add(PayloadStore(log), log, BODIES[0])
    log.flush_and_sync()
    again = PayloadStore(log)
    again.recovered(BODIES[0].ref.digest, 1)
    assert content(again.get(BODIES[0].ref.digest)) == (BODIES[0].header, BODIES[0].blob)
    assert again.get(BODIES[1].ref.digest) is None
