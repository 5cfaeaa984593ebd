"""Failpoints: what is armed, when it acts, and that every place with a name is passed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from bftkit.errors import ConfigurationError, StorageError, StorageFull
from bftkit.plugins import load_engine
from bftkit.runtime.failpoint_names import failpoint, register, registered
from bftkit.runtime.failpoint_storage import FailpointStorage
from bftkit.runtime.failpoints import Action, Armed, Failpoints, parse_failpoints
from bftkit.storage.log import Log
from bftkit.testing.disk import CrashMode, SimulatedDisk
from bftkit.testing.nemesis import FAILPOINTS, NOT_SIMULATED, Fault
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world
from tests.house.sources import ROOT
from tests.integration.process_cluster import ProcessCluster

IDENTITY = bytes(32)


# --- As text --------------------------------------------------------------------------------------------------------


def test_a_text_arms_several_failpoints():
    armed = parse_failpoints(
        " wal.before_fsync=kill@3; shard.before_send=sleep=20%0.25 ;mark.after_write=exit=7@2+;seed=9"
    )
    assert armed.armed == (
        Armed("wal.before_fsync", Action.KILL, 0, 3, again=False),
        Armed("shard.before_send", Action.SLEEP, 20, 1, again=True, chance=0.25),
        Armed("mark.after_write", Action.EXIT, 7, 2, again=True),
    )
    assert not parse_failpoints("")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wal.before_fsync", "name=action"),
        ("wal.before_fsinc=kill", "is it wal.before_fsync"),
        ("wal.before_fsync=explode", "none of kill"),
        ("wal.before_fsync=sleep", "milliseconds"),
        ("wal.before_fsync=kill=3", "takes no number"),
        ("wal.before_fsync=exit=256", "from 0 to 255"),
        ("wal.before_fsync=kill@0", "@HIT"),
        ("wal.before_fsync=kill@x", "@HIT"),
        ("wal.before_fsync=kill%2", "PROBABILITY"),
        ("wal.before_fsync=kill;wal.before_fsync=stop", "armed twice"),
        ("wal.before_fsync=full", "nothing needs space"),
        ("seed=many", "a seed"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text, says):
    with pytest.raises(ConfigurationError, match=says):
        parse_failpoints(text)


def test_names_are_unique_and_well_formed():
    with pytest.raises(ConfigurationError, match="already"):
        register("wal.before_fsync", "Again.")
    with pytest.raises(ConfigurationError, match="no name"):
        register("Somewhere", "Nowhere.")
    assert failpoint("wal.before_fsync").sentence.endswith(".")


# --- When ---


def acted(text: str, hits: int, name: str = "shard.before_send") -> list[int]:
    seen: list[int] = []
    armed = parse_failpoints(text, act=lambda one: seen.append(number))
    for number in range(1, hits + 1):  # noqa: B007  # the action notes it
        armed.hit(name)
    return seen


def test_it_acts_at_the_hits_that_were_asked_for():
    assert acted("shard.before_send=kill@3", 6) == [3]
    assert acted("shard.before_send=kill@3+", 6) == [3, 4, 5, 6]
    assert acted("shard.before_send=kill", 3) == [1, 2, 3]
    assert acted("shard.after_sync=kill", 3) == []


def test_chance_is_drawn_from_the_seed():
    some = acted("shard.before_send=kill%0.5;seed=3", 200)
    assert 60 < len(some) < 140
    assert some == acted("shard.before_send=kill%0.5;seed=3", 200) != acted("shard.before_send=kill%0.5;seed=4", 200)


# --- The disk ---


def log_over(text: str) -> tuple[Log, SimulatedDisk]:
    disk = SimulatedDisk(Random(1))
    Log.open(disk, "log", IDENTITY).close()
    return Log.open(FailpointStorage(disk, parse_failpoints(text).hit), "log", IDENTITY), disk


def test_a_sync_that_fails_ends_the_log_and_a_second_one_does_not_help():
    log, _ = log_over("wal.before_fsync=error@1")
    log.append(1, 0, b"record")
    with pytest.raises(StorageError, match="injected"):
        log.flush_and_sync()
    with pytest.raises(StorageError):
        log.flush_and_sync()


def test_a_lack_of_space_ends_and_nothing_is_lost():
    log, _ = log_over("wal.before_write=full@1")
    log.append(1, 0, b"record")
    with pytest.raises(StorageFull):
        log.flush_and_sync()
    assert log.flush_and_sync() == 1
    assert [record.payload for record in log.records()] == [b"record"]


def test_a_storage_with_nothing_armed_is_the_storage():
    log, disk = log_over("")
    log.append(1, 0, b"record")
    log.flush_and_sync()
    log.close()
    assert [record.payload for record in Log.open(disk, "log", IDENTITY).records()] == [b"record"]


# --- Every one is passed ---

BUSY = Profile(clients=2, envelopes=12, think_ms=20, checkpoint_interval=2, snapshot_positions=4, segment_bytes=4_096)
AWAY = Profile(
    clients=4, envelopes=40, think_ms=10, crashes=2, down_ms=(2_000, 1_000), checkpoint_interval=2,
    snapshot_positions=4, segment_bytes=4_096,
)  # fmt: skip
"""Members that are away for so long that they take over a state."""


@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_member_that_dies_at_a_failpoint_comes_back_and_nothing_is_lost(name):
    profile = AWAY if name.endswith("_install") else BUSY
    fault = Fault(0, "failpoints", (0,), 1, 50_000, CrashMode.TORN, 0)
    for seed in range(8):
        world = make_world(seed, load_engine("pbft"), 4, profile)
        for node in world.nodes:
            node.arm(name, 1, fault)
            if name.startswith("node.") or name.endswith(("_install", "_read")):
                # Passed by those who come back.
                world.events.after(300_000, world.crashed, node)
        outcome = finish(world)
        assert outcome.violations == (), f"seed {seed}: {outcome.violations}"
        if outcome.faults_hit.get(f"failpoint: {name}"):
            return
    pytest.fail(f"nobody dies at {name}")


@pytest.mark.processes
@pytest.mark.timeout(200)
def test_the_others_kill_real_nodes_which_come_back(tmp_path):
    places = (*NOT_SIMULATED, "wal.before_read", "node.after_listen")

    class Armed(ProcessCluster):
        armed = ""

        def environment(self, name):
            return {"BFTKIT_FAILPOINT": self.armed} if name == "n3" else {}

    with Armed(tmp_path) as cluster:
        cluster.kill("n3")
        for place in places:
            cluster.armed = f"{place}=kill@1"
            fresh = place.endswith("first_start")
            if fresh:
                forget(cluster.folder / "n3")
            cluster.start("n3")
            assert exit_code(cluster, "n3") == -signal.SIGKILL, f"{place} is never passed"
        cluster.armed = ""
        cluster.start("n3")
        assert wait_for(lambda: '"ready"' in cluster.log("n3"))
        assert '"failpoints"' in cluster.log("n3"), "nobody runs with one unawares"


def forget(folder) -> None:
    """Let a node's identity be one that has never started."""
    subprocess.run(["rm", "-rf", str(folder / "data")], check=True)
    (folder / "data").mkdir(mode=0o700)
    (folder / "keys" / "first-start").touch(mode=0o600)


def wait_for(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def exit_code(cluster: ProcessCluster, name: str) -> int | None:
    wait_for(lambda: cluster.exit_codes()[name] is not None)
    code = cluster.exit_codes()[name]
    if code is not None:
        del cluster._running[name]
    return code


@pytest.mark.processes
def test_a_wrong_text_refuses_the_start(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bftkit.runtime.node_process", str(tmp_path)],
        env={**os.environ, "BFTKIT_FAILPOINT": "wal.before_fsinc=kill"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "is it wal.before_fsync" in done.stderr


def test_one_that_is_not_armed_costs_a_look_into_a_table():
    seen: list[Armed] = []
    Failpoints((), act=seen.append).hit("shard.before_send")
    assert seen == []


def page() -> str:
    lines = [
        "# Failpoints",
        "",
        "Places with a name at which a node can be made to die, fail, wait or stop, for tests of your own. A process",
        "is told by its environment: `BFTKIT_FAILPOINT=wal.before_fsync=kill@3`. Entries are separated by `;`. Actions",
        "are `kill`, `exit=CODE`, `error`, `full`, `sleep=MILLISECONDS` and `stop`; `@3` is the third time that the",
        "place is passed, `@3+` the third and all that follow, `%0.1` one time in ten (`seed=7` draws otherwise). A",
        "name that does not exist refuses the start with exit code 2. Simulations crash members at the same places,",
        f"but for those of what simulated members do not have: {', '.join(f'`{name}`' for name in NOT_SIMULATED)}.",
        "",
        "| name | the moment |",
        "|---|---|",
        *(f"| `{each.name}` | {each.sentence} |" for each in registered()),
    ]
    return "\n".join(lines) + "\n"


def test_the_reference_page_lists_them(golden):
    golden(ROOT / "docs" / "reference" / "failpoints.md", page())
