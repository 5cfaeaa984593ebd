"""Snapshots: served to those who lag, and saved by them too."""

from bftkit.replica.messages import CheckpointVote, FetchSnapshot, SnapshotAvailable, StableCheckpoint
from bftkit.replica.outputs import SendSnapshotChunk
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import Host, certified, settings_of
from tests.replica.test_catch_up import decide, make_stable


def test_a_snapshot_that_is_being_fetched_is_served_on_when_a_newer_one_is_there():
    host = Host(settings_of(0, tuning=ReplicaTuning(snapshot_positions=4)))
    host.start()
    for position in (4, 8, 12):
        decide(host, 4)
        make_stable(host, position)
    host.hear(1, FetchSnapshot(8, 0, 100))
    assert host.outputs[-1] == SendSnapshotChunk(1, 8, 0, 100)
    host.hear(1, FetchSnapshot(4, 0, 100))
    assert [message.certificate.position for _, message in host.messages(SnapshotAvailable)] == [12]


def test_who_hears_of_every_second_checkpoint_only_saves_its_state_all_the_same():
    host = Host(settings_of(0, tuning=ReplicaTuning(snapshot_positions=8)))
    host.start()
    saved = []
    for stable in range(8, 72, 8):
        while host.replica.commits.position < stable + 4:
            host.commit()
        votes = {message.checkpoint.position: message for _, message in host.messages(CheckpointVote)}
        host.hear(1, StableCheckpoint(certified(votes[stable + 4].checkpoint)))
        saved.append(host.saved[0].position if host.saved is not None else 0)
    assert saved[-1] >= 60, saved
    assert host.replica.commits.base >= 40
