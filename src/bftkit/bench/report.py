"""What a run of the benchmark says: its figures by name, the median of repeats, and a table."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

MILLISECONDS = 1000


def run_figures(plan: dict[str, Any], events: dict[str, dict[str, Any]], *, tls: bool, fsync: bool) -> dict[str, Any]:
    """Return one entry of `runs`; `events` are the load generator's, by name. What is not known is None."""
    measured, done = events["measured"], events["done"]
    verdict = done["verdict"]
    commands = measured["commands"]
    cpu_s = measured["cpu_s"]
    return {
        **plan,
        "throughput_tx_s": measured["throughput_tx_s"],
        "latency_ms": {name: measured[name] for name in ("p50", "p99", "p999", "max")},
        "committed": done["acknowledged"],
        "lost": verdict["lost"],
        "duplicated": verdict["duplicated"],
        "equal_state": verdict["equal_state"],
        "unknown": verdict["unknown"],
        "cpu_s_per_1000_tx": cpu_s / commands * 1000 if cpu_s is not None and commands else None,
        **_per_block(measured["before"], measured["after"]),
        "generator_cpu_share": measured["generator_cpu_share"],
        "measured_s": measured["seconds"],
        "tls": tls,
        "fsync": fsync,
        "signature_scheme": "ed25519",
        "limit_tx_s": None,
        "share_of_limit": None,
    }


def _per_block(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return what a block costs the whole group, from the counters of all replicas."""

    def grown(name: str) -> list[int] | None:
        pairs = [
            (early.get("counters", {}).get(name), late.get("counters", {}).get(name))
            for early, late in zip(before, after, strict=True)
        ]
        known = [late - early for early, late in pairs if early is not None and late is not None]
        return known if len(known) == len(pairs) and known else None

    blocks = max(grown("blocks") or [0])

    def share(grew: list[int] | None, combine: Any) -> float | None:
        return combine(grew) / blocks if grew is not None and blocks else None

    return {
        "messages_per_block": share(grown("messages_sent"), sum),
        "signatures_per_block": share(grown("signatures"), sum),
        "fsyncs_per_block": share(grown("fsyncs"), sum),
        "commands_per_block": share(grown("commands"), max),
    }


def median_run(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the repeat with the median throughput; what went wrong in any of them stays visible."""
    ordered = sorted(repeats, key=lambda run: run["throughput_tx_s"])
    middle = dict(ordered[(len(ordered) - 1) // 2])
    middle["lost"] = sum(run["lost"] for run in repeats)
    middle["duplicated"] = sum(run["duplicated"] for run in repeats)
    middle["unknown"] = sum(run["unknown"] for run in repeats)
    middle["equal_state"] = all(run["equal_state"] for run in repeats)
    middle["repeats"] = len(repeats)
    middle["throughput_spread_tx_s"] = [ordered[0]["throughput_tx_s"], ordered[-1]["throughput_tx_s"]]
    return middle


def is_safe(run: dict[str, Any]) -> bool:
    """Say whether nothing was lost, nothing done twice, and all states equal.

    Commands whose outcome is not known are neither: they are reported, and promised to nobody.
    """
    return not run["lost"] and not run["duplicated"] and bool(run["equal_state"])


def commit_gap_ms(replies_ms: Sequence[int], event_ms: int) -> int | None:
    """Return the longest interval between replies from 1 s before an event to 2 s after it; None without replies.

    `replies_ms` rise; the edges of the stretch count as replies, so that a silence that outlasts it is seen.
    """
    begin, end = event_ms - MILLISECONDS, event_ms + 2 * MILLISECONDS
    inside = [at for at in replies_ms if begin <= at <= end]
    if not inside:
        return None
    marks = [begin, *inside, end]
    return max(later - earlier for earlier, later in pairwise(marks))


def longest_pause_ms(replies_ms: Sequence[int], event_ms: int) -> int | None:
    """Return the longest interval between replies that reaches into the stretch of `commit_gap_ms`, in full.

    None where no reply ended such an interval.
    """
    begin, end = event_ms - MILLISECONDS, event_ms + 2 * MILLISECONDS
    pauses = [later - earlier for earlier, later in pairwise(replies_ms) if later > begin and earlier < end]
    return max(pauses, default=None)


def acknowledged_after(replies_ms: Sequence[int], acknowledged_by: Sequence[int], event_ms: int) -> int:
    """Return how many commands were answered later than in the millisecond of an event."""
    before = bisect_right(replies_ms, event_ms)
    total = acknowledged_by[-1] if acknowledged_by else 0
    return total - (acknowledged_by[before - 1] if before else 0)


def all_use_tls(status: Sequence[dict[str, Any]]) -> bool:
    """Say whether every replica answers, and says that its connections are made over TLS."""
    return bool(status) and all(replica.get("tls") is True for replica in status)


def all_synced(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> bool:
    """Say whether every replica synced its log between two looks at their counters.

    A counter that is smaller than before was started anew.
    """

    def count(status: dict[str, Any]) -> int:
        found = status.get("counters", {}).get("fsyncs", 0)
        return found if isinstance(found, int) else 0

    pairs = [(count(early), count(late)) for early, late in zip(before, after, strict=True)]
    return bool(pairs) and all(late > early or 0 < late < early for early, late in pairs)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the runs as text."""
    head = (
        "engine",
        "n",
        "bytes",
        "submit",
        "tx/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "cmd/block",
        "msg/block",
        "unknown",
        "safe",
    )
    rows = [head, *(_row(run) for run in runs)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    def number(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    latency = run["latency_ms"]
    return (
        run["engine"],
        str(run["replicas"]),
        str(run["payload_bytes"]),
        run["submit"],
        number(run["throughput_tx_s"], 0),
        number(latency["p50"]),
        number(latency["p99"]),
        number(latency["p999"]),
        number(run["commands_per_block"], 0),
        number(run["messages_per_block"]),
        f"{run['unknown']:,}",
        "yes" if is_safe(run) else "NO",
    )
