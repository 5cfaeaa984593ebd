"""States that are fetched: from whom, in which parts, past members that drip, boast, stall or lie."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.quorum import FaultModel
from bftkit.replica.inputs import PeerUp, SnapshotInstalled
from bftkit.replica.messages import (
    CheckpointVote,
    Commits,
    FetchSnapshot,
    Progress,
    SnapshotAvailable,
    SnapshotChunk,
)
from bftkit.replica.outputs import InstallSnapshot
from bftkit.replica.settings import ReplicaTuning
from bftkit.replica.state_transfer import MAX_SNAPSHOT_BYTES, PATIENCE, WRONG_PART, Download
from tests.replica.parts import Host, Net, certified, checkpoint_at, scripted_spec, settings_of
from tests.replica.test_catch_up import decide, host_of, make_stable, pair, settle, states


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


def test_a_download_that_stalls_is_asked_for_until_it_goes_on():
    net, ahead, behind = snapshot_pair()
    net.lose = lambda sender, to, message: isinstance(message, SnapshotChunk) and message.offset > 40
    connect(net, ahead, behind)
    settle(net, 1)
    assert behind.replica.state_transfer.download is not None
    settle(net, 6)
    again = [message for _, _, message in net.delivered if message == FetchSnapshot(8, 48, 16)]
    assert len(again) > 1
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
    assert behind.replica.state_transfer.download is not None
    net.part(0, 1)
    assert behind.replica.state_transfer.download is None


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
    assert [to for to, _ in behind.messages(FetchSnapshot)] == [2], "what moves is left alone"


def test_chunks_out_of_place_are_ignored():
    host = host_of(0, snapshot_chunk_bytes=60)
    host.start()
    host.hear(2, offered(host))
    download = host.replica.state_transfer.download
    assert download is not None
    for sender, chunk in [
        (3, SnapshotChunk(8, 100, 0, b"x")),
        (2, SnapshotChunk(4, 100, 0, b"x")),
        (2, SnapshotChunk(8, 99, 0, b"x")),
        (2, SnapshotChunk(8, 100, 1, b"x")),
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
    assert host.replica.state_transfer.installing is download


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


def test_a_state_that_is_kept_above_the_one_taken_over_is_saved_when_it_is_certified():
    net, ahead, behind = pair(snapshot_positions=8, snapshot_chunk_bytes=10**6)
    net.start()
    decide(ahead, 17)
    entries = tuple(ahead.replica.commits)
    bodies = [ahead.bodies[ref.digest] for entry in entries for ref in entry.refs]
    votes = {message.checkpoint.position: message for _, message in ahead.messages(CheckpointVote)}
    certificate, data = certified(votes[8].checkpoint), ahead.kept[8]
    behind.hear(0, Commits(entries, 17))
    behind.hear(0, SnapshotAvailable(certificate, len(data)))
    behind.executing = False
    behind.hear(0, SnapshotChunk(8, len(data), 0, data))
    for body in bodies:
        behind.hear(2, body)
    assert list(behind.replica.pending_snapshots) == [8, 16]
    behind.executing = True
    install, *executions = behind.jobs
    for event in behind.run(install):
        behind.step(event)
    assert list(behind.replica.pending_snapshots) == [16]
    for job in executions:
        for event in behind.run(job) if job.position > 8 else ():
            behind.step(event)
    make_stable(behind, 16)
    assert behind.saved is not None
    assert behind.saved[0].position == 16


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
    assert host.replica.state_transfer.installing is None
    assert "replica/sync" in host.timers
    host.hear(2, offered(host, size=1))
    assert host.replica.state_transfer.download is None
    host.hear(2, offered(host, certificate=certified(checkpoint_at(12, 12))))
    assert host.replica.state_transfer.download is None, "others who might have it come first"
    host.fire("replica/sync")
    assert host.replica.state_transfer.download is not None


# --- Which source, and for how long ----------------------------------------------------------------------------------

PART = 10


def fetching(*offers: tuple[int, int], members: int = 4) -> Host:
    """A member that lags and has got offers: from whom, and of which size."""
    host = Host(settings_of(0, members, tuning=ReplicaTuning(snapshot_chunk_bytes=PART)))
    host.start()
    for member, size in offers:
        host.hear(member, offered(host, size=size))
    return host


def download_of(host: Host) -> Download:
    download = host.replica.state_transfer.download
    assert download is not None
    return download


def send_part(host: Host, data: bytes = b"x" * PART) -> None:
    download = download_of(host)
    host.hear(download.source, SnapshotChunk(8, download.size, download.received, data))


@pytest.mark.parametrize("data", [b"", b"x", b"x" * (PART - 1), b"x" * (PART + 1)])
def test_a_source_whose_parts_are_not_as_long_as_was_asked_for_is_given_up_at_once(data):
    host = fetching((2, 100), (3, 100))
    assert host.messages(FetchSnapshot) == [(2, FetchSnapshot(8, 0, PART))]
    send_part(host)
    send_part(host, data)
    assert host.replica.state_transfer.download is None
    assert [(report.detail, report.data) for report in host.reports("rejected")] == [(WRONG_PART, 2)]
    host.fire("replica/sync")
    assert (download_of(host).source, download_of(host).received) == (3, 0)


def test_only_the_last_part_may_be_shorter():
    host = fetching((2, PART + 3))
    host.executing = False
    send_part(host)
    assert host.messages(FetchSnapshot)[-1] == (2, FetchSnapshot(8, PART, 3))
    send_part(host, b"xxx")
    assert [b"".join(job.data) for job in host.jobs] == [b"x" * (PART + 3)]


def test_a_download_that_brings_a_part_between_two_looks_goes_on():
    host = fetching((2, 100), (3, 100))
    for _ in range(8):
        host.fire("replica/sync")
        send_part(host)
    assert (download_of(host).source, download_of(host).received) == (2, 80)


def test_a_download_that_pauses_gives_way_to_a_member_that_has_not_failed():
    host = fetching((2, 100), (3, 100))
    host.fire("replica/sync")
    host.fire("replica/sync")
    assert download_of(host).source == 3
    assert host.replica.state_transfer.failed == [0, 0, 1, 0]


def test_what_was_lost_is_asked_for_again_for_as_long_as_nobody_else_has_a_state():
    host = fetching((2, 100))
    host.fire("replica/sync")
    for _ in range(PATIENCE - 1):
        host.sent.clear()
        host.fire("replica/sync")
        assert host.messages(FetchSnapshot) == [(2, FetchSnapshot(8, 0, PART))]
    send_part(host)
    for _ in range(2 * PATIENCE):
        host.fire("replica/sync")
    assert (download_of(host).received, host.replica.state_transfer.failures) == (PART, 0)


def test_patience_ends_where_others_have_a_state_even_if_they_failed_later():
    host = fetching((2, 100), (3, 100))
    host.replica.state_transfer.failed[3] = host.replica.state_transfer.failures = 1
    host.fire("replica/sync")
    for _ in range(PATIENCE):
        assert download_of(host).source == 2
        host.fire("replica/sync")
    assert download_of(host).source == 3


def test_who_has_failed_is_asked_again_when_nobody_else_has_a_state():
    host = fetching((2, 100))
    send_part(host, b"")
    host.hear(2, offered(host))
    assert host.replica.state_transfer.download is None, "others may come first"
    host.fire("replica/sync")
    assert download_of(host).source == 2


def test_of_those_who_have_failed_the_one_comes_first_that_failed_longest_ago():
    host = fetching((1, 100), (2, 100), (3, 100))
    turns = []
    for _ in range(9):
        turns.append(download_of(host).source)
        send_part(host, b"")
        host.fire("replica/sync")
    assert turns == [1, 2, 3] * 3


def test_a_member_that_has_failed_does_not_push_another_one_aside():
    host = fetching((2, 100))
    send_part(host, b"")
    host.hear(3, offered(host))
    host.hear(2, offered(host, size=1))
    host.hear(2, offered(host, certificate=certified(checkpoint_at(12, 12))))
    for _ in range(PATIENCE):
        host.fire("replica/sync")
        assert download_of(host).source == 3


def test_a_source_that_has_something_newer_only_is_asked_for_that():
    host = fetching((2, 100))
    send_part(host)
    host.fire("replica/sync")
    host.hear(2, offered(host, certificate=certified(checkpoint_at(12, 12))))
    assert download_of(host).certificate.position == 8
    host.fire("replica/sync")
    assert (download_of(host).certificate.position, download_of(host).received) == (12, 0)


def test_a_source_that_lost_what_it_offered_goes_on_with_what_took_its_place_and_wins_no_time():
    host = fetching((2, 100))
    host.replica.state_transfer.failed[3] = host.replica.state_transfer.failures = 1
    host.hear(3, offered(host))
    for looks in range(1, PATIENCE + 1):
        newer = certified(checkpoint_at(8 + 4 * looks, 8))
        host.hear(2, offered(host, certificate=newer))
        assert download_of(host).certificate == newer
        host.hear(3, offered(host, certificate=newer))
        host.fire("replica/sync")
    assert download_of(host).source == 3


def test_a_size_is_believed_up_to_twice_what_enough_members_say():
    host = fetching((1, 2**31))
    assert download_of(host).source == 1
    host.hear(2, offered(host, size=50))
    host.hear(3, offered(host, size=100))
    host.fire("replica/sync")
    assert download_of(host).source == 2, "an honest member is among two of them"
    late = fetching((2, 100), (3, 100), (1, 201))
    for _ in range(4 * PATIENCE):
        late.fire("replica/sync")
        assert download_of(late).source != 1
    assert late.replica.state_transfer.failures > 2, "the others had several turns each"


def test_one_member_alone_cannot_make_the_others_sizes_unbelievable():
    host = fetching((1, 1), (2, 100))
    host.hear(1, SnapshotChunk(8, 1, 0, b"xx"))
    host.fire("replica/sync")
    assert download_of(host).source == 2
    host.hear(1, offered(host, size=1))
    host.fire("replica/sync")
    assert download_of(host).source == 2


def test_where_nobody_lies_every_size_is_believed():
    spec = scripted_spec(FaultModel.CRASH)
    host = Host(settings_of(0, 3, spec=spec))
    host.start()
    host.hear(1, offered(host, size=1, certificate=certified(checkpoint_at(8, 8), 3, (0, 1))))
    host.hear(1, SnapshotChunk(8, 1, 0, b"xx"))
    host.hear(2, offered(host, size=MAX_SNAPSHOT_BYTES, certificate=certified(checkpoint_at(8, 8), 3, (0, 1))))
    assert download_of(host).source == 2


def test_a_state_that_was_taken_over_puts_its_source_first_again_and_forgets_all_offers():
    net, ahead, behind = snapshot_pair()
    behind.replica.state_transfer.failed[0] = behind.replica.state_transfer.failures = 5
    connect(net, ahead, behind)
    settle(net)
    assert states(behind) == states(ahead)
    assert behind.replica.state_transfer.failed == [0, 0, 0, 0]
    assert behind.replica.state_transfer.offers == [None] * 4


def test_a_download_that_helps_no_more_is_dropped_and_nobody_blamed():
    host = fetching((2, 100))
    decide(host, 8)
    host.fire("replica/sync")
    transfer = host.replica.state_transfer
    assert (transfer.download, transfer.failures, transfer.offers) == (None, 0, [None] * 4)
