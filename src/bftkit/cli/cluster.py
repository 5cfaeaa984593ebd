"""`bftkit cluster`: what the replicas say about themselves."""

from collections.abc import Sequence
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
    whole = [{**dict.fromkeys(COLUMNS), **replica} for replica in replicas]
    emit({"replicas": whole}, _table(whole), as_json=as_json)
    return FINE if any("error" not in replica for replica in replicas) else UNREACHABLE


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
def explain(cluster_path: Path, timeout: float, as_json: bool) -> None:
    """Say in words what every replica waits for."""
    found: dict[str, list[str]] = anyio.run(_explain, cluster_path, timeout)
    document = {"replicas": [{"id": name, "explanation": lines} for name, lines in found.items()]}
    emit(document, "\n".join(f"{name}: {' '.join(lines)}" for name, lines in found.items()), as_json=as_json)


async def _status(cluster_path: Path, timeout: float) -> list[dict[str, Any]]:
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, sessions=0, open_timeout_s=timeout) as client:
        return await client.status(timeout=timeout)


async def _explain(cluster_path: Path, timeout: float) -> dict[str, list[str]]:
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, sessions=0, open_timeout_s=timeout) as client:
        return await client.explain(timeout=timeout)
