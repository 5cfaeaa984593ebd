"""Serving snapshots to those who lag."""

from bftkit.replica.messages import FetchSnapshot, SnapshotAvailable
from bftkit.replica.outputs import SendSnapshotChunk
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import Host, settings_of
from tests.replica.test_catch_up import decide, make_stable


def test_a_snapshot_that_is_being_fetched_is_served_on_when_a_newer_one_is_there():
    host = Host(settings_of(0, tuning=ReplicaTuning(snapshot_positions=4)))
    host.start()
    for position in (4, 8, 12):
        decide(host, 4)
        make_stable(host, position)
    host.hear(1, FetchSnapshot(8, 0))
    assert host.outputs[-1] == SendSnapshotChunk(1, 8, 0, host.settings.tuning.snapshot_chunk_bytes)
    host.hear(1, FetchSnapshot(4, 0))
    assert [message.certificate.position for _, message in host.messages(SnapshotAvailable)] == [12]
