"""The smallest engine: what it promises, one input at a time."""

from __future__ import annotations

import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.inputs import Available, Read, Received, Sealed, Stable, Synced, TimerFired, Transfer
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.membership import Member
from bftkit.core.outputs import Commit, Persist, ReadReady, Send
from bftkit.core.quorum import FaultModel
from bftkit.testing.solo import Durable, Ordered, Retained, SoloOptions, bftkit_engine, check, solo_spec
from bftkit.wire.codec import Codec

SPEC = solo_spec()


def genesis_of(members: int = 1) -> Genesis:
    people = tuple(Member(f"n{index}", bytes([index + 1]) * 32) for index in range(members))
    config = EpochConfig(
        "c", 0, 0, "solo", "1", FaultModel.CRASH, canonical(SoloOptions()), people, Limits(checkpoint_interval=2)
    )
    return Genesis(config, EMPTY_CHECKPOINT)


def context_of(members: int = 1, **options) -> EngineContext:
    config = genesis_of(members).config
    return EngineContext(0, config.membership(), SoloOptions(**options), config.limits)


def engine_of(*records, position: int = 0, **options):
    checkpoint = Checkpoint(position, position, bytes(32), bytes(32), bytes(32))
    return SPEC.build(context_of(**options), genesis_of(), CheckpointCertificate(checkpoint, None), records)


def ref(number: int) -> BatchRef:
    return BatchRef(bytes([number]) * 32, 0, 1, 10)


def stable_at(position: int) -> Stable:
    return Stable(0, CheckpointCertificate(Checkpoint(position, position, b"l" * 32, b"s" * 32, b"x" * 32), None))


def commits(outputs) -> list[int]:
    return [output.position for output in outputs if isinstance(output, Commit)]


def test_a_batch_is_persisted_before_the_message_that_decides_it():
    engine = engine_of()
    assert engine.start(0) == []
    out = engine.step(Available(0, (ref(1), ref(2))))
    assert out == [Persist(Ordered(1, (ref(1), ref(2)))), Send(0, Durable(1))]
    assert engine.status().waiting_for
    assert engine.step(Received(0, 0, Durable(1))) == [Commit(1, (ref(1), ref(2)), CommitProof())]
    assert engine.step(Received(0, 0, Durable(1))) == []
    assert (engine.status().position, engine.status().waiting_for) == (1, "")


def test_a_batch_is_ordered_once_however_often_it_is_announced():
    engine = engine_of()
    engine.step(Available(0, (ref(1),)))
    assert engine.step(Available(0, (ref(1),))) == []
    engine.step(Received(0, 0, Durable(1)))
    assert engine.step(Available(0, (ref(1),))) == []


def test_a_position_holds_a_bounded_number_of_batches():
    engine = engine_of(batches_per_position=2)
    out = engine.step(Available(0, tuple(ref(number) for number in range(1, 6))))
    assert [len(output.record.refs) for output in out if isinstance(output, Persist)] == [2, 2, 1]


def test_beyond_the_window_batches_wait_for_a_stable_checkpoint():
    engine = engine_of(batches_per_position=1)
    out = engine.step(Available(0, tuple(ref(number) for number in range(1, 7))))
    assert [output.record.position for output in out if isinstance(output, Persist)] == [1, 2, 3, 4]
    assert commits(engine.step(Received(0, 0, Durable(4)))) == [1, 2, 3, 4]
    assert "stable checkpoint" in engine.status().waiting_for
    out = engine.step(stable_at(2))
    assert out[0] == Persist(Retained((Ordered(3, (ref(3),)), Ordered(4, (ref(4),)))), replaces_earlier=True)
    assert [output.record.position for output in out[1:] if isinstance(output, Persist)] == [5, 6]


def test_what_was_persisted_is_decided_after_a_restart():
    records = [Retained((Ordered(3, (ref(3),)),)), Ordered(4, (ref(4),)), Ordered(5, (ref(5),))]
    engine = engine_of(*records, position=2)
    assert engine.start(0) == [Send(0, Durable(3)), Send(0, Durable(4)), Send(0, Durable(5))]
    assert engine.step(Synced(0, 4, (ref(3), ref(4)), CommitProof())) == []
    assert engine.step(Available(0, (ref(5),))) == []
    assert commits(engine.step(Received(0, 0, Durable(3)))) == []
    assert commits(engine.step(Received(0, 0, Durable(5)))) == [5]


def test_a_sealed_epoch_orders_nothing_more():
    engine = engine_of()
    engine.step(Sealed(0, 1))
    assert engine.step(Available(0, (ref(1),))) == []


def test_reads_are_ready_at_the_newest_decision_and_the_rest_is_ignored():
    engine = engine_of()
    assert engine.step(Read(0, 7)) == [ReadReady(7, 0)]
    assert engine.step(TimerFired(0, "none")) == []
    assert engine.step(Transfer(0, 0)) == []


def test_messages_of_others_and_absurd_ones_are_refused():
    context = context_of()
    assert check(context, 0, Durable(1)) is None
    assert check(context, 1, Durable(1)) is not None
    assert check(context, 0, Durable(0)) is not None
    assert not list(SPEC.claims(0, Durable(1)))
    assert not list(SPEC.references(Durable(1)))
    assert len(SPEC.lane_key(Durable(-1))) == 8
    codec = Codec(SPEC.messages)
    assert codec.decode(codec.encode(Durable(3))) == Durable(3)


def test_a_decision_carries_no_certificate():
    context = context_of()
    assert SPEC.commit_problem(context, CommitEntry(1, (), CommitProof())) is None
    assert SPEC.commit_problem(context, CommitEntry(1, (), CommitProof(None, b"x"))) is not None


def test_it_serves_one_member_only():
    with pytest.raises(ValueError, match="decides alone"):
        SPEC.build(context_of(2), genesis_of(2), CheckpointCertificate(EMPTY_CHECKPOINT, None), [])


def test_options_are_checked_and_the_hook_offers_the_engine():
    with pytest.raises(ValueError, match="batches_per_position"):
        SoloOptions(batches_per_position=0)
    assert bftkit_engine() is SPEC
