"""The options of Raft."""

import msgspec
import pytest

from bftkit_raft.config import RaftOptions


def test_delays_follow_the_election_timeout_unless_set():
    assert RaftOptions(election_timeout_ms=400, heartbeat_ms=40).relay_after_ms == 100
    assert RaftOptions(relay_delay_ms=7).relay_after_ms == 7


def test_an_election_timeout_is_ten_heartbeats_at_least():
    """ "broadcastTime << electionTimeout" (§3.9)."""
    RaftOptions(election_timeout_ms=500, heartbeat_ms=50)
    with pytest.raises(ValueError, match="heartbeat_ms is 51"):
        RaftOptions(election_timeout_ms=500, heartbeat_ms=51)


@pytest.mark.parametrize(("drift", "lease", "silence"), [(0, 600, 1_200), (10, 490, 1_320), (50, 200, 1_800)])
def test_leases_are_shorter_and_silences_longer_than_the_timeout(drift, lease, silence):
    options = RaftOptions(clock_drift_percent=drift)
    assert (options.lease_ms, options.silence_ms) == (lease, silence)


@pytest.mark.parametrize("drift", range(51))
@pytest.mark.parametrize("timeout", [100, 600, 10_007])
def test_no_lease_lasts_longer_than_a_promise_by_the_worst_clocks(drift, timeout):
    """The leader's clock is slow, the follower's is fast: lease / (1 - d) <= T / (1 + d) in true time."""
    options = RaftOptions(election_timeout_ms=timeout, heartbeat_ms=10, clock_drift_percent=drift)
    assert options.lease_ms * (100 + drift) <= timeout * (100 - drift)


@pytest.mark.parametrize(
    "setting",
    [
        {"in_flight": 0},
        {"batches_per_entry": 65},
        {"election_timeout_ms": 9},
        {"heartbeat_ms": 0},
        {"uncommitted_bytes": 0},
        {"entries_per_message": 0},
        {"peer_messages": 0},
        {"peer_bytes": 0},
        {"relay_delay_ms": -1},
        {"waiting_reads": 0},
        {"clock_drift_percent": 51},
        {"window_factor": 1},
    ],
)
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RaftOptions(**setting)
    with pytest.raises(msgspec.ValidationError, match=next(iter(setting))):
        msgspec.convert(setting, RaftOptions)


def test_unknown_options_are_refused():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"in_fligth": 3}, RaftOptions)
