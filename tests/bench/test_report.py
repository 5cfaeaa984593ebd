"""Figures of a run: every key of the contract, and nothing invented."""

import pytest

from bftkit.bench.report import commit_gap_ms, is_safe, median_run, run_figures, table

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
        return {"throughput_tx_s": throughput, "lost": 0, "duplicated": 0, "equal_state": True, **wrong}

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


def test_the_table_has_a_row_for_each_run():
    runs = [
        run_figures(PLAN, events(), tls=True, fsync=True),
        run_figures(PLAN, events(p50=None), tls=True, fsync=True),
    ]
    lines = table(runs).splitlines()
    assert len(lines) == 3
    assert "2,000" in lines[1]
    assert lines[1].endswith("yes")
