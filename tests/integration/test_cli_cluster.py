"""The command line against real processes: what a newcomer, an operator and a benchmarker type."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from bftkit.bench.machine import syncs_to_disk
from bftkit.bench.processes import read_record

pytestmark = [pytest.mark.processes, pytest.mark.network, pytest.mark.timeout(120)]

COMMAND = [sys.executable, "-c", "from bftkit.cli.main import main; main()"]


def bftkit(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=90, **options
    )


def document_of(done, code=0):
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@contextmanager
def started(*arguments, **options):
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def children_of(pid):
    """List the processes whose parent this one is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def running(folder):
    """Return the process of a node that runs."""
    record = read_record(folder)
    assert record is not None
    return record


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def net(tmp_path):
    """Four nodes that answer; each test may do to them what it likes."""
    directory = tmp_path / "net"
    assert bftkit("testnet", "new", directory, "--base-port", "0").returncode == 0
    up = document_of(bftkit("up", directory, "--detach", "--json"))
    assert up["answering"] == 4
    yield directory
    assert set(document_of(bftkit("down", directory, "--json"))["stopped"]) <= {"n0", "n1", "n2", "n3"}


def test_an_operators_morning(net):
    environment = {**os.environ, "BFTKIT_CLUSTER": str(net)}
    first = document_of(bftkit("submit", "put", "colour", "blue", "--json", env=environment))
    assert first["result"] == "ok"
    second = document_of(bftkit("submit", "--json", "add", "n", "-5", env=environment))
    assert second["result"] == "ok: -5"
    assert second["height"] > first["height"] >= 1
    asked = document_of(bftkit("query", "get", "colour", "--json", env=environment))
    assert (asked["result"], asked["stale_ok"]) == ("ok: blue", False)
    assert asked["height"] > second["height"]
    stale = document_of(bftkit("query", "get", "colour", "--stale-ok", "--json", env=environment))
    assert (stale["result"], stale["stale_ok"], stale["height"]) == ("ok: blue", True, None)
    refused = bftkit("submit", "fly", "--json", env=environment)
    assert document_of(refused, 1)["kind"] == "Rejected"

    replicas = document_of(bftkit("cluster", "status", "--json", env=environment))["replicas"]
    wanted = {"id", "engine", "epoch", "view", "leader", "height", "applied", "state_root", "waiting_for"}
    assert [replica["id"] for replica in replicas] == ["n0", "n1", "n2", "n3"]
    assert all(wanted <= replica.keys() for replica in replicas)
    assert {replica["tls"] for replica in replicas} == {True}
    explained = document_of(bftkit("cluster", "explain", "--json", env=environment))["replicas"]
    assert [replica["id"] for replica in explained] == ["n0", "n1", "n2", "n3"]
    assert all(wanted <= replica.keys() for replica in explained)
    assert all(replica["explanation"] for replica in explained)
    assert bftkit("up", net, "--detach").returncode == 2


def test_one_node_may_be_killed_and_comes_back(net):
    record = running(net / "n1")
    record.signal(signal.SIGKILL)
    wait_until(lambda: not record.is_alive)
    assert document_of(bftkit("submit", "put", "after", "kill", "--json", "--cluster", net))["result"] == "ok"
    for verb in ("status", "explain"):
        replicas = document_of(bftkit("cluster", verb, "--json", "--cluster", net))["replicas"]
        assert [("error" in replica) for replica in replicas] == [False, True, False, False]
        assert {"waiting_for", "state_root", "leader"} <= replicas[1].keys(), "also of those that do not answer"
    with started("node", "run", net / "n1", stderr=subprocess.PIPE) as node:
        line = next(line for line in node.stderr if '"ready"' in line)
        assert json.loads(line)["node"] == "n1"

        def is_equal():
            found = document_of(bftkit("cluster", "status", "--json", "--cluster", net))["replicas"]
            return len({(replica.get("applied"), replica.get("state_root")) for replica in found}) == 1

        wait_until(is_equal)
        node.send_signal(signal.SIGTERM)
        assert node.wait(60) == 0


def test_up_in_the_foreground_leaves_nothing_behind(tmp_path):
    directory = tmp_path / "net"
    assert bftkit("testnet", "new", directory, "--base-port", "0").returncode == 0
    with started("up", directory) as up:
        assert up.stdout.readline() == "4 of 4 nodes answer\n"
        nodes = [running(directory / f"n{index}") for index in range(4)]
        assert sorted(children_of(up.pid)) == sorted(node.pid for node in nodes)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    assert not any(node.is_alive for node in nodes)
    assert not list(directory.glob("*/node.pid"))


def test_up_says_why_a_node_does_not_start_and_leaves_the_others_running(tmp_path):
    directory = tmp_path / "net"
    assert bftkit("testnet", "new", directory, "--base-port", "0").returncode == 0
    assert document_of(bftkit("up", directory, "--detach", "--json"))["answering"] == 4
    assert len(document_of(bftkit("down", directory, "--json"))["stopped"]) == 4
    (directory / "n1" / "data").rename(tmp_path / "lost")
    try:
        again = bftkit("up", directory, "--detach", "--json")
        assert document_of(again, 3)["answering"] == 3
        for words in ("n1 has ended with code 2", "has run before", "Restore the disk"):
            assert words in again.stderr
    finally:
        assert document_of(bftkit("down", directory, "--json"))["stopped"] == ["n0", "n2", "n3"]


def test_the_demo_ends_in_a_verdict(tmp_path):
    done = bftkit("demo", "--json", "--seconds", "8", env={**os.environ, "TMPDIR": str(tmp_path)})
    figures = document_of(done)
    assert (figures["verdict"], figures["lost"], figures["duplicated"], figures["equal_state"]) == ("ok", 0, 0, True)
    assert figures["committed"] > 1000
    assert figures["throughput_tx_s"] > 0
    assert figures["first_commit_s"] > 0
    assert figures["leader_kill"]["leader"] == "n0"
    assert figures["leader_kill"]["commit_gap_ms"] > 0
    assert figures["leader_kill"]["longest_pause_ms"] > 0
    assert figures["leader_kill"]["committed_after"] > 6400
    assert figures["leader_kill"]["caught_up_batches"] >= 0
    assert (figures["agreeing"], figures["missing"]) == (4, [])
    assert (figures["engine"], figures["swapped_to"], figures["swap"]) == ("pbft", None, None)
    assert (figures["replicas"], figures["processes"], figures["tls"]) == (4, 4, True)
    assert figures["fsync"] is syncs_to_disk(tmp_path)
    lines = done.stderr.splitlines()
    told = (
        "x killed leader n0",
        "~ commits again, view 0 -> ",
        "+ started n0 again",
        "+ n0 back, caught up ",
        "verdict ok",
    )
    places = [next(place for place, line in enumerate(lines) if words in line) for words in told]
    assert places == sorted(places)
    assert "no swap" in lines[1]
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_why_nobody_is_killed(tmp_path):
    done = bftkit(
        "demo", "--engine", "solo", "--replicas", "1", "--seconds", "8", env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert "- no kill: a cluster of 1 on solo cannot do without any replica" in done.stdout
    assert "verdict ok" in done.stdout
    assert "1/1 equal state root" in done.stdout


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path):
    with started("demo", env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        wait_until(lambda: len(children_of(demo.pid)) == 5)
        children = children_of(demo.pid)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 1
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert list(tmp_path.iterdir()) == []


def test_a_killed_demo_leaves_no_process(tmp_path):
    with started("demo", env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        wait_until(lambda: len(children_of(demo.pid)) == 5)
        children = children_of(demo.pid)
        demo.kill()
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.parametrize("more", [["--submit", "single", "--outstanding", "200"], ["--rate", "2000"]])
def test_bench_run_reports_and_judges(tmp_path, more):
    done = bftkit("bench", "run", "--seconds", "1", "--json", "--dir", tmp_path, *more)
    document = document_of(done)
    (run,) = document["runs"]
    assert (run["lost"], run["duplicated"], run["equal_state"]) == (0, 0, True)
    assert run["throughput_tx_s"] > 0
    assert run["latency_ms"]["p50"] <= run["latency_ms"]["p999"] <= run["latency_ms"]["max"]
    assert run["messages_per_block"] > 0
    assert run["cpu_s_per_1000_tx"] > 0
    assert run["rate"] == (2000.0 if "--rate" in more else None)
    assert document["environment"]["file_system"]
    assert "tx/s" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_is_watched_and_explained(net):
    with started("watch", "--cluster", net) as watching:
        told = [watching.stdout.readline().split()[2:4] for _ in range(4)]
        assert sorted(told) == [["up", name] for name in ("n0", "n1", "n2", "n3")]
        assert bftkit("submit", "--cluster", net, "put", "seen", "1").returncode == 0
        next(line for line in watching.stdout if "committed" in line)
        explained = document_of(bftkit("cluster", "explain", "--cluster", net, "--json"))
        assert explained["summary"].startswith("nothing is pending")
        running(net / "n3").signal(signal.SIGKILL)
        assert " n3 " in next(line for line in watching.stdout if "does not answer" in line)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
    found = document_of(bftkit("watch", "--cluster", net, "--seconds", 0.5, "--json"))
    assert [(replica["id"], "error" in replica) for replica in found["replicas"]] == [
        ("n0", False),
        ("n1", False),
        ("n2", False),
        ("n3", True),
    ]
    explained = document_of(bftkit("cluster", "explain", "--cluster", net, "--json"))
    assert len(explained["replicas"]) == 4
