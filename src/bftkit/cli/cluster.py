"""`bftkit cluster`: what the replicas say about themselves."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import rich_click as click

from bftkit.cli.main import FINE, UNREACHABLE
from bftkit.cli.options import cluster_option, emit, json_option, timeout_option

COLUMNS = ("id", "engine", "epoch", "view", "leader", "height", "applied", "state_root", "waiting_for")
"""What a table of replicas shows."""
ROOT_DIGITS = 12
"""How much of a state root a table shows."""


@click.group()
def cluster() -> None:
    """Look at a running cluster."""


@cluster.command("status")
@cluster_option
@timeout_option
@json_option
def status(cluster_path: Path, timeout: float, as_json: bool) -> int:
    """Show engine, view, leader, height and state of every replica."""
    replicas: list[dict[str, Any]] = anyio.run(_status, cluster_path, timeout)
    whole = whole_replicas(replicas)
    emit({"replicas": whole}, _table(whole), as_json=as_json)
    return FINE if any("error" not in replica for replica in replicas) else UNREACHABLE


def whole_replicas(replicas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what replicas say of themselves with every key that scripts read; None for what one did not say."""
    return [{**dict.fromkeys(COLUMNS), **replica} for replica in replicas]


def _table(replicas: Sequence[dict[str, Any]]) -> str:
    rows = [list(COLUMNS)]
    for replica in replicas:
        if "error" in replica:
            rows.append([replica["id"], f"- {replica['error']}"])
            continue
        cells = {**replica, "state_root": replica["state_root"][:ROOT_DIGITS]}
        rows.append(["-" if cells[column] is None else str(cells[column]) for column in COLUMNS])
    full = [row for row in rows if len(row) == len(COLUMNS)]
    widths = [max(len(row[place]) for row in full) for place in range(len(COLUMNS))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) for row in rows)


@cluster.command("explain")
@cluster_option
@timeout_option
@json_option
def explain(cluster_path: Path, timeout: float, as_json: bool) -> int:
    """Say in words why nothing is committed: for the cluster as a whole, and what every replica waits for."""
    statuses, found = anyio.run(_explain, cluster_path, timeout)
    summary = summary_of(statuses)
    whole = [{**replica, "explanation": found.get(replica["id"], [])} for replica in whole_replicas(statuses)]
    lines = [f"{name}: {' '.join(lines)}" for name, lines in found.items()]
    emit({"summary": summary, "replicas": whole}, "\n".join([summary, *lines]), as_json=as_json)
    return FINE if any("error" not in replica for replica in statuses) else UNREACHABLE


def summary_of(statuses: Sequence[dict[str, Any]]) -> str:
    """Say in one line what keeps a cluster, if anything: too few replicas, different views, or somebody awaited."""
    present = [replica for replica in statuses if "error" not in replica]
    absent = [replica["id"] for replica in statuses if "error" in replica]
    needed = next((replica["quorum"] for replica in present if replica.get("quorum")), None)
    missing = f"{_list(absent)} {'does' if len(absent) == 1 else 'do'} not answer; " if absent else ""
    if needed is not None and len(present) < needed:
        return (
            f"{missing}{len(present)} of {len(statuses)} replicas are left, and {needed} are needed to decide anything."
        )
    views = sorted({replica["view"] for replica in present})
    waiting = [replica["id"] for replica in present if replica.get("waiting_for")]
    if not waiting:
        return f"{missing}nothing is pending: {_heights(present)}."
    wait = "waits" if len(waiting) == 1 else "wait"
    if len(views) > 1:
        return f"{missing}the replicas are in different views, {_list(map(str, views))}: {_list(waiting)} {wait}."
    what = next(replica["waiting_for"] for replica in present if replica.get("waiting_for"))
    return f"{missing}{_list(waiting)} {wait}, in view {views[0]}, for {what}."


def _heights(present: Sequence[dict[str, Any]]) -> str:
    heights = sorted({replica["height"] for replica in present})
    return f"all are at height {heights[0]}" if len(heights) == 1 else f"heights {heights[0]} to {heights[-1]}"


def _list(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


async def _status(cluster_path: Path, timeout: float) -> list[dict[str, Any]]:
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, sessions=0, open_timeout_s=timeout) as client:
        return await client.status(timeout=timeout)


async def _explain(cluster_path: Path, timeout: float) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, sessions=0, open_timeout_s=timeout) as client:
        return await client.status(timeout=timeout), await client.explain(timeout=timeout)
