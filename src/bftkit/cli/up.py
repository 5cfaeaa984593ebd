"""`bftkit up`: start all nodes of a folder on this machine."""

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
    from bftkit.bench.processes import LOG_FILE

    try:
        for node in nodes:
            node.start()
        answering = anyio.run(_wait_until_ready, directory)
        document = {"replicas": [{"id": node.name, "pid": node.pid} for node in nodes], "answering": answering}
        emit(document, f"{answering} of {len(nodes)} nodes answer", as_json=as_json)
        sys.stdout.flush()
        ended = [node for node in nodes if not node.is_running]
        for node in ended:
            tell(f"{node.name} has ended with code {node.exit_code}; see {node.folder / LOG_FILE}")
        if detach:
            return FINE if answering == len(nodes) else UNREACHABLE
        while not ended:
            time.sleep(WATCH_S)
            ended = [node for node in nodes if not node.is_running]
        tell(f"{ended[0].name} has ended with code {ended[0].exit_code}; see {ended[0].folder / LOG_FILE}")
    except KeyboardInterrupt:
        detach = False
        return FINE
    finally:
        if not detach:
            _stop(nodes)
    return CHECK_FAILED


def _stop(nodes: "list[NodeProcess]") -> None:
    for node in nodes:
        node.signal(signal.SIGTERM)
    for node in nodes:
        if not node.wait(5.0):
            node.signal(signal.SIGKILL)
            node.wait(5.0)


async def _wait_until_ready(directory: Path) -> int:
    """Return how many nodes answer, once all do or the time is up."""
    from bftkit.errors import NotReady
    from bftkit.runtime.client import Client

    answering = 0
    with anyio.move_on_after(START_TIMEOUT_S):
        while True:
            try:
                async with Client.open(directory, sessions=0, open_timeout_s=2.0) as client:
                    found = await client.status()
            except NotReady:
                continue
            answering = sum("error" not in status for status in found)
            if answering == len(found):
                break
            await anyio.sleep(0.1)
    return answering
