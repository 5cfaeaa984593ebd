"""Catching up: by decided positions, by a state, past liars and silence."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.inputs import Available, Stable, Synced
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import Behind
from bftkit.replica.catch_up import SYNC_TIMER
from bftkit.replica.inputs import PeerUp, SnapshotInstalled
from bftkit.replica.messages import (
    CheckpointVote,
    Commits,
    FetchBodies,
    FetchCommits,
    FetchSnapshot,
    OfferBodies,
    Progress,
    SnapshotAvailable,
    SnapshotChunk,
    StableCheckpoint,
)
from bftkit.replica.outputs import InstallSnapshot
from bftkit.replica.settings import ReplicaTuning
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


# --- By a state ------------------------------------------------------------------------------------------------------


def snapshot_pair(positions: int = 10, **tuning) -> tuple[Net, Host, Host]:
    """One who has trimmed its log at position 8, and one who knows nothing yet."""
    net, ahead, behind = pair(snapshot_positions=8, snapshot_chunk_bytes=16, **tuning)
    ahead.start()
    decide(ahead, positions)
    make_stable(ahead, 8)
    assert ahead.saved is not None
    assert ahead.replica.commits.base == 8
    ahead.sent.clear()
    ahead.timers.clear()
    return net, ahead, behind


def connect(net: Net, ahead: Host, behind: Host) -> None:
    behind.start()
    for one, other in ((ahead, behind.own), (behind, ahead.own)):
        one.step(PeerUp(0, other))
    net.run()


def test_who_lags_behind_a_trimmed_log_takes_over_a_state_and_then_the_rest():
    net, ahead, behind = snapshot_pair()
    connect(net, ahead, behind)
    settle(net)
    assert len(set(states(ahead, behind))) == 1
    chunks = [message for _, _, message in net.delivered if isinstance(message, SnapshotChunk)]
    assert len(chunks) > 3
    assert behind.replica.checkpoints.stable.position == 8
    assert behind.replica.guard.low_mark == 8
    assert behind.replica.snapshot is not None
    assert behind.replica.commits.base == 8
    assert behind.saved == ahead.saved
    again = behind.restarted()
    again.start()
    assert states(again) == states(ahead)


def test_learning_a_state_gives_back_no_right_to_vote():
    net, ahead, behind = snapshot_pair()
    behind.replica.guard.floor = 5
    connect(net, ahead, behind)
    settle(net)
    assert behind.replica.guard.floor == 5


def test_a_state_that_is_not_what_its_certificate_says_is_refused_and_its_giver_distrusted():
    net, ahead, behind = snapshot_pair()
    good = ahead.saved
    assert good is not None
    ahead.saved = (good[0], good[1][:-1] + b"!")
    net.lose = lambda sender, to, message: to != 1 and sender == 1 and isinstance(message, CheckpointVote)
    connect(net, ahead, behind)
    settle(net, 3)
    assert behind.replica.commits.position == 0
    assert behind.executor.height == 0
    assert behind.reports("rejected")
    installs = len(behind.of(InstallSnapshot))
    ahead.step(PeerUp(0, 1))
    settle(net)
    assert len(behind.of(InstallSnapshot)) == installs == 1
    helper = host_of(2, snapshot_positions=8, snapshot_chunk_bytes=16)
    helper.start()
    decide(helper, 10)
    make_stable(helper, 8)
    helper.sent.clear()
    net.hosts[2] = helper
    for one, other in ((helper, 1), (behind, 2)):
        one.step(PeerUp(0, other))
    settle(net)
    assert states(behind) == states(helper)


def test_a_download_that_stalls_is_given_up_and_begun_elsewhere():
    net, ahead, behind = snapshot_pair()
    net.lose = lambda sender, to, message: isinstance(message, SnapshotChunk) and message.offset > 40
    connect(net, ahead, behind)
    settle(net, 1)
    assert behind.replica.catch_up.download is not None
    settle(net, 6)
    begun = [message for _, _, message in net.delivered if message == FetchSnapshot(8, 0)]
    assert len(begun) > 1
    assert behind.replica.commits.position == 0
    net.lose = lambda sender, to, message: False
    for one, other in ((ahead, 1), (behind, 0)):
        one.step(PeerUp(0, other))
    settle(net)
    assert states(behind) == states(ahead)


def test_a_download_whose_source_is_gone_is_given_up():
    net, ahead, behind = snapshot_pair()
    net.lose = lambda sender, to, message: isinstance(message, SnapshotChunk)
    connect(net, ahead, behind)
    behind.fire("replica/sync")
    net.run()
    assert behind.replica.catch_up.download is not None
    net.part(0, 1)
    assert behind.replica.catch_up.download is None


def offered(host: Host, **fields) -> SnapshotAvailable:
    message = SnapshotAvailable(certified(checkpoint_at(8, 8)), 100)
    return msgspec.structs.replace(message, **fields)


def test_offers_of_states_that_help_nobody_are_ignored():
    host = host_of(0)
    host.start()
    decide(host, 9)
    host.sent.clear()
    host.hear(2, offered(host))
    assert host.messages(FetchSnapshot) == []
    behind = host_of(0)
    behind.start()
    for size in (0, 2**60):
        behind.hear(2, offered(behind, size=size))
    assert len(behind.reports("rejected")) == 2
    behind.hear(2, offered(behind))
    behind.hear(3, offered(behind))
    assert [to for to, _ in behind.messages(FetchSnapshot)] == [2]
    behind.hear(3, offered(behind, certificate=certified(checkpoint_at(12, 12))))
    assert [to for to, _ in behind.messages(FetchSnapshot)] == [2, 3]


def test_chunks_out_of_place_are_ignored():
    host = host_of(0)
    host.start()
    host.hear(2, offered(host))
    download = host.replica.catch_up.download
    assert download is not None
    for sender, chunk in [
        (3, SnapshotChunk(8, 100, 0, b"x")),
        (2, SnapshotChunk(4, 100, 0, b"x")),
        (2, SnapshotChunk(8, 99, 0, b"x")),
        (2, SnapshotChunk(8, 100, 1, b"x")),
        (2, SnapshotChunk(8, 100, 0, b"")),
    ]:
        host.hear(sender, chunk)
        assert download.received == 0
    host.hear(2, SnapshotChunk(8, 100, 0, b"x" * 60))
    host.hear(2, SnapshotChunk(8, 100, 0, b"x" * 60))
    assert download.received == 60
    host.executing = False
    host.hear(2, SnapshotChunk(8, 100, 60, b"x" * 40))
    (install,) = host.of(InstallSnapshot)
    assert b"".join(install.data) == b"x" * 100
    assert host.replica.catch_up.installing


def test_a_replica_that_lacks_only_bodies_that_are_gone_takes_over_the_state():
    net, ahead, behind = pair(snapshot_positions=8, snapshot_chunk_bytes=16)
    net.start()
    decide(ahead, 10)
    entries = tuple(ahead.replica.commits)
    make_stable(ahead, 8)
    for host in (ahead, behind):
        host.sent.clear()
    behind.hear(0, Commits(entries, 10))
    assert behind.replica.commits.position == 10
    assert behind.executor.height == 0
    settle(net)
    assert states(behind) == states(ahead)
    assert behind.replica.commits.base == 8


def test_what_was_decided_above_a_state_is_executed_once_it_is_there():
    """The bodies above had arrived before: nothing else would set their execution going."""
    net, ahead, behind = pair(snapshot_positions=8, snapshot_chunk_bytes=10**6)
    net.start()
    decide(ahead, 10)
    entries = tuple(ahead.replica.commits)
    bodies = [ahead.bodies[ref.digest] for entry in entries[8:] for ref in entry.refs]
    certificate = make_stable(ahead, 8)
    assert ahead.saved is not None
    behind.hear(0, Commits(entries, 10))
    for body in bodies:
        behind.hear(2, body)
    assert behind.executor.height == 0
    behind.hear(0, SnapshotAvailable(certificate, len(ahead.saved[1])))
    behind.hear(0, SnapshotChunk(8, len(ahead.saved[1]), 0, ahead.saved[1]))
    assert behind.replica.commits.executed == 10
    assert states(behind) == states(ahead)


def test_a_state_whose_log_is_another_one_halts_the_replica():
    host = host_of(0)
    host.start()
    host.executing = False
    for _ in range(8):
        host.commit()
    other = certified(checkpoint_at(8, 3))
    host.step(SnapshotInstalled(0, other, 10))
    assert "position 8" in host.replica.halted
    assert host.reports("diverged")


def test_a_state_that_the_application_refused_leads_to_another_attempt():
    host = host_of(0)
    host.start()
    host.executing = False
    host.hear(2, Progress(8, 8, 8))
    host.hear(2, offered(host, size=1))
    host.hear(2, SnapshotChunk(8, 1, 0, b"x"))
    host.step(SnapshotInstalled(0, certified(checkpoint_at(8, 8)), 1, "bad"))
    assert not host.replica.catch_up.installing
    assert "replica/sync" in host.timers
    host.hear(2, offered(host, size=1))
    assert host.replica.catch_up.download is None
    host.hear(2, offered(host, certificate=certified(checkpoint_at(12, 12))))
    assert host.replica.catch_up.download is not None


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
