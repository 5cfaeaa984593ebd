"""`bftkit up`: start all nodes of a folder on this machine."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import rich_click as click

from bftkit.cli.main import CHECK_FAILED, FINE, UNREACHABLE
from bftkit.cli.options import emit, json_option, tell
from bftkit.cli.stopping import ends_on_signals

if TYPE_CHECKING:
    from bftkit.bench.processes import NodeProcess

START_TIMEOUT_S = 20.0
WATCH_S = 0.2
LAST_LINES_BYTES = 65_536
"""How much of a log is read to find its last line."""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True), default="net")
@click.option("--detach", is_flag=True, help="Return once the nodes answer; `down` stops them.")
@json_option
def up(directory: Path, detach: bool, as_json: bool) -> int:
    """Start the nodes in DIRECTORY, each as a process."""
    from bftkit.bench.processes import NodeProcess, node_folders

    nodes = [NodeProcess(folder, detached=detach) for folder in node_folders(directory)]
    with ends_on_signals():
        return _run(directory, nodes, detach=detach, as_json=as_json)


def _run(directory: Path, nodes: "list[NodeProcess]", *, detach: bool, as_json: bool) -> int:
    try:
        for node in nodes:
            node.start()
        answering = anyio.run(_wait_until_ready, directory, nodes)
        document = {"replicas": [{"id": node.name, "pid": node.pid} for node in nodes], "answering": answering}
        emit(document, f"{answering} of {len(nodes)} nodes answer", as_json=as_json)
        sys.stdout.flush()
        ended = [node for node in nodes if not node.is_running]
        for node in ended:
            tell(_end_of(node))
        if detach:
            return FINE if answering == len(nodes) else UNREACHABLE
        while not ended:
            time.sleep(WATCH_S)
            ended = [node for node in nodes if not node.is_running]
        tell(_end_of(ended[0]))
    except KeyboardInterrupt:
        detach = False
        return FINE
    finally:
        if not detach:
            _stop(nodes)
    return CHECK_FAILED


def _end_of(node: "NodeProcess") -> str:
    """Say how a node has ended: the reason that its last log line gives, and where to read on."""
    from bftkit.bench.processes import LOG_FILE

    path = node.folder / LOG_FILE
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_LINES_BYTES))
        last = file.read().decode(errors="replace").splitlines()[-1:]
    try:
        reason = f": {json.loads(last[0])['reason']}"
    except (IndexError, KeyError, TypeError, ValueError):
        # It was killed before it could say anything, or what it said last is about something else.
        reason = ""
    return f"{node.name} has ended with code {node.exit_code}{reason}; see {path}"


def _stop(nodes: "list[NodeProcess]") -> None:
    for node in nodes:
        node.signal(signal.SIGTERM)
    for node in nodes:
        if not node.wait(5.0):
            node.signal(signal.SIGKILL)
            node.wait(5.0)


async def _wait_until_ready(directory: Path, nodes: "list[NodeProcess]") -> int:
    """Return how many nodes answer, once all do that have not ended, or the time is up."""
    from bftkit.errors import NotReady
    from bftkit.runtime.client import Client

    answering = 0
    with anyio.move_on_after(START_TIMEOUT_S):
        while any(node.is_running for node in nodes):
            try:
                async with Client.open(directory, sessions=0, open_timeout_s=2.0) as client:
                    found = await client.status()
            except NotReady:
                continue
            answering = sum("error" not in status for status in found)
            if answering >= sum(node.is_running for node in nodes):
                break
            await anyio.sleep(0.1)
    return answering
