"""Figures of a run: every key of the contract, and nothing invented."""

import pytest

from bftkit.bench.report import (
    acknowledged_after,
    all_synced,
    all_use_tls,
    commit_gap_ms,
    is_safe,
    longest_pause_ms,
    median_run,
    run_figures,
    table,
)

KEYS = {
    "engine",
    "replicas",
    "payload_bytes",
    "submit",
    "throughput_tx_s",
    "latency_ms",
    "committed",
    "lost",
    "duplicated",
    "equal_state",
    "cpu_s_per_1000_tx",
    "messages_per_block",
    "signatures_per_block",
    "fsyncs_per_block",
    "commands_per_block",
    "tls",
    "fsync",
    "signature_scheme",
    "limit_tx_s",
    "share_of_limit",
    "outstanding",
    "rate",
}
PLAN = {"engine": "pbft", "replicas": 2, "payload_bytes": 128, "submit": "batch", "outstanding": 6400, "rate": None}


def counters(blocks, messages, commands):
    return {"counters": {"blocks": blocks, "messages_sent": messages, "signatures": 2 * blocks, "commands": commands}}


def events(**changes):
    measured = {
        "seconds": 2.0,
        "commands": 4000,
        "throughput_tx_s": 2000.0,
        "p50": 1.0,
        "p99": 2.0,
        "p999": 3.0,
        "max": 4.0,
        "cpu_s": 0.5,
        "generator_cpu_share": 0.1,
        "before": [counters(10, 100, 1000), counters(10, 50, 1000)],
        "after": [counters(30, 300, 5000), counters(29, 150, 4900)],
    }
    verdict = {"lost": 0, "duplicated": 0, "equal_state": True, "unknown": 0}
    return {"measured": {**measured, **changes}, "done": {"acknowledged": 5000, "verdict": verdict}}


def test_a_run_has_every_figure():
    run = run_figures(PLAN, events(), tls=True, fsync=False)
    assert run.keys() >= KEYS
    assert run["latency_ms"] == {"p50": 1.0, "p99": 2.0, "p999": 3.0, "max": 4.0}
    assert run["cpu_s_per_1000_tx"] == pytest.approx(0.125)
    assert run["messages_per_block"] == 300 / 20
    assert run["commands_per_block"] == 4000 / 20
    assert run["committed"] == 5000
    assert run["fsync"] is False
    assert is_safe(run)


def test_what_is_not_known_is_none():
    run = run_figures(PLAN, events(cpu_s=None, after=[{"error": "gone"}, {"error": "gone"}]), tls=True, fsync=True)
    names = ("cpu_s_per_1000_tx", "messages_per_block", "commands_per_block", "limit_tx_s", "share_of_limit")
    assert [run[name] for name in names] == [None] * 5
    assert run["fsyncs_per_block"] is None


def test_the_median_hides_no_damage():
    def run(throughput, **wrong):
        return {"throughput_tx_s": throughput, "lost": 0, "duplicated": 0, "unknown": 0, "equal_state": True, **wrong}

    middle = median_run([run(5), run(1, lost=3), run(3)])
    assert (middle["throughput_tx_s"], middle["repeats"], middle["throughput_spread_tx_s"]) == (3, 3, [1, 5])
    assert not is_safe(middle)
    assert not is_safe(median_run([run(1, equal_state=False)]))
    assert median_run([run(1), run(2)])["throughput_tx_s"] == 1


@pytest.mark.parametrize(
    ("replies", "gap"),
    [
        (list(range(9000, 12_001, 10)), 10),
        ([*range(9000, 10_101, 10), *range(10_500, 12_001, 10)], 400),
        ([*range(9000, 10_101, 10)], 1900),
        ([*range(8000, 9100, 10), *range(11_000, 12_001, 10), *range(12_900, 13_000)], 1910),
        ([], None),
        ([5], None),
    ],
)
def test_the_commit_gap(replies, gap):
    assert commit_gap_ms(replies, 10_000) == gap


def test_unknown_outcomes_are_reported_and_are_no_damage():
    def run(**found):
        done = events()
        done["done"]["verdict"].update(found)
        return run_figures(PLAN, done, tls=True, fsync=True)

    middle = median_run([run(unknown=100), run(unknown=300)])
    assert middle["unknown"] == 400
    assert is_safe(middle)
    head, row = table([middle]).splitlines()
    assert head.split()[-2:] == ["unknown", "safe"]
    assert row.split()[-2:] == ["400", "yes"]
    assert [is_safe(run(**{what: 1})) for what in ("lost", "duplicated")] == [False, False]


@pytest.mark.parametrize(
    ("replies", "pause"),
    [
        ([*range(9000, 10_101, 10), *range(10_500, 12_001, 10)], 400),
        ([*range(9000, 10_101, 10), *range(15_000, 15_100)], 4900),
        ([*range(1000, 2000), *range(5000, 9500), *range(14_000, 14_100)], 4501),
        ([*range(9000, 13_000), *range(20_000, 20_100)], 1),
        ([*range(1000, 8000), *range(11_000, 12_000)], 3001),
        ([*range(9000, 10_000)], 1),
        ([], None),
        ([10_000], None),
    ],
)
def test_the_longest_pause_is_not_clipped(replies, pause):
    assert longest_pause_ms(replies, 10_000) == pause


def test_what_was_acknowledged_after_an_event():
    replies, by = [10, 20, 30], [100, 250, 400]
    assert [acknowledged_after(replies, by, at) for at in (5, 10, 15, 29, 30)] == [400, 300, 300, 150, 0]
    assert acknowledged_after([], [], 5) == 0


def test_tls_is_what_every_replica_says():
    assert all_use_tls([{"tls": True}, {"tls": True}])
    for status in ([], [{"tls": True}, {"tls": False}], [{"tls": True}, {"error": "gone"}], [{"tls": True}, {}]):
        assert not all_use_tls(status)


def test_a_sync_is_a_counter_that_grew():
    def status(*counts):
        return [{"counters": {"fsyncs": count}} for count in counts]

    assert all_synced(status(1, 5), status(2, 9))
    assert not all_synced(status(1, 5), status(2, 5))
    assert all_synced(status(100, 5), status(40, 9))  # the first was started again
    assert not all_synced(status(1, 5), [{"error": "gone"}, *status(9)])
    assert not all_synced([], [])


def test_the_table_has_a_row_for_each_run():
    runs = [
        run_figures(PLAN, events(), tls=True, fsync=True),
        run_figures(PLAN, events(p50=None), tls=True, fsync=True),
    ]
    lines = table(runs).splitlines()
    assert len(lines) == 3
    assert "2,000" in lines[1]
    assert lines[1].endswith("yes")
