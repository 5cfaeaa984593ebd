"""The processes of a cluster on this machine: start them, find them again, end them, and nobody else's.

A process is known by its id *and* its start time, since ids are used again. Both stand in the node's folder.
"""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from bftkit.bench.forked import ForkedProcess, can_fork
from bftkit.config import NODE_FILE
from bftkit.errors import ConfigurationError
from bftkit.runtime import node_process

PID_FILE = "node.pid"
"""In a node's folder: the process that runs it."""
LOG_FILE = "node.log"
"""In a node's folder: what it says, one JSON object in each line."""
STOP_TIMEOUT_S = 5.0
"""How long a node may take to stop before it is killed."""
_STATE, _USER_TICKS, _SYSTEM_TICKS, _START_TICKS = 2, 13, 14, 21
"""Places in /proc/PID/stat (proc(5), counted from 0)."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessRecord(msgspec.Struct, frozen=True):
    """A process, told apart from later ones with the same id."""

    pid: int
    started: int
    """Clock ticks from the start of the machine to the start of the process."""

    @property
    def is_alive(self) -> bool:
        """Say whether this very process still runs."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[_START_TICKS]) == self.started and fields[_STATE] != "Z"

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.is_alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything, so fields are counted from its end.
    head, _, tail = text.rpartition(")")
    return [head.partition(" ")[0], head.partition("(")[2], *tail.split()]


def record_of(pid: int) -> ProcessRecord:
    """Return the record of a process that runs."""
    fields = _stat(pid)
    return ProcessRecord(pid, int(fields[_START_TICKS]) if fields else 0)


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used; None where it is gone."""
    fields = _stat(pid)
    if fields is None:
        return None
    return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_S


def process_age_s() -> float:
    """Return the seconds since this process started, interpreter included."""
    fields = _stat(os.getpid())
    if fields is None:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_TICKS]) / _TICKS_PER_S


def node_folders(directory: Path) -> list[Path]:
    """List the nodes' folders of a testnet; ConfigurationError where there are none."""
    found = sorted(path.parent for path in directory.glob(f"*/{NODE_FILE}"))
    if not found:
        raise ConfigurationError(f"{directory} holds no nodes; `bftkit testnet new` writes some")
    return found


def read_record(folder: Path) -> ProcessRecord | None:
    """Return the process that runs a node's folder; None where none does."""
    try:
        record = msgspec.json.decode((folder / PID_FILE).read_bytes(), type=ProcessRecord)
    except (OSError, msgspec.DecodeError):
        return None
    return record if record.is_alive else None


class NodeProcess:
    """One node as a child of this process."""

    def __init__(self, folder: Path, *, detached: bool = False) -> None:
        self.folder = folder
        self.name = folder.name
        self._detached = detached
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None

    @property
    def pid(self) -> int:
        """Return the id of the process; 0 where it was never started."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        """Say whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start it; unless it is detached, it dies with this process."""
        if read_record(self.folder) is not None:
            raise ConfigurationError(f"{self.folder} is running already")
        with (self.folder / LOG_FILE).open("ab") as log:
            if not self._detached and can_fork():
                run = partial(node_process.main, [str(self.folder)])
                self._process = ForkedProcess(run, stdout=log.fileno(), stderr=log.fileno())
            else:
                self._process = self._spawn(log)
        record = record_of(self._process.pid)
        (self.folder / PID_FILE).write_bytes(msgspec.json.encode(record))

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start it from scratch, in a session of its own: the terminal's Ctrl-C is for this process alone."""
        parent = [] if self._detached else ["--parent", str(os.getpid())]
        return subprocess.Popen(
            [sys.executable, "-m", "bftkit.runtime.node_process", *parent, str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        """Wait for its end; say whether it came, and forget it then."""
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                return False
            (self.folder / PID_FILE).unlink(missing_ok=True)
        return True


class LocalCluster:
    """All nodes of a testnet's folder as children of this process; leaving the context stops them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes = {folder.name: NodeProcess(folder) for folder in node_folders(directory)}

    def __enter__(self) -> "LocalCluster":
        for node in self.nodes.values():
            node.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        """List the ids of the nodes' processes."""
        return [node.pid for node in self.nodes.values()]

    def stop(self) -> None:
        """Stop all nodes, and kill those that do not."""
        for node in self.nodes.values():
            node.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for node in self.nodes.values():
            if not node.wait(max(0.1, deadline - time.monotonic())):
                node.signal(signal.SIGKILL)
                node.wait(STOP_TIMEOUT_S)


def stop_recorded(directory: Path) -> list[str]:
    """Stop the nodes of a folder that `up` started, wherever that was; return their names."""
    running = [(folder, record) for folder in node_folders(directory) if (record := read_record(folder))]
    for _, record in running:
        record.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for folder, record in running:
        while record.is_alive and time.monotonic() < deadline:
            time.sleep(0.02)
        record.signal(signal.SIGKILL)
        (folder / PID_FILE).unlink(missing_ok=True)
    return [folder.name for folder, _ in running]
