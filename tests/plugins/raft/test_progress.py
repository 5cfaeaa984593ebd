"""A leader's view of one follower."""

from __future__ import annotations

from bftkit_raft.progress import Mode, Progress, size_of
from tests.plugins.raft.parts import batch, entry


def replicating() -> Progress:
    progress = Progress(6, 0)
    progress.accepted(5)
    return progress


def test_a_probe_that_is_accepted_begins_replication():
    progress = Progress(6, 0)
    assert progress.mode is Mode.PROBE
    assert progress.accepted(5)
    assert (progress.mode, progress.match, progress.next) == (Mode.REPLICATE, 5, 6)


def test_an_acknowledgement_counts_once():
    progress = replicating()
    progress.sent(8, 100)
    assert progress.accepted(8)
    assert not progress.accepted(8)
    assert not progress.accepted(6)
    assert (progress.match, progress.next) == (8, 9)


def test_what_is_on_its_way_is_bounded_in_messages_and_bytes():
    progress = replicating()
    for last in (6, 7, 8):
        progress.sent(last, 100)
    assert progress.is_full(3, 1_000)
    assert progress.is_full(9, 300)
    assert not progress.is_full(4, 301)
    progress.accepted(7)
    assert not progress.is_full(2, 101)


def test_what_is_not_acknowledged_for_two_heartbeats_is_sent_again():
    progress = replicating()
    progress.tick()
    progress.sent(9, 100)
    progress.tick()
    assert progress.mode is Mode.REPLICATE
    progress.tick()
    assert (progress.mode, progress.next) == (Mode.PROBE, 6)
    assert not progress.is_full(1, 1)


def test_progress_puts_that_off():
    progress = replicating()
    progress.tick()
    for last in range(6, 12):
        progress.sent(last + 1, 10)
        progress.accepted(last)
        progress.tick()
        assert progress.mode is Mode.REPLICATE


def test_a_probe_never_goes_below_what_is_known():
    progress = replicating()
    progress.probe(2)
    assert progress.next == 6


def test_sizes_count_references_not_bodies():
    assert size_of((entry(1), entry(1, batch("a", size=200_000)))) < 200
