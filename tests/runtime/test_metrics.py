"""Metrics: exact counts, quantiles within their error, and text that Prometheus reads."""

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError
from bftkit.runtime.metrics import GREATEST_VALUE, ConsensusMetrics, Histogram, LogLinearHistogram, Registry

VALUES = st.lists(st.integers(0, 1 << 40), min_size=1, max_size=200)


def recorded(values, precision_bits=8):
    histogram = LogLinearHistogram(precision_bits)
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]), st.integers(1, 14))
def test_a_quantile_is_within_the_relative_error(values, share, precision_bits):
    exact = sorted(values)[max(1, ceil(share * len(values))) - 1]
    reported = recorded(values, precision_bits).quantile(share)
    assert exact <= reported <= exact + exact / (1 << precision_bits)


@given(VALUES)
def test_totals_and_extremes_are_exact(values):
    histogram = recorded(values)
    assert (histogram.count, histogram.total) == (len(values), sum(values))
    assert (histogram.least, histogram.greatest) == (min(values), max(values))
    assert sum(count for _, count in histogram.buckets()) == len(values)


@given(VALUES, VALUES)
def test_merging_equals_recording_all(left, right):
    merged = recorded(left)
    merged.merge(recorded(right))
    assert merged.dump() == recorded(left + right).dump()


@given(st.lists(st.integers(0, 1 << 40), max_size=50))
def test_a_dump_loads_as_the_same(values):
    histogram = recorded(values)
    copy = LogLinearHistogram.load(json.loads(json.dumps(histogram.dump())))
    assert copy.dump() == histogram.dump()
    assert copy.count == histogram.count


def test_merging_an_empty_one_changes_nothing():
    histogram = recorded([7])
    histogram.merge(LogLinearHistogram())
    assert (histogram.least, histogram.count) == (7, 1)


def test_an_empty_histogram_has_quantile_zero():
    assert LogLinearHistogram().quantile(0.5) == 0


def test_values_out_of_range_count_at_the_ends():
    histogram = recorded([-3, 1 << 80])
    assert (histogram.least, histogram.greatest) == (0, GREATEST_VALUE)


def test_a_value_may_count_many_times():
    histogram = LogLinearHistogram()
    histogram.record(5, times=99)
    histogram.record(1000)
    assert (histogram.quantile(0.99), histogram.quantile(1.0)) == (5, 1000)


def test_small_values_are_exact():
    histogram = recorded(range(512), precision_bits=8)
    assert histogram.buckets() == [(value, 1) for value in range(512)]


def test_unequal_precision_does_not_merge():
    with pytest.raises(ConfigurationError):
        LogLinearHistogram(4).merge(LogLinearHistogram(5))


@pytest.mark.parametrize("precision_bits", [0, 15])
def test_absurd_precision_is_refused(precision_bits):
    with pytest.raises(ConfigurationError):
        LogLinearHistogram(precision_bits)


@given(st.lists(st.integers(-5, 50)))
def test_fixed_buckets_hold_what_does_not_exceed_their_bound(values):
    histogram = Histogram([1, 10, 20])
    for value in values:
        histogram.record(value)
    samples = {dict(further).get("le", suffix): value for suffix, further, value in histogram.samples()}
    for bound in (1, 10, 20):
        assert samples[str(bound)] == sum(value <= bound for value in values)
    assert samples["+Inf"] == samples["_count"] == histogram.count == len(values)
    assert samples["_sum"] == sum(values)


@pytest.mark.parametrize("bounds", [[], [1, 1], [2, 1]])
def test_bounds_must_rise(bounds):
    with pytest.raises(ConfigurationError):
        Histogram(bounds)


def test_the_same_name_and_labels_are_the_same_metric():
    registry = Registry()
    first = registry.counter("bftkit_messages_total", "Messages.", peer="n1", kind="vote")
    first.value += 2
    assert registry.counter("bftkit_messages_total", "Messages.", kind="vote", peer="n1") is first
    assert registry.counter("bftkit_messages_total", "Messages.", kind="vote", peer="n2") is not first
    assert registry.snapshot()['bftkit_messages_total{kind="vote",peer="n1"}'] == 2


def test_a_name_has_one_kind():
    registry = Registry()
    registry.counter("bftkit_things", "Things.")
    with pytest.raises(ConfigurationError, match="is a counter already"):
        registry.gauge("bftkit_things", "Things.")


def test_the_exposition_is_what_prometheus_reads():
    registry = Registry()
    registry.counter("bftkit_odd_total", 'A "text"\nwith a \\.', path='a"b\\c\nd').value = 3
    registry.gauge("bftkit_depth", "Depth.").value = -1
    registry.histogram("bftkit_delay_ms", "Delay.", [1, 5], lane="0").record(4)
    assert registry.exposition() == (
        '# HELP bftkit_odd_total A "text"\\nwith a \\\\.\n'
        "# TYPE bftkit_odd_total counter\n"
        'bftkit_odd_total{path="a\\"b\\\\c\\nd"} 3\n'
        "# HELP bftkit_depth Depth.\n"
        "# TYPE bftkit_depth gauge\n"
        "bftkit_depth -1\n"
        "# HELP bftkit_delay_ms Delay.\n"
        "# TYPE bftkit_delay_ms histogram\n"
        'bftkit_delay_ms_bucket{lane="0",le="1"} 0\n'
        'bftkit_delay_ms_bucket{lane="0",le="5"} 1\n'
        'bftkit_delay_ms_bucket{lane="0",le="+Inf"} 1\n'
        'bftkit_delay_ms_sum{lane="0"} 4\n'
        'bftkit_delay_ms_count{lane="0"} 1\n'
    )


def test_an_empty_registry_exposes_nothing():
    assert Registry().exposition() == ""


def test_every_group_shows_the_three_numbers_of_consensus():
    registry = Registry()
    metrics = ConsensusMetrics.enter(registry, group="0")
    metrics.committed_blocks.value += 1
    metrics.current_round.value = 7
    metrics.finality_delay_ms.record(12)
    snapshot = registry.snapshot()
    assert snapshot['consensus_committed_blocks_total{group="0"}'] == 1
    assert snapshot['consensus_current_round{group="0"}'] == 7
    assert snapshot['consensus_head_finality_delay_ms_bucket{group="0",le="10"}'] == 0
    assert snapshot['consensus_head_finality_delay_ms_bucket{group="0",le="15"}'] == 1
