"""Run one node as a process: its application by name, its signals, its log lines.

``python -m bftkit.runtime.node_process net/n0`` is what `bftkit up` starts; it loads nothing of the command line.
"""

import ctypes
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec

from bftkit.config import NODE_FILE, NodeConfig, load_node_config
from bftkit.errors import BftkitError, ConfigurationError
from bftkit.replica.state_machine import StateMachine
from bftkit.runtime.clock import Clock
from bftkit.runtime.failpoint_storage import FailpointStorage
from bftkit.runtime.failpoints import VARIABLE, parse_failpoints
from bftkit.runtime.node import Node
from bftkit.runtime.node_files import LazyEngines, node_parts
from bftkit.runtime.node_parts import Adapt, NodeParts

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: which signal to get when the parent dies."""
GC_THRESHOLD = 50_000
"""Objects between two collections: what a node makes in its loop has no cycles."""
SWITCH_INTERVAL_S = 0.0005
"""How long the application's thread may keep the interpreter from the consensus loop, which gives it up at each read,
write and sync; Python's own 5 ms would add up to most of a batch's latency."""

LEVELS = ("debug", "info", "warning", "error")
"""From the least severe on."""
EVENT_LEVELS = {"stable": "debug"} | dict.fromkeys(("accused", "behind", "diverged", "rejected", "unsigned"), "warning")
"""How severe the events of a node are; all others are "info"."""

Log = Callable[..., None]
"""Takes the name of an event and its fields, `level` among them."""


def at_least(level: str, log: Log) -> Log:
    """Return a log that leaves out what is less severe."""
    wanted = LEVELS[LEVELS.index(level) :]

    def filtered(event: str, *, level: str = "info", **fields: Any) -> None:
        if level in wanted:
            log(event, level=level, **fields)

    return filtered


def load_application(name: str) -> StateMachine:
    """Return a new state machine of the class "package.module:Class"; ConfigurationError where that fails."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        # As with `python -m`, an application may stand in the folder that the node is started in.
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        raise ConfigurationError(f"the application {name} cannot be made: {error!r}") from error
    if not isinstance(found, StateMachine):
        raise ConfigurationError(f"the application {name} lacks apply, snapshot or restore")
    return found


def node_file(path: str | Path) -> Path:
    """Return the configuration file that a path means: the file itself, or the one in a folder."""
    path = Path(path)
    return path / NODE_FILE if path.is_dir() else path


def run_node(path: str | Path, log: Log, *, adapt: Adapt | None = None, clock: Clock | None = None) -> None:
    """Run the node of a folder until SIGTERM or SIGINT; raises what it cannot start with, or fails of.

    `adapt` and `clock` are those of `Node.open`. Failpoints of the environment are armed behind them.
    """
    text = os.environ.get(VARIABLE, "")
    failpoints = parse_failpoints(text)
    file = node_file(path)
    config = load_node_config(file, LazyEngines())
    application = load_application(config.genesis.cluster.application)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if failpoints:
        # Told whatever the level: nobody is to run with one unawares.
        log("failpoints", level="warning", node=config.node.name, armed=text)
    log = at_least(config.node.log_level, log)

    def make_parts() -> NodeParts:
        parts = node_parts(config.path, clock)
        if adapt is not None:
            parts = adapt(parts)
        if failpoints:
            storage = FailpointStorage(parts.storage, failpoints.hit)
            parts = msgspec.structs.replace(parts, storage=storage, hit=failpoints.hit)
        return parts

    anyio.run(_serve, config, application, make_parts, log, backend_options={"use_uvloop": _use_uvloop(config)})


def _use_uvloop(config: NodeConfig) -> bool:
    return config.runtime.uvloop and importlib.util.find_spec("uvloop") is not None


async def _serve(config: NodeConfig, application: StateMachine, make_parts: Callable[[], NodeParts], log: Log) -> None:
    name = config.node.name
    if config.runtime.insecure:
        log("insecure", level="warning", node=name, detail="connections are made without TLS")
    node = Node(application, make_parts())
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            async with node:
                # Whoever reads "ready" may send a signal at once.
                await tasks.start(_watch_signals, node, log)
                tasks.start_soon(_tell_events, node, log)
                # What was made until now stays: the collector need not look at it again.
                gc.collect()
                gc.freeze()
                gc.set_threshold(GC_THRESHOLD, 50, 50)
                address = next(member.client_address for member in config.genesis.members if member.name == name)
                log("ready", node=name, pid=os.getpid(), engine=config.genesis.cluster.engine, clients=address)
                await node.run_until_stopped()
        except Exception as error:
            # Kept until the group is left, which would wrap it; and the node is left before the group is cancelled, or
            # its failure would drown in the cancellation.
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    log("stopped", node=name)


async def _watch_signals(node: Node, log: Log, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log("stopping", node=node.name, signal=signal.Signals(number).name)
            node.stop()


async def _tell_events(node: Node, log: Log) -> None:
    async with node.events() as events:
        async for event in events:
            # The end of the process is told once, by whoever knows how it ended.
            if event.kind != "stopped":
                level = EVENT_LEVELS.get(event.kind, "info")
                log(event.kind.replace(" ", "_"), level=level, node=node.name, detail=event.detail)


def tell_failure(error: Exception, log: Log) -> int:
    """Log why a node could not start, or stopped by itself; return the exit code: 2 where its files are at fault."""
    if isinstance(error, ConfigurationError):
        log("refused", level="error", reason=str(error))
        return 2
    # What is none of the library's own errors is a defect of it, and needs its place to be found.
    place = {} if isinstance(error, BftkitError) else {"traceback": "".join(traceback.format_exception(error))}
    log("failed", level="error", reason=str(error), kind=type(error).__name__, **place)
    return 1


def write_json_line(event: str, **fields: Any) -> None:
    """Log an event as one line of JSON on standard error."""
    record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
    sys.stderr.write(json.dumps(record) + "\n")
    sys.stderr.flush()


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent, given by its id, is gone; Linux only."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It was gone before the kernel knew.
        os._exit(1)


def main(arguments: Sequence[str]) -> int:
    """Run `node_process [--parent PID] FOLDER`; return the exit code."""
    arguments = list(arguments)
    if arguments[:1] == ["--parent"]:
        die_with_parent(int(arguments[1]))
        del arguments[:2]
    try:
        run_node(arguments[0], write_json_line)
    except Exception as error:
        return tell_failure(error, write_json_line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
