"""Catching up: by decided positions, by a state, past liars and silence."""

from __future__ import annotations

import pytest

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.inputs import Available, Stable, Synced
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import Behind
from bftkit.replica.inputs import PeerUp
from bftkit.replica.messages import (
    CheckpointVote,
    Commits,
    FetchBodies,
    FetchCommits,
    OfferBodies,
    Progress,
    StableCheckpoint,
)
from bftkit.replica.settings import ReplicaTuning
from bftkit.replica.sync_timers import SYNC_TIMER
from tests.replica.parts import (
    Host,
    Net,
    batch_of,
    certified,
    checkpoint_at,
    envelope,
    open_session,
    scripted_spec,
    settings_of,
)


def host_of(own: int, **tuning) -> Host:
    return Host(settings_of(own, tuning=ReplicaTuning(**tuning)))


def pair(**tuning) -> tuple[Net, Host, Host]:
    ahead, behind = host_of(0, **tuning), host_of(1, **tuning)
    return Net([ahead, behind]), ahead, behind


def decide(host: Host, positions: int, *, bodies: bool = True) -> None:
    """Let one replica alone decide positions, as if the others had voted with it."""
    for _ in range(positions):
        position = host.replica.commits.position + 1
        request = open_session() if position == 1 else envelope((1, 0), position, [b"%d" % position], position - 1)
        body = batch_of(request, origin=2)
        if bodies:
            host.hear(2, body)
        host.commit(body)


def make_stable(host: Host, position: int) -> CheckpointCertificate:
    own = host.replica.checkpoints.own_checkpoint(position)
    assert own is not None
    certificate = certified(own)
    host.hear(3, StableCheckpoint(certificate))
    return certificate


def states(*hosts: Host) -> list[tuple]:
    return [(host.replica.commits.position, host.executor.height, host.executor.roots()) for host in hosts]


def settle(net: Net, rounds: int = 30) -> None:
    net.run()
    for _ in range(rounds):
        net.tick()


# --- Telling and falling silent --------------------------------------------------------------------------------------


def test_members_greet_each_other_when_a_channel_opens():
    host = host_of(0)
    host.start()
    host.step(PeerUp(0, 2))
    assert host.messages(Progress) == [(2, Progress(0, 0, 0))]


def test_members_that_are_equal_fall_silent():
    net, ahead, behind = pair()
    net.start()
    for host in (ahead, behind):
        decide(host, 3)
    settle(net)
    before = len(net.delivered)
    net.tick(5)
    assert len(net.delivered) == before
    assert not ahead.timers
    assert not behind.timers


def test_a_vote_that_is_not_stable_is_repeated_until_it_is():
    net, ahead, behind = pair()
    net.start()
    for host in (ahead, behind):
        decide(host, 4)
    net.run()
    net.tick(3)
    votes = [message for _, to, message in net.delivered if isinstance(message, CheckpointVote) and to == 1]
    assert len(votes) >= 3
    certificate = make_stable(ahead, 4)
    settle(net)
    assert behind.replica.checkpoints.stable == certificate
    assert not ahead.timers
    assert not behind.timers


# --- By decided positions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [1, 3, 70, 200])
def test_who_lags_fetches_what_was_decided_and_its_bodies(positions):
    net, ahead, behind = pair()
    ahead.start()
    decide(ahead, positions)
    ahead.sent.clear()
    net.hosts = {1: behind, 0: ahead}
    behind.start()
    for one, other in ((ahead, 1), (behind, 0)):
        one.step(PeerUp(0, other))
    settle(net)
    assert len(set(states(ahead, behind))) == 1
    assert states(behind)[0][0] == positions
    told = behind.engine.told(Synced)
    assert told[-1].position == positions
    assert sum(len(event.refs) for event in told) == positions
    assert behind.reports("caught up")
    before = len(net.delivered)
    for host in (ahead, behind):
        host.timers.pop("replica/fetch", None)
    if positions < 4:
        net.tick(3)
        assert len(net.delivered) == before


def test_a_replica_that_lags_in_stability_gets_the_certificate():
    net, ahead, behind = pair()
    net.start()
    for host in (ahead, behind):
        decide(host, 5)
    certificate = make_stable(ahead, 4)
    settle(net)
    assert behind.replica.checkpoints.stable == certificate
    assert behind.engine.told(Stable)


def test_the_engine_may_ask_for_a_transfer():
    host = host_of(0, sync_grace_ms=100)
    host.start()
    host.do(Behind(9, (2, 3)))
    host.fire("replica/sync")
    assert [(to, message.after) for to, message in host.messages(FetchCommits)] == [(2, 0)]
    host.fire("replica/sync")
    assert [to for to, _ in host.messages(FetchCommits)] == [2, 3]


def test_a_certificate_that_is_ahead_makes_a_replica_ask_its_signers():
    host = host_of(0)
    host.start()
    host.hear(3, StableCheckpoint(certified(checkpoint_at(8), signers=(1, 2, 3))))
    host.fire("replica/sync")
    assert [to for to, _ in host.messages(FetchCommits)] == [1]
    assert host.replica.checkpoints.ahead is not None


def test_a_liar_who_claims_to_be_ahead_wastes_requests_and_stops_nobody():
    net, ahead, behind = pair()
    net.start()
    decide(ahead, 3)
    ahead.sent.clear()
    behind.hear(3, Progress(10**9, 0, 0))
    behind.hear(2, Progress(10**9, 0, 0))
    settle(net)
    assert len(set(states(ahead, behind))) == 1


def test_a_liar_who_is_alone_ahead_is_asked_and_then_forgotten():
    host = host_of(0)
    host.start()
    host.hear(3, Progress(10**9, 0, 0))
    for _ in range(5):
        if "replica/sync" in host.timers:
            host.fire("replica/sync")
    assert 1 <= len(host.messages(FetchCommits)) <= 3
    assert "replica/sync" not in host.timers


def test_whoever_answers_out_of_turn_that_it_is_ahead_is_asked_for_the_rest():
    host = host_of(0)
    host.start()
    host.hear(3, Commits((), 9))
    host.fire("replica/sync")
    assert [to for to, _ in host.messages(FetchCommits)] == [3]


def test_entries_with_a_gap_above_are_left_alone_and_old_ones_end_a_wait():
    net, ahead, behind = pair()
    net.start()
    decide(ahead, 4)
    decide(behind, 2)
    entries = tuple(ahead.replica.commits)
    behind.replica.catch_up.timers[SYNC_TIMER] = False
    behind.hear(0, Commits(entries[3:], 4))
    assert behind.replica.commits.position == 2
    assert behind.replica.catch_up.timers[SYNC_TIMER], "it asks for what lies between"
    behind.engine.inputs.clear()
    behind.hear(0, Commits(entries[:1], 4))
    (synced,) = behind.engine.told(Synced)
    assert (synced.position, synced.refs) == (2, entries[0].refs)
    assert behind.replica.commits.position == 2


def test_more_is_asked_for_only_while_execution_keeps_up():
    net, ahead, behind = pair(sync_entries=500)
    net.start()
    decide(ahead, 300)
    net.lose = lambda sender, to, message: isinstance(message, FetchBodies)
    for host in (ahead, behind):
        host.sent.clear()
    behind.hear(0, Commits(tuple(ahead.replica.commits)[:260], 300))
    assert behind.replica.commits.position == 260
    assert behind.messages(FetchCommits) == []


# --- What was lost or forgotten --------------------------------------------------------------------------------------


def test_whoever_asks_how_far_one_is_gets_an_answer_even_from_an_equal():
    host = host_of(0)
    host.start()
    host.hear(1, Progress(0, 0, 0))
    assert host.messages(Progress) == []
    host.hear(1, Progress(0, 0, 0, asks=True))
    assert host.messages(Progress) == [(1, Progress(0, 0, 0))]


def test_a_member_that_has_not_been_heard_is_asked():
    host = host_of(0)
    host.start()
    host.step(PeerUp(0, 1))
    host.fire("replica/progress")
    host.sent.clear()
    host.fire("replica/progress")
    assert host.messages(Progress) == [(1, Progress(0, 0, 0, asks=True))]


def test_two_of_whom_each_is_ahead_in_something_do_not_answer_each_other_for_ever():
    host = host_of(0)
    host.start()
    decide(host, 8)
    make_stable(host, 4)
    for _ in range(3):
        host.hear(1, Progress(7, 7, 8))
    assert len(host.messages(Progress)) == 1


def test_a_batch_that_was_decided_too_long_ago_to_prove_it_is_ordered_again_for_whoever_still_watches_it():
    host = Host(settings_of(0, tuning=ReplicaTuning(snapshot_positions=4), spec=scripted_spec(window=8)))
    host.start()
    decide(host, 4)
    body = batch_of(open_session(nonce=b"n" * 16), origin=2)
    host.hear(2, body)
    host.commit(body)
    decide(host, 3)
    make_stable(host, 4)
    make_stable(host, 8)
    host.hear(1, OfferBodies((body.ref,)))
    assert [message.entries[0].refs for _, message in host.messages(Commits)] == [(body.ref,)]
    host.replica.commits.trim(8)
    host.hear(1, OfferBodies((body.ref,)))
    assert host.engine.told(Available)[-1].refs == (body.ref,)
    assert host.replica.mempool.uncommitted == (body.ref,)


def test_a_proof_of_what_is_known_lets_the_body_go_with_the_next_snapshot():
    host = host_of(1)
    host.start()
    decide(host, 3)
    stale = batch_of(open_session(nonce=b"n" * 16), origin=2)
    host.hear(2, stale)
    host.hear(0, Commits((CommitEntry(2, (stale.ref,), CommitProof()),), 3))
    assert host.replica.payloads.decided_at(stale.ref.digest) == 2
    assert host.replica.mempool.uncommitted == ()
