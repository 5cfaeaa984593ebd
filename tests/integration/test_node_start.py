"""How the process of a node begins and ends: what it says, its exit code, and what it refuses to begin with."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from bftkit import BftkitError, Client
from bftkit.config import LimitsSection
from bftkit.runtime.testnet import NewCluster, write_testnet

pytestmark = [pytest.mark.processes, pytest.mark.network, pytest.mark.timeout(120)]

APPLICATIONS = '''
"""Applications that go wrong."""

import os

from bftkit.batteries.counter import Counter


class Raising(Counter):
    """Raises at its first command."""

    def apply(self, batch):
        raise RuntimeError("no luck")


class Diverging(Counter):
    """Has a state of its own where the environment says so."""

    def state_root(self):
        return os.environ.get("ROOT", "0").encode() * 32
'''


class Process:
    """One node that runs; its log lines as dictionaries."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self._said: list[dict[str, str]] = []
        (folder.parent / "wrong.py").write_text(APPLICATIONS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bftkit.runtime.node_process", "--parent", str(os.getpid()), str(folder)],
            cwd=folder.parent,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> "Process":
        """Wait until it serves clients."""
        self.until("ready")
        return self

    def until(self, event: str) -> None:
        """Wait until it logs an event."""
        for line in self.process.stderr or ():
            self._said.append(json.loads(line))
            if self._said[-1]["event"] == event:
                return
        pytest.fail(f"it ended with code {self.process.wait()}")

    def end(self) -> tuple[int, list[dict[str, str]]]:
        """Wait for its end; return the exit code and what it logged."""
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, [*self._said, *map(json.loads, said.splitlines())]

    def stop(self) -> tuple[int, list[dict[str, str]]]:
        """Tell it to end, and wait for that."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()


@contextmanager
def run(*folders: Path, **environment: str) -> Iterator[list[Process]]:
    """Start nodes; leave none behind."""
    nodes = [Process(folder, **environment) for folder in folders]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.process.kill()
            node.process.communicate()


def lone(folder: Path, application: str = "bftkit.batteries.counter:Counter", **more: object) -> Path:
    """Write a cluster of one member; return the member's folder."""
    net = folder / "net"
    write_testnet(net, NewCluster(replicas=1, engine="solo", base_port=0, application=application, **more))
    return net / "n0"


def submit(net: Path) -> bool:
    """Submit a command; say whether it was answered soon."""

    async def go() -> bool:
        with anyio.move_on_after(2):
            async with Client.open(net) as client:
                await client.submit(b"1")
                return True
        return False

    with suppress(BftkitError):
        return anyio.run(go)
    return False


def test_a_node_that_is_told_to_stop_ends_well(tmp_path):
    with run(lone(tmp_path)) as (node,):
        node.ready()
        submit(tmp_path / "net")
        code, said = node.stop()
    assert code == 0
    assert [line["event"] for line in said if line["event"].startswith("stop")] == ["stopping", "stopped"]
    assert not any(line["event"] == "failed" for line in said)


@pytest.mark.parametrize(
    ("level", "told"),
    [("debug", {"debug", "info"}), ("info", {"info"}), ("error", set())],
)
def test_a_node_logs_what_is_severe_enough(tmp_path, level, told):
    folder = lone(tmp_path, limits=LimitsSection(checkpoint_interval=1))
    file = folder / "bftkit.toml"
    text = file.read_text()
    assert 'log_level = "info"' in text
    file.write_text(text.replace('log_level = "info"', f'log_level = "{level}"'))
    with run(folder) as (node,):
        while not submit(tmp_path / "net"):
            assert node.process.poll() is None
        if level == "debug":
            node.until("stable")
        code, said = node.stop()
    assert code == 0
    assert {line["level"] for line in said} == told
    assert any(line["event"] == "stable" for line in said) is (level == "debug")


def assert_failed(node: Process, kind: str, *words: str) -> None:
    """Wait for a node that ends by itself, and says so in one line."""
    code, said = node.end()
    (line,) = [line for line in said if line["event"] in ("failed", "stopped", "refused")]
    assert (code, line["event"], line["level"], line["kind"]) == (1, "failed", "error", kind)
    assert all(word in line["reason"] for word in words), line


def test_an_application_that_raises_ends_the_process_with_a_failure(tmp_path):
    with run(lone(tmp_path, "wrong:Raising")) as (node,):
        node.ready()
        submit(tmp_path / "net")
        assert_failed(node, "ApplicationError", "no luck")


def test_a_disk_that_fails_ends_the_process_with_a_failure(tmp_path):
    with run(lone(tmp_path)) as (node,):
        node.ready()
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        submit(tmp_path / "net")
        assert_failed(node, "StorageError", "cannot write")


def test_a_state_of_its_own_ends_the_process_with_a_failure(tmp_path):
    net = tmp_path / "net"
    limits = LimitsSection(checkpoint_interval=1)
    write_testnet(net, NewCluster(base_port=0, application="wrong:Diverging", limits=limits))
    with run(net / "n0", net / "n1", net / "n2") as honest, run(net / "n3", ROOT="1") as (diverging,):
        for node in (*honest, diverging):
            node.ready()
        submit(net)
        assert_failed(diverging, "ApplicationError", "differs")
        for node in honest:
            assert node.stop()[0] == 0


def refusal(folder: Path) -> str:
    """Start a node that must not start; return why it did not."""
    with run(folder) as (node,):
        code, (line,) = node.end()
    assert (code, line["event"], line["level"]) == (2, "refused", "error")
    return line["reason"]


def test_a_disk_that_was_emptied_keeps_the_node_down_until_it_is_restored(tmp_path):
    folder = lone(tmp_path)
    with run(folder) as (node,):
        submit(node.ready().folder.parent)
        assert node.stop()[0] == 0
    (folder / "data").rename(tmp_path / "lost")
    for empty in ((), ("data",), ("data", "data/log")):
        for name in empty:
            (folder / name).mkdir(exist_ok=True)
        reason = refusal(folder)
        for words in ("has run before", "safety", "Restore the disk", "new identity", "testnet new"):
            assert words in reason
    (folder / "data" / "log" / "lock").touch()
    assert "has run before" in refusal(folder)
    for path in (folder / "data" / "log" / "lock", folder / "data" / "log", folder / "data"):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "lost").rename(folder / "data")
    with run(folder) as (node,):
        node.ready()
        assert node.stop()[0] == 0
