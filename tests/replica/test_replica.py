"""How the parts of a replica are connected."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.batch import make_batch
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.engine import EngineStatus
from bftkit.core.inputs import Available, Read, Received, Stable, TimerFired, Transfer
from bftkit.core.log import CommitProof
from bftkit.core.outputs import (
    Accuse,
    Broadcast,
    CancelTimer,
    Commit,
    Offer,
    Persist,
    ReadReady,
    Reject,
    Send,
    SetTimer,
    Want,
)
from bftkit.core.statement import Statement
from bftkit.core.votes import Evidence
from bftkit.replica.client_messages import Reply, SessionOpened
from bftkit.replica.inputs import Executed, Submission
from bftkit.replica.messages import (
    CheckpointVote,
    Commits,
    FetchBodies,
    OfferBodies,
    SnapshotAvailable,
    StableCheckpoint,
)
from bftkit.replica.outputs import Append, Execute, Loopback, SendBody
from bftkit.replica.records import RecordKind, StepRecord
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import (
    SIGNATURE,
    Host,
    Mark,
    Note,
    Vote,
    batch_of,
    body_of,
    certified,
    checkpoint_at,
    envelope,
    open_session,
    refusals,
    settings_of,
)

A, B = b"a" * 32, b"b" * 32


def fresh(own: int = 0, **tuning) -> Host:
    host = Host(settings_of(own, tuning=ReplicaTuning(**tuning)))
    host.start()
    return host


def raw_step(host: Host, *outputs):
    """What the replica itself returns for one engine step, before the gate."""
    passed = TimerFired(0, "go")
    host.engine.react = lambda event: list(outputs) if event == passed else []
    returned = host.replica.step(TimerFired(0, "engine/go"))
    host.engine.react = lambda event: []
    return returned


def step_record(output: Append) -> StepRecord:
    assert output.kind == RecordKind.STEP
    return msgspec.msgpack.decode(output.payload[0], type=StepRecord)


# --- Records and signatures ------------------------------------------------------------------------------------------


def test_one_step_makes_one_record_at_the_place_of_its_first():
    host = fresh()
    vote = Vote(0, 1, A)
    out = raw_step(host, Send(1, Note("a")), Persist(Mark(1)), Send(1, Note("b")), Persist(Mark(2)), Broadcast(vote))
    assert [type(output) for output in out] == [Send, Append, Send, Broadcast]
    record = step_record(out[1])
    assert record.records == (b"\x92\xa4mark\x01", b"\x92\xa4mark\x02")
    assert [slot.content for slot in record.signed] == [A]
    assert out[1].barrier


def test_a_signature_is_recorded_before_it_leaves_even_if_the_engine_persists_later_or_nothing():
    host = fresh()
    out = raw_step(host, Broadcast(Vote(0, 1, A)), Persist(Mark(1)))
    assert [type(output) for output in out] == [Append, Broadcast]
    assert step_record(out[0]).records == (b"\x92\xa4mark\x01",)
    out = raw_step(host, Send(1, Note("x")), Send(2, Vote(0, 2, A)))
    assert [type(output) for output in out] == [Send, Append, Send]


def test_saying_the_same_again_needs_no_record():
    host = fresh()
    raw_step(host, Broadcast(Vote(0, 1, A)))
    out = raw_step(host, Broadcast(Vote(0, 1, A)))
    assert [type(output) for output in out] == [Broadcast]


def test_a_signature_that_is_refused_is_dropped_and_reported_and_the_rest_goes_out():
    host = fresh()
    raw_step(host, Broadcast(Vote(0, 1, A)))
    out = raw_step(host, Persist(Mark(1)), Broadcast(Vote(0, 1, B)), Send(1, Note("x")))
    assert [output.message for output in out if isinstance(output, Send | Broadcast)] == [Note("x")]
    (report,) = [output for output in out if getattr(output, "event", "") == "unsigned"]
    assert report.data == Statement("vote", 0, 1, B)


def test_two_contents_in_one_step_are_one_too_many():
    out = raw_step(fresh(), Broadcast(Vote(0, 1, A)), Broadcast(Vote(0, 1, B)))
    assert [output.message.content for output in out if isinstance(output, Broadcast)] == [A]


def test_what_carries_a_signature_already_is_passed_on():
    host = fresh()
    raw_step(host, Broadcast(Vote(0, 1, A)))
    out = raw_step(host, Send(2, Vote(0, 1, B, signature=SIGNATURE)))
    assert [type(output) for output in out] == [Send]


def test_a_record_that_replaces_carries_the_whole_watermark():
    host = fresh()
    raw_step(host, Broadcast(Vote(0, 1, A)))
    out = raw_step(host, Persist(Mark(1)), Persist(Mark(2), replaces_earlier=True), Broadcast(Vote(0, 2, A)))
    record = step_record(out[0])
    assert record.replaces_earlier
    assert record.records == (b"\x92\xa4mark\x02",)
    assert [slot.position for slot in record.signed] == [1, 2]
    assert host.replica.step_index == 2


# --- Timers, reports, small outputs ----------------------------------------------------------------------------------


def test_timers_of_the_engine_have_names_of_their_own():
    host = fresh()
    out = raw_step(host, SetTimer("view", 10, 3), CancelTimer("view"))
    assert out == [SetTimer("engine/view", 10, 3), CancelTimer("engine/view")]
    host.step(TimerFired(5, "engine/view"))
    assert host.engine.inputs[-1] == TimerFired(5, "view")


def test_rejections_accusations_and_views_are_reported():
    host = fresh()
    evidence = Evidence(2, Statement("v", 0, 1, A), SIGNATURE, Statement("v", 0, 1, B), SIGNATURE)
    host.do(Reject(3, "nonsense"), Accuse(evidence))
    assert [(report.detail, report.data) for report in host.reports("rejected")] == [("nonsense", 3)]
    assert [report.data for report in host.reports("accused")] == [evidence]
    host.engine.status_now = EngineStatus(4, 0, 0, "view change")
    host.do(CancelTimer("view"))
    host.do(CancelTimer("view"))
    assert [report.detail for report in host.reports("view")] == ["view 0, normal", "view 4, view change"]


def test_reads_and_transfers_go_to_the_engine():
    host = fresh()
    host.engine.react = lambda event: [ReadReady(event.token, 0)] if isinstance(event, Read) else []
    assert ReadReady(7, 0) in host.step(Read(0, 7))
    host.step(Transfer(0, 2))
    assert host.engine.inputs[-1] == Transfer(0, 2)


def test_time_never_goes_back_for_the_engine():
    host = fresh()
    host.step(TimerFired(50, "engine/a"))
    host.step(Received(20, 1, Note("older")))
    host.step(TimerFired(60, "engine/b"))
    assert [event.now for event in host.engine.inputs] == [50, 50, 60]


# --- Bodies ----------------------------------------------------------------------------------------------------------


def test_a_body_becomes_available_when_it_is_durable():
    host = fresh()
    body = body_of("one")
    out = host.replica.step(Received(0, 1, body))
    assert [type(output) for output in out] == [Append, Loopback]
    assert out[0].ref == body.ref
    assert not out[0].barrier
    assert host.engine.told(Available) == []
    host.replica.step(out[1].event)
    assert host.engine.told(Available) == [Available(0, (body.ref,))]


def test_a_body_comes_from_its_origin_or_is_wanted():
    host = fresh()
    foreign = body_of("foreign", origin=2)
    host.hear(1, foreign)
    assert not host.replica.payloads.is_known(foreign.ref.digest)
    host.do(Want((foreign.ref,), (3,)))
    host.hear(1, foreign)
    assert host.replica.payloads.holds(foreign.ref)


def test_a_body_twice_is_stored_once():
    host = fresh()
    body = body_of("one")
    host.hear(1, body)
    host.hear(1, body)
    assert [record.kind for record in host.records] == [RecordKind.BODY]


@pytest.mark.parametrize("body", [make_batch(0, 1, [b"\xc0" * 5000], 1), make_batch(0, 9, [b"\xc0"], 1)])
def test_a_body_that_no_proposal_may_name_is_refused(body):
    host = fresh()
    host.hear(1, body)
    host.do(Want((body.ref,), (3,)))
    host.hear(3, body)
    assert host.records == []
    assert host.reports("rejected")


def test_an_origin_beyond_its_quota_is_refused_but_what_is_wanted_is_taken():
    host = fresh(origin_batches=2)
    bodies = [body_of(f"batch {number}") for number in range(4)]
    for body in bodies[:3]:
        host.hear(1, body)
    assert not host.replica.payloads.is_known(bodies[2].ref.digest)
    assert len(host.reports("rejected")) == 1
    host.do(Want((bodies[3].ref,), (1,)))
    host.hear(1, bodies[3])
    assert host.replica.payloads.holds(bodies[3].ref)


def test_what_is_held_already_is_available_at_once():
    host = fresh()
    body = body_of("one")
    host.hear(1, body)
    host.do(Want((body.ref,), (1,)))
    assert host.engine.told(Available)[1:] == [Available(0, (body.ref,))]


def test_a_reference_that_lies_about_a_held_body_is_never_available():
    host = fresh()
    body = body_of("one")
    host.hear(1, body)
    before = len(host.engine.told(Available))
    host.do(Want((msgspec.structs.replace(body.ref, count=99),), (1,)))
    assert len(host.engine.told(Available)) == before


def test_missing_bodies_are_asked_for_again_elsewhere():
    host = fresh(fetch_retry_ms=70)
    body = body_of("one")
    host.do(Want((body.ref,), (2,)))
    assert host.timers["replica/fetch"] == 70
    host.fire("replica/fetch")
    host.fire("replica/fetch")
    assert [to for to, message in host.messages(FetchBodies)] == [2, 1, 3]
    host.hear(3, body)
    host.fire("replica/fetch")
    assert "replica/fetch" not in host.timers


def test_bodies_are_sent_to_who_asks():
    host = fresh()
    body = body_of("one")
    host.hear(1, body)
    assert SendBody(3, body.ref) in host.hear(3, FetchBodies((body.ref.digest, bytes(32))))
    assert host.messages(SnapshotAvailable) == []


def test_who_asks_for_what_is_gone_is_offered_the_snapshot():
    host = fresh()
    host.replica.snapshot = (certified(checkpoint_at(4)), 10)
    host.hear(3, FetchBodies((bytes(32),)))
    assert host.messages(SnapshotAvailable) == [(3, SnapshotAvailable(certified(checkpoint_at(4)), 10))]


def test_a_decided_position_waits_for_its_body_and_those_behind_it_wait_too():
    host = fresh()
    late, early = batch_of(open_session()), batch_of(open_session(nonce=b"2" * 16))
    proof = CommitProof(QuorumCertificate.of(Statement("v", 0, 1, A), {2: SIGNATURE, 3: SIGNATURE}, 4))
    host.hear(1, early)
    host.commit(late, proof=proof)
    host.commit(early)
    assert host.of(Execute) == []
    assert [to for to, _ in host.messages(FetchBodies)] == [2]
    host.hear(3, late)
    assert [execute.position for execute in host.of(Execute)] == [1, 2]
    assert [execute.first_height for execute in host.of(Execute)] == [1, 2]
    assert host.of(Execute)[0].certificate == proof.certificate


def test_empty_positions_execute_without_a_height():
    host = fresh()
    host.commit()
    body = batch_of(open_session())
    host.hear(1, body)
    host.commit(body)
    assert [(each.position, each.first_height) for each in host.of(Execute)] == [(1, 1), (2, 1)]


def test_a_position_that_is_known_already_is_not_decided_twice():
    host = fresh()
    host.commit()
    host.do(Commit(1, (body_of("x").ref,), CommitProof()))
    assert host.replica.commits.position == 1
    assert host.replica.commits.height == 0


# --- Offers ----------------------------------------------------------------------------------------------------------


def test_the_engine_offers_to_others_only():
    host = fresh()
    body = body_of("one")
    host.do(Offer((body.ref,), 0), Offer((), 1), Offer((body.ref,), 1))
    assert [(to, message.refs) for to, message in host.messages(OfferBodies)] == [(1, (body.ref,))]


def test_an_offered_batch_that_is_unknown_is_fetched_from_who_offers():
    host = fresh()
    body = body_of("one", origin=2)
    host.hear(3, OfferBodies((body.ref,)))
    assert [to for to, _ in host.messages(FetchBodies)] == [3]
    host.hear(3, body)
    assert host.replica.payloads.holds(body.ref)
    host.hear(3, OfferBodies((body.ref,)))
    assert len(host.messages(FetchBodies)) == 1


def test_an_offered_batch_that_was_decided_is_answered_with_the_proof():
    host = fresh()
    body = body_of("one")
    host.hear(1, body)
    host.commit()
    proof = CommitProof(None, b"links")
    host.commit(body, proof=proof)
    host.hear(3, OfferBodies((body.ref,)))
    ((to, answer),) = host.messages(Commits)
    assert to == 3
    assert [(entry.position, entry.refs, entry.proof) for entry in answer.entries] == [(2, (body.ref,), proof)]
    assert host.messages(FetchBodies) == []


def test_a_liar_cannot_fill_memory_with_offers():
    host = fresh(origin_batches=1000)
    for start in range(0, 2000, 200):
        digests = [number.to_bytes(32, "big") for number in range(start, start + 200)]
        refs = [msgspec.structs.replace(body_of("x").ref, digest=digest) for digest in digests]
        host.hear(3, OfferBodies(tuple(refs)))
    assert len(host.replica.payloads.missing) <= 64


# --- Clients ---------------------------------------------------------------------------------------------------------


def test_a_request_goes_into_a_batch_that_is_stored_and_sent_to_everybody():
    host = fresh()
    host.request(open_session())
    (body,) = [record for record in host.records if record.kind == RecordKind.BODY]
    assert len([to for to, message in host.sent if hasattr(message, "blob")]) == 3
    (available,) = host.engine.told(Available)
    host.commit(*available.refs)
    (answer,) = host.answers
    assert isinstance(answer.reply, SessionOpened)
    assert body.index == 1


def test_commands_run_from_submission_to_reply():
    host = fresh()
    for request in (open_session(), envelope((1, 0), 1, [b"a", b"b"])):
        host.request(request)
        host.commit(*host.engine.told(Available)[-1].refs)
    assert isinstance(host.answers[-1].reply, Reply)
    assert host.answers[-1].reply.results == (b"1:a", b"2:b")
    assert host.replica.mempool.idle


def test_too_much_is_refused_with_a_time_and_too_large_without():
    host = fresh(collect_bytes=100, batches_in_flight=0, progress_ms=250)
    sizes = {1: 90, 2: 90, 3: 5000}
    out = host.submit(*(Submission(token, b"%d" % token, b"x" * size, 1) for token, size in sizes.items()))
    assert [(refuse.token, refuse.retry_after_ms > 0) for refuse in refusals(out)] == [(2, True), (3, False)]


def test_while_execution_lags_clients_are_refused():
    host = fresh(execution_lag=2)
    host.executing = False
    for _ in range(3):
        host.commit()
    assert [refuse.reason for refuse in refusals(host.request(open_session(), token=9))] == ["overloaded"]
    host.step(Executed(0, 3))
    assert refusals(host.request(open_session(), token=9)) == []


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def test_at_a_checkpoint_the_roots_are_voted_for_once_they_are_executed():
    host = fresh()
    host.executing = False
    for _ in range(5):
        host.commit()
    assert host.messages(CheckpointVote) == []
    state_root, sessions_root = host.executor.roots()
    host.step(Executed(0, 4, state_root, sessions_root))
    votes = [message for _, message in host.messages(CheckpointVote)]
    assert len(votes) == 3
    assert votes[0].checkpoint.position == 4
    assert votes[0].signature == SIGNATURE


def test_a_quorum_makes_it_stable_and_the_engine_is_told():
    host = fresh()
    for _ in range(4):
        host.commit()
    vote = host.messages(CheckpointVote)[0][1]
    for sender in (1, 2):
        assert host.replica.checkpoints.stable.position == 0
        host.hear(sender, vote)
    assert host.replica.checkpoints.stable.position == 4
    assert [event.checkpoint.position for event in host.engine.told(Stable)] == [4]
    assert host.records[-1].kind == RecordKind.STABLE
    assert host.replica.guard.low_mark == 4


def test_a_certificate_for_what_is_not_executed_yet_waits():
    host = fresh()
    host.executing = False
    for _ in range(4):
        host.commit()
    roots = host.executor.roots()
    checkpoint = checkpoint_at(4, 0)
    own = host.replica.commits.roots_at(4)
    assert own is not None
    good = certified(msgspec.structs.replace(checkpoint, log_root=own[1], state_root=roots[0], sessions_root=roots[1]))
    host.hear(1, StableCheckpoint(good))
    assert host.replica.checkpoints.stable.position == 0
    host.step(Executed(0, 4, *roots))
    assert host.replica.checkpoints.stable == good


def test_a_state_that_differs_from_the_certified_one_halts_the_replica():
    host = fresh()
    for _ in range(4):
        host.commit()
    host.hear(1, StableCheckpoint(certified(checkpoint_at(4))))
    assert host.reports("diverged")
    assert "position 4" in host.replica.halted
    assert host.engine.told(Stable) == []
    assert host.replica.step(TimerFired(9, "engine/x")) == []
    assert host.request(open_session()) == []


def test_two_votes_of_a_member_are_accused():
    host = fresh()
    for root in (A, B):
        host.hear(2, CheckpointVote(checkpoint_at(4, root=root), SIGNATURE))
    (report,) = host.reports("accused")
    assert report.data.signer == 2


def test_execution_that_is_reported_twice_or_too_early_changes_nothing():
    host = fresh()
    host.executing = False
    host.commit()
    host.step(Executed(0, 9))
    assert host.replica.commits.executed == 0
    host.step(Executed(0, 1))
    host.step(Executed(0, 1))
    assert host.replica.commits.executed == 1


def test_a_snapshot_whose_position_was_passed_over_is_taken_again():
    host = fresh(snapshot_positions=4)
    for _ in range(8):
        host.commit()
    votes = {message.checkpoint.position: message for _, message in host.messages(CheckpointVote)}
    host.kept.clear()
    host.replica.pending_snapshots.clear()
    host.replica.pending_snapshots.append(4)
    host.hear(1, StableCheckpoint(certified(votes[8].checkpoint)))
    assert host.saved is None
    for _ in range(4):
        host.commit()
    votes = {message.checkpoint.position: message for _, message in host.messages(CheckpointVote)}
    host.hear(1, StableCheckpoint(certified(votes[12].checkpoint)))
    assert host.saved is not None
    assert host.saved[0].position == 12
