"""Numbers that a node keeps about itself: plain integers, read by whoever exports them.

The hot path writes ``counter.value += 1`` and nothing else. There is no lock: each number belongs to one event loop,
which also reads it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

from bftkit.errors import ConfigurationError

FINALITY_BUCKETS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000)
"""Upper bounds of the buckets for delays until finality, in milliseconds."""

GREATEST_VALUE = (1 << 63) - 1
"""What a log-linear histogram counts greater values as."""

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    kind = "counter"
    """What Prometheus calls it."""

    def __init__(self) -> None:
        self.value = 0
        """The number; add to it directly."""

    def samples(self) -> Iterator[tuple[str, Labels, int]]:
        """Yield the one sample: suffix of the name, further labels, value."""
        yield "", (), self.value


class Gauge(Counter):
    """A number that goes up and down."""

    __slots__ = ()

    kind = "gauge"


class Histogram:
    """Counts of values in fixed buckets, for export.

    Raises:
        ConfigurationError: the bounds do not rise, or there are none.
    """

    __slots__ = ("bounds", "counts", "total")

    kind = "histogram"
    """What Prometheus calls it."""

    def __init__(self, bounds: Sequence[int]) -> None:
        if not bounds or any(lower >= upper for lower, upper in pairwise(bounds)):
            raise ConfigurationError(f"the bounds of a histogram must rise, unlike {list(bounds)}")
        self.bounds = tuple(bounds)
        """Greatest value of each bucket; what is greater than the last falls into one more."""
        self.counts = [0] * (len(bounds) + 1)
        """Values per bucket, not cumulated."""
        self.total = 0
        """Sum of all values."""

    @property
    def count(self) -> int:
        """Return how many values were recorded."""
        return sum(self.counts)

    def record(self, value: int) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self) -> Iterator[tuple[str, Labels, int]]:
        """Yield cumulated buckets, sum and count, as Prometheus wants them."""
        below = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            yield "_bucket", (("le", bound),), below
        yield "_sum", (), self.total
        yield "_count", (), below


class LogLinearHistogram:
    """Counts of integers over many orders of magnitude, with a bounded relative error; for quantiles.

    Values below ``2 ** (precision_bits + 1)`` are counted exactly, greater ones in ``2 ** precision_bits`` equal steps
    for each doubling, so that a reported value exceeds the true one by less than one part in ``2 ** precision_bits``.
    Negative values count as 0.

    Raises:
        ConfigurationError: the precision is not from 1 to 14 bits.
    """

    __slots__ = ("_counts", "count", "greatest", "least", "precision_bits", "total")

    def __init__(self, precision_bits: int = 8) -> None:
        if not 1 <= precision_bits <= 14:
            raise ConfigurationError(f"the precision of a histogram is 1 to 14 bits, not {precision_bits}")
        self.precision_bits = precision_bits
        self._counts: list[int] = []
        self.count = 0
        """How many values were recorded."""
        self.total = 0
        """Sum of all values, exact."""
        self.least = 0
        """The least value, exact; 0 if there is none."""
        self.greatest = 0
        """The greatest value, exact; 0 if there is none."""

    def record(self, value: int, times: int = 1) -> None:
        """Count a value, or so many equal ones."""
        value = min(max(value, 0), GREATEST_VALUE)
        shift = max(0, value.bit_length() - self.precision_bits - 1)
        index = (shift << self.precision_bits) + (value >> shift)
        if index >= len(self._counts):
            self._counts.extend([0] * (index + 1 - len(self._counts)))
        self._counts[index] += times
        self.least = min(self.least, value) if self.count else value
        self.greatest = max(self.greatest, value)
        self.count += times
        self.total += value * times

    def quantile(self, share: float) -> int:
        """Return a value that this share of all values does not exceed: 0.5 for the median; 0 if there are none."""
        # Rounding up by hand in millionths keeps 0.999 of 1,000 values at rank 999, whatever the float is.
        rank = max(1, -(-round(share * 1_000_000) * self.count // 1_000_000))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(self._greatest_of(index), self.greatest)
        return self.greatest

    def merge(self, other: "LogLinearHistogram") -> None:
        """Add the counts of another histogram of the same precision.

        Raises:
            ConfigurationError: the precisions differ.
        """
        if other.precision_bits != self.precision_bits:
            raise ConfigurationError("histograms of different precision cannot be merged")
        if not other.count:
            return
        self._counts.extend([0] * (len(other._counts) - len(self._counts)))
        for index, count in enumerate(other._counts):
            self._counts[index] += count
        self.least = min(self.least, other.least) if self.count else other.least
        self.greatest = max(self.greatest, other.greatest)
        self.count += other.count
        self.total += other.total

    def buckets(self) -> list[tuple[int, int]]:
        """Return the buckets in use as (greatest value, count), in rising order."""
        return [(self._greatest_of(index), count) for index, count in enumerate(self._counts) if count]

    def dump(self) -> dict[str, Any]:
        """Return the content as plain data, to be sent to another process."""
        return {
            "precision_bits": self.precision_bits,
            "total": self.total,
            "least": self.least,
            "greatest": self.greatest,
            "counts": [[index, count] for index, count in enumerate(self._counts) if count],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "LogLinearHistogram":
        """Return the histogram that `dump` described."""
        histogram = cls(dumped["precision_bits"])
        pairs = dumped["counts"]
        histogram._counts = [0] * (pairs[-1][0] + 1 if pairs else 0)
        for index, count in pairs:
            histogram._counts[index] = count
        histogram.count = sum(histogram._counts)
        histogram.total, histogram.least = dumped["total"], dumped["least"]
        histogram.greatest = dumped["greatest"]
        return histogram

    def _greatest_of(self, index: int) -> int:
        shift = max(0, (index >> self.precision_bits) - 1)
        return (index - (shift << self.precision_bits) + 1 << shift) - 1


Metric = Counter | Gauge | Histogram
M = TypeVar("M", Counter, Gauge, Histogram)


class _Family:
    """All metrics of one name, one per set of labels."""

    __slots__ = ("help", "members")

    def __init__(self, text: str) -> None:
        self.help = text
        self.members: dict[Labels, Metric] = {}


class Registry:
    """The metrics of a node by name and labels; asking again for the same one returns the same one."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}

    def counter(self, name: str, text: str, **labels: str) -> Counter:
        """Return a counter; Prometheus wants its name to end in `_total`."""
        return self._enter(name, text, labels, Counter())

    def gauge(self, name: str, text: str, **labels: str) -> Gauge:
        """Return a gauge."""
        return self._enter(name, text, labels, Gauge())

    def histogram(self, name: str, text: str, bounds: Sequence[int], **labels: str) -> Histogram:
        """Return a histogram with these upper bounds of its buckets."""
        return self._enter(name, text, labels, Histogram(bounds))

    def snapshot(self) -> dict[str, int]:
        """Return every sample by its full name, labels included."""
        return {
            _full_name(name + suffix, (*labels, *further)): value
            for name, family in self._families.items()
            for labels, metric in family.members.items()
            for suffix, further, value in metric.samples()
        }

    def exposition(self) -> str:
        """Return every sample in the Prometheus text format, version 0.0.4."""
        lines: list[str] = []
        for name, family in self._families.items():
            text = family.help.replace("\\", r"\\").replace("\n", r"\n")
            kind = next(iter(family.members.values())).kind
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            for labels, metric in family.members.items():
                for suffix, further, value in metric.samples():
                    lines.append(f"{_full_name(name + suffix, (*labels, *further))} {value}")
        return "\n".join(lines) + "\n" if lines else ""

    def _enter(self, name: str, text: str, labels: Mapping[str, str], fresh: M) -> M:
        family = self._families.setdefault(name, _Family(text))
        known = next(iter(family.members.values()), fresh)
        if type(known) is not type(fresh):
            raise ConfigurationError(f"{name} is a {known.kind} already, and cannot be a {fresh.kind}")
        metric = family.members.setdefault(tuple(sorted(labels.items())), fresh)
        return metric if isinstance(metric, type(fresh)) else fresh


class ConsensusMetrics(msgspec.Struct, frozen=True):
    """The numbers that every group shows, whatever its engine."""

    committed_blocks: Counter
    """`consensus_committed_blocks_total`."""
    current_round: Gauge
    """`consensus_current_round`: term, view or round."""
    finality_delay_ms: Histogram
    """`consensus_head_finality_delay_ms`."""

    @classmethod
    def enter(cls, registry: Registry, **labels: str) -> "ConsensusMetrics":
        """Enter the three into a registry under these labels, such as group and engine."""
        return cls(
            registry.counter("consensus_committed_blocks_total", "Batches committed.", **labels),
            registry.gauge("consensus_current_round", "Term, view or round of the engine.", **labels),
            registry.histogram(
                "consensus_head_finality_delay_ms",
                "Milliseconds from the making of a batch until it is final.",
                FINALITY_BUCKETS_MS,
                **labels,
            ),
        )


def _full_name(name: str, labels: Labels) -> str:
    if not labels:
        return name
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{name}{{{pairs}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
