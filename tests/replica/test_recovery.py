"""Building a replica from its log: in any prefix, and after trimming."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import canonical
from bftkit.core.inputs import Available, Stable, Synced
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import Broadcast, Persist
from bftkit.errors import CorruptLog
from bftkit.replica.messages import FetchBodies, StableCheckpoint
from bftkit.replica.records import RecordKind, StepRecord, split_body
from bftkit.replica.recovery import LoggedRecord
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import (
    Host,
    Mark,
    Vote,
    batch_of,
    body_of,
    certified,
    checkpoint_at,
    envelope,
    open_session,
    settings_of,
    trims,
)

A, B = b"a" * 32, b"b" * 32


def fresh(**tuning) -> Host:
    host = Host(settings_of(tuning=ReplicaTuning(**tuning)))
    host.start()
    return host


def make_stable(host: Host, position: int) -> CheckpointCertificate:
    own = host.replica.checkpoints.own_checkpoint(position)
    assert own is not None
    certificate = certified(own)
    host.hear(1, StableCheckpoint(certificate))
    return certificate


def execute_some(host: Host, positions: int) -> None:
    """Decide so many positions, each with one batch that is held."""
    for _ in range(positions):
        position = host.replica.commits.position + 1
        request = open_session() if position == 1 else envelope((1, 0), position, [b"%d" % position], position - 1)
        body = batch_of(request)
        host.hear(1, body)
        host.commit(body)


def test_a_new_replica_starts_from_genesis():
    host = fresh()
    assert host.replica.commits.position == 0
    assert host.engine.records == []
    assert host.engine.checkpoint == CheckpointCertificate(host.settings.genesis.start, None)
    assert host.replica.next_index == 1


def test_what_was_decided_is_executed_again_in_every_prefix_of_the_log():
    host = fresh()
    execute_some(host, 6)
    make_stable(host, 4)
    roots = host.executor.roots()
    seen = set()
    for length in range(len(host.records) + 1):
        again = host.restarted(length)
        again.start()
        commits = [record for record in again.records[:length] if record.kind == RecordKind.COMMIT]
        assert again.replica.commits.position == len(commits)
        assert again.replica.commits.executed == len(commits)
        assert again.replica.next_index == length + 1 or again.replica.next_index > length
        seen.add(again.executor.height)
    assert seen == set(range(7))
    assert again.executor.roots() == roots
    assert again.replica.checkpoints.stable.position == 4
    assert again.engine.told(Synced)[0].position == 6


def test_an_engine_is_told_again_what_was_decided_last_in_every_prefix_of_the_log():
    """Also at the stable checkpoint itself, whose record may be all that is left of its turn."""
    host = fresh()
    for position in range(1, 6):
        body = body_of(str(position))
        host.hear(1, body)
        host.executing = False
        host.commit(body, proof=CommitProof(links=b"%d" % position))
    stable = canonical(certified(checkpoint_at(4, 4)))
    host.records.append(LoggedRecord(host.records[-1].index + 1, RecordKind.STABLE, host.settings.epoch, stable))
    for length in range(len(host.records) + 1):
        again = host.restarted(length)
        again.executing = False
        again.start()
        last = again.replica.commits.position
        told = [(event.position, event.proof.links) for event in again.engine.told(Synced)]
        assert told == ([(last, b"%d" % last)] if last else [])


def test_a_snapshot_is_saved_behind_the_record_of_what_the_engine_knew_at_it():
    """Whoever starts from a snapshot must find the engine's record of its position: no log holds the decision then."""
    host = fresh(snapshot_positions=4)
    host.engine.react = lambda event: [Persist(Mark(7), replaces_earlier=True)] if isinstance(event, Stable) else []
    execute_some(host, 4)
    make_stable(host, 4)
    assert host.saved is not None
    assert host.restarted(host.durable_when_saved).engine.records == [Mark(7)]


def test_signatures_are_remembered_in_every_prefix():
    host = fresh()
    for position in range(1, 6):
        host.do(Persist(Mark(position)), Broadcast(Vote(0, position, A)))
    for length in range(len(host.records) + 1):
        again = host.restarted(length)
        again.start()
        assert again.engine.records == [Mark(number) for number in range(1, length + 1)]
        for position in range(1, 6):
            again.do(Broadcast(Vote(0, position, B)))
        assert len(again.reports("unsigned")) == length


def test_a_record_that_replaces_earlier_ones_is_all_that_the_engine_gets():
    host = fresh()
    host.do(Persist(Mark(1)), Broadcast(Vote(0, 1, A)))
    host.do(Persist(Mark(2)), Persist(Mark(3), replaces_earlier=True), Persist(Mark(4)))
    host.do(Persist(Mark(5)))
    again = host.restarted()
    assert again.engine.records == [Mark(3), Mark(4), Mark(5)]
    assert again.replica.step_index == 2
    again.start()
    again.do(Broadcast(Vote(0, 1, B)))
    assert len(again.reports("unsigned")) == 1


def test_batches_that_are_not_decided_are_offered_to_the_engine_again():
    host = fresh()
    first, second = body_of("one"), body_of("two")
    host.hear(1, first)
    host.hear(1, second)
    host.commit(first)
    again = host.restarted()
    assert again.uncommitted == (second.ref,)
    again.start()
    assert again.engine.told(Available) == [Available(0, (second.ref,))]
    assert again.replica.mempool.uncommitted == (second.ref,)


def test_a_body_that_was_still_missing_is_fetched_after_a_restart_and_executed():
    host = fresh()
    body = batch_of(open_session())
    host.commit(body)
    again = host.restarted()
    again.start()
    ((_, request),) = again.messages(FetchBodies)
    assert request.digests == (body.ref.digest,)
    assert again.executor.height == 0
    again.hear(2, body)
    assert again.executor.height == 1


def test_after_two_snapshots_the_log_is_trimmed_and_what_is_left_suffices_for_either():
    host = fresh(snapshot_positions=8)
    host.engine.react = lambda event: []
    execute_some(host, 11)
    make_stable(host, 4)
    make_stable(host, 8)
    snapshots = [host.saved]
    assert trims(host) == [], "the newest snapshot may rot, and then the log is all there is"
    for stable in (12, 16, 20, 24, 28, 32):
        execute_some(host, 4)
        host.do(Persist(Mark(stable), replaces_earlier=True))
        make_stable(host, stable)
        if host.saved is not snapshots[-1]:
            snapshots.append(host.saved)
    assert [snapshot[0].position for snapshot in snapshots if snapshot is not None] == [8, 16, 24, 32]
    below = trims(host)[-1]
    assert below > 1
    late = body_of("late")
    host.hear(1, late)
    kept = [record for record in host.records if record.index >= below]
    for snapshot in snapshots[-2:]:
        again = Host(host.settings, records=kept, snapshot=snapshot)
        again.start()
        assert again.executor.roots() == host.executor.roots()
        assert again.replica.commits.position == 35
        assert again.engine.records == [Mark(32)]
        assert again.replica.checkpoints.stable.position == 32
        assert late.ref in again.uncommitted


def test_trimming_spares_the_newest_complete_step_record():
    host = fresh(snapshot_positions=4)
    host.do(Persist(Mark(1), replaces_earlier=True))
    for stable in (4, 8, 12):
        execute_some(host, 4)
        make_stable(host, stable)
    assert trims(host) == [1, 1]


def test_trimming_spares_bodies_that_wait():
    host = fresh(snapshot_positions=4)
    waiting = body_of("waiting")
    host.hear(1, waiting)
    for stable in (4, 8, 12):
        execute_some(host, 4)
        host.do(Persist(Mark(stable), replaces_earlier=True))
        make_stable(host, stable)
    assert trims(host) == [1, 1]


def test_a_state_that_was_restored_but_differs_from_the_stable_one_halts():
    host = fresh()
    execute_some(host, 5)
    make_stable(host, 4)
    again = host.restarted()
    again.executor.roots = lambda: (A, B)  # type: ignore[method-assign]
    again.start()
    assert "position 4" in again.replica.halted


def test_records_of_other_epochs_are_left_alone():
    junk = LoggedRecord(1, RecordKind.COMMIT, 7, b"junk")
    assert Host(settings_of(), records=[junk]).replica.commits.position == 0


@pytest.mark.parametrize(
    "record",
    [
        LoggedRecord(1, RecordKind.STEP, 0, b"junk"),
        LoggedRecord(1, RecordKind.STEP, 0, canonical(StepRecord((b"junk",), False, 0, 0, ()))),
        LoggedRecord(1, RecordKind.BODY, 0, b""),
        LoggedRecord(1, RecordKind.BODY, 0, b"\x95\x00"),
        LoggedRecord(1, RecordKind.BODY, 0, b"\x95\xa1a\x00\x00\x00\x00blob"),
        LoggedRecord(1, RecordKind.COMMIT, 0, b"\x90"),
        LoggedRecord(1, RecordKind.COMMIT, 0, canonical(CommitEntry(2, (), CommitProof()))),
        LoggedRecord(1, RecordKind.STABLE, 0, b"\x01"),
        LoggedRecord(1, 9, 0, b""),
    ],
)
def test_records_that_form_no_history_are_corruption(record):
    with pytest.raises(CorruptLog, match="record 1"):
        Host(settings_of(), records=[record])


@pytest.mark.parametrize("number", [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63])
def test_a_stored_body_is_split_where_its_header_ends(number):
    from bftkit.core.batch import make_batch, open_body

    for body in (
        make_batch(number, 1, [b"\xc0"], 1),
        make_batch(0, number, [b"\xc0"], 1, number=number),
        make_batch(0, 1, [b"\xc0" * 3], max(number, 1), control=True),
    ):
        header, blob = split_body(body.header + bytes(body.blob))
        assert (header, bytes(blob)) == (body.header, body.blob)
        assert open_body(header, blob).ref == body.ref
        assert msgspec.msgpack.decode(header)


def test_what_was_let_go_before_a_restart_does_not_count_as_decided_after_it():
    host = fresh(snapshot_positions=4)
    execute_some(host, 8)
    first = host.replica.commits.after(0, 1)
    make_stable(host, 4)
    make_stable(host, 8)
    assert first is not None
    digest = first[0].refs[0].digest
    assert not host.replica.payloads.is_decided(digest)
    again = host.restarted()
    assert not again.replica.payloads.is_decided(digest)
    assert all(ref.digest != digest for ref in again.uncommitted)
