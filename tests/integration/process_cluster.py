"""A cluster of real processes on loopback, with mutual TLS and fsync on, to be killed at will."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bftkit.runtime.testnet import NewCluster, write_testnet

COMMAND = (sys.executable, "-m", "bftkit.runtime.node_process", "--parent", str(os.getpid()))


class ProcessCluster:
    """Writes a test network into a folder and runs its nodes; leaves no process behind."""

    def __init__(self, folder: Path, *, replicas: int = 4, engine: str = "pbft", **options: object) -> None:
        self.folder = folder / "net"
        write_testnet(self.folder, NewCluster(replicas=replicas, engine=engine, base_port=0, options=dict(options)))
        self.names = sorted(path.parent.name for path in self.folder.glob("*/bftkit.toml"))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "ProcessCluster":
        for name in self.names:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.kill(name)

    def start(self, name: str) -> None:
        """Start a node; it comes up on its own time."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*COMMAND, str(self.folder / name)],
                stdout=log,
                stderr=log,
                env={**os.environ, "NO_COLOR": "1", **self.environment(name)},
            )

    def environment(self, name: str) -> dict[str, str]:
        """Return what a node finds in its environment besides."""
        return {}

    def kill(self, name: str) -> None:
        """Kill a node as a power switch would, and wait until it is gone."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        """Kill all nodes at once."""
        for process in self._running.values():
            process.send_signal(signal.SIGKILL)
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def exit_codes(self) -> dict[str, int | None]:
        """Say which of the running nodes have ended by themselves, and how."""
        return {name: process.poll() for name, process in self._running.items()}

    def log(self, name: str) -> str:
        """Return what a node has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")
