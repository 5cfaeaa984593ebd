"""Parts that a program puts into nodes from outside: a faulty disk, a lossy network, a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pytest

from bftkit import Cluster, Node, NodeParts, Storage, SystemClock, Transport
from bftkit.batteries.counter import Counter
from bftkit.batteries.kv import KeyValue, put
from bftkit.errors import ConfigurationError, StorageError
from bftkit.replica.settings import ReplicaTuning
from bftkit.runtime.testnet import NewCluster, write_testnet

pytestmark = pytest.mark.anyio

PATIENT = {"view_timeout_ms": 60_000}


class Disk:
    """A storage whose syncs fail while it is told so, around a good one."""

    def __init__(self, good: Storage) -> None:
        self.good = good
        self.fails = False
        self.syncs = 0

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.good, operation)

    def open_append(self, path: str) -> DiskFile:
        return DiskFile(self, path)


class DiskFile:
    """A file of such a disk."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk, self._path, self._good = disk, path, disk.good.open_append(path)

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._good, operation)

    def sync(self) -> None:
        if self._disk.fails:
            raise StorageError(f"{self._path} cannot be synced", self._path)
        self._disk.syncs += 1
        self._good.sync()


class Lossy:
    """A transport that loses every third message, around one that does not."""

    def __init__(self, good: Transport) -> None:
        self.good = good
        self.sent = self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.good, name)

    def send(self, peer: str, priority: int, buffers: Sequence[bytes | memoryview]) -> bool:
        self.sent += 1
        if self.sent % 3 == 0:
            self.lost += 1
            return False
        return self.good.send(peer, priority, buffers)


class Leaping(SystemClock):
    """The machine's clocks, put forward by as much as the test says."""

    def __init__(self, days: int = 0) -> None:
        self.ahead = timedelta(days=days)

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead // timedelta(milliseconds=1)

    def wall_time(self) -> datetime:
        return super().wall_time() + self.ahead


def group(adapt: Callable[[NodeParts], NodeParts], **options: Any) -> Cluster:
    cluster = Cluster.in_memory(4, Counter, adapt=adapt, options=options or {"view_timeout_ms": 400})
    cluster.tuning = ReplicaTuning(progress_ms=20, sync_grace_ms=20, fetch_retry_ms=20)
    return cluster


async def agree(cluster: Cluster, applied: int) -> None:
    """Wait until all nodes have executed so much, to the same state."""
    with anyio.fail_after(20):
        while True:
            states = [await node.status() for node in cluster.nodes]
            roots = {(state["applied"], state["state_root"]) for state in states}
            if len(roots) == 1 and states[0]["applied"] >= applied:
                return
            await anyio.sleep(0.005)


async def test_a_disk_from_outside_that_fails_stops_its_node_and_no_other():
    disks: dict[str, Disk] = {}

    def adapt(parts: NodeParts) -> NodeParts:
        name = parts.settings.membership.name(parts.settings.own)
        disk = disks.setdefault(name, Disk(parts.storage))
        return msgspec.structs.replace(parts, storage=disk)

    async with group(adapt) as cluster:
        await cluster.nodes[0].submit(b"1")
        await agree(cluster, 2)
        assert all(disk.syncs for disk in disks.values())
        disks["n3"].fails = True
        await cluster.nodes[0].submit(b"1")
        with anyio.fail_after(10), pytest.raises(StorageError, match="cannot be synced"):
            await cluster.nodes[3].run_until_stopped()
        with pytest.raises(StorageError, match="cannot be synced"):
            await cluster.stop("n3")
        assert (await cluster.nodes[0].submit(b"1")).result == b"3"
        disks["n3"].fails = False
        await cluster.start("n3")
        await agree(cluster, 4)


async def test_what_a_network_from_outside_loses_is_sent_again():
    networks: list[Lossy] = []

    def adapt(parts: NodeParts) -> NodeParts:
        networks.append(Lossy(parts.transport))
        return msgspec.structs.replace(parts, transport=networks[-1])

    async with group(adapt) as cluster:
        for turn in range(8):
            await cluster.nodes[turn % 4].submit(b"1", timeout=30)
        await agree(cluster, 8)
    assert all(network.lost for network in networks)


async def test_timers_follow_a_clock_from_outside():
    """The view lasts a minute by the nodes' clock, and less by the machine's."""
    clock = Leaping()
    async with group(lambda parts: msgspec.structs.replace(parts, clock=clock), **PATIENT) as cluster:
        await cluster.nodes[1].submit(b"1")
        await cluster.stop("n0")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cluster.nodes[0].submit, b"1")
            with anyio.fail_after(20):
                while not (await cluster.nodes[0].status())["view"]:
                    clock.ahead += timedelta(seconds=30)
                    await anyio.sleep(0.05)
        await agree(cluster, 2)


def of_files(folder: Any) -> str:
    """Write the files of a node that needs no others; return its own."""
    write_testnet(folder / "net", NewCluster(replicas=1, engine="solo", base_port=0))
    return str(folder / "net" / "n0" / "bftkit.toml")


async def test_a_node_of_files_takes_parts_too(tmp_path):
    disks: list[Disk] = []
    clock = Leaping()

    def adapt(parts: NodeParts) -> NodeParts:
        assert parts.clock is clock
        disks.append(Disk(parts.storage))
        return msgspec.structs.replace(parts, storage=disks[-1], transport=Lossy(parts.transport))

    async with Node.open(of_files(tmp_path), KeyValue(), adapt=adapt, clock=clock) as node:
        assert (await node.submit(put(b"a", b"b"))).height
    assert disks[0].syncs


@pytest.mark.parametrize(("days", "says"), [(5_000, "expired"), (-5_000, "is the clock right")])
async def test_a_certificate_is_judged_by_the_clock_from_outside(days, says, tmp_path):
    path = of_files(tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        Node.open(path, KeyValue(), clock=Leaping(days))
    Node.open(path, KeyValue(), clock=Leaping(1))


def test_the_machines_wall_time_has_its_zone():
    assert SystemClock().wall_time().tzinfo is UTC
