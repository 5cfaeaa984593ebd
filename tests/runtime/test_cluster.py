"""Whole clusters in one program: restarts, failures, full disks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from bftkit.batteries.counter import Counter
from bftkit.core.batch import CommittedBatch
from bftkit.core.epoch import Limits
from bftkit.errors import (
    ApplicationError,
    BftkitError,
    ConfigurationError,
    EngineError,
    NotReady,
    StorageError,
    StorageFull,
    StorageLocked,
)
from bftkit.replica.settings import ReplicaTuning
from bftkit.runtime import application, shard
from bftkit.runtime.cluster import Cluster
from bftkit.runtime.node import Node, NodeEvent
from bftkit.storage.memory import MemoryStorage

pytestmark = pytest.mark.anyio

FAST = {"view_timeout_ms": 400}


def four(factory=Counter, **options: Any) -> Cluster:
    cluster = Cluster.in_memory(4, factory, options=FAST, **options)
    cluster.tuning = ReplicaTuning(progress_ms=20, sync_grace_ms=20, fetch_retry_ms=20, snapshot_positions=8)
    return cluster


async def wait_for(condition, seconds: float = 10) -> None:
    with anyio.fail_after(seconds):
        while not await condition():
            await anyio.sleep(0.005)


async def agree(nodes: Sequence[Node], applied: int | None = None) -> None:
    """Wait until all nodes have executed the same."""

    async def same() -> bool:
        states = [await node.status() for node in nodes]
        roots = {(state["applied"], state["state_root"], state["sessions_root"]) for state in states}
        return len(roots) == 1 and (applied is None or states[0]["applied"] >= applied)

    await wait_for(same)


async def total(node: Node) -> int:
    return int(await node.query(b"", stale_ok=True))


# --- Building --------------------------------------------------------------------------------------------------------


async def test_what_the_engine_does_not_accept_is_refused_before_anything_runs():
    with pytest.raises(ConfigurationError, match="at least 4"):
        Cluster.in_memory(3, Counter)
    with pytest.raises(ConfigurationError, match="view_timeout_ms"):
        Cluster.in_memory(4, Counter, options={"view_timeout_ms": 0})
    with pytest.raises(EngineError, match="nonsense"):
        Cluster.in_memory(4, Counter, engine="nonsense")


async def test_names_keep_their_order_beyond_ten():
    names = [member.name for member in Cluster.in_memory(11, Counter).genesis.config.members]
    assert names == sorted(names)


# --- Running ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["pbft", "hotstuff"])
async def test_every_node_takes_commands_and_all_agree(engine):
    async with four(engine=engine) as cluster:
        assert [node.name for node in cluster.nodes] == ["n0", "n1", "n2", "n3"]
        for node in cluster.nodes:
            await node.submit(b"5")
        await agree(cluster.nodes)
        assert [await total(node) for node in cluster.nodes] == [20] * 4


@pytest.mark.parametrize("engine", ["pbft", "hotstuff"])
async def test_a_node_stops_and_starts_again_with_what_its_storage_holds(engine):
    async with four(limits=Limits(checkpoint_interval=4), engine=engine) as cluster:
        for _ in range(6):
            await cluster.nodes[0].submit(b"1")
        await agree(cluster.nodes)
        await cluster.stop("n1")
        assert [node.name for node in cluster.nodes] == ["n0", "n2", "n3"]
        for _ in range(20):
            await cluster.nodes[0].submit(b"1")
        again = await cluster.start("n1")
        assert cluster.nodes[1] is again
        await agree(cluster.nodes)
        assert await total(again) == 26
        assert (await again.submit(b"1")).result == b"27"
        with pytest.raises(ConfigurationError):
            await cluster.start("n1")


async def test_all_nodes_stop_and_start_again_and_nothing_is_lost_or_repeated():
    async with four(limits=Limits(checkpoint_interval=4)) as cluster:
        for _ in range(11):
            await cluster.nodes[2].submit(b"1")
        await agree(cluster.nodes)
        for name in ("n0", "n3", "n1", "n2"):
            await cluster.stop(name)
        assert cluster.nodes == []
        for name in ("n2", "n0", "n1", "n3"):
            await cluster.start(name)
        await agree(cluster.nodes)
        assert [await total(node) for node in cluster.nodes] == [11] * 4
        assert (await cluster.nodes[1].submit(b"4")).result == b"15"


async def test_without_its_leader_the_group_goes_on():
    async with four() as cluster:
        await cluster.nodes[1].submit(b"1")
        await cluster.stop("n0")
        assert (await cluster.nodes[0].submit(b"1")).result == b"2"
        await agree(cluster.nodes)
        assert (await cluster.nodes[0].status())["view"] >= 1


async def test_a_cluster_that_is_not_entered_starts_nothing():
    with pytest.raises(NotReady):
        await four().start("n0")


async def test_a_stranger_is_not_started():
    async with four() as cluster:
        with pytest.raises(ConfigurationError):
            await cluster.start("n9")


# --- Failures --------------------------------------------------------------------------------------------------------


class Fragile(Counter):
    """A counter of which one instance refuses to count to three."""

    born = 0

    def __init__(self) -> None:
        super().__init__()
        self.weak = Fragile.born % 4 == 2
        Fragile.born += 1

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        if self.weak and self.total >= 2:
            raise ArithmeticError("too much")
        return super().apply(batch)


async def test_a_node_whose_application_fails_stops_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(Fragile, "born", 0)
    cluster = four(Fragile)
    async with cluster:
        weak, strong = cluster.nodes[2], cluster.nodes[0]
        events = weak.events()
        for _ in range(6):
            await strong.submit(b"1")
        with pytest.raises(ApplicationError, match="too much"), anyio.fail_after(5):
            await weak.run_until_stopped()
        assert isinstance(weak.failure, ApplicationError)
        signed = weak.shard.counters.signatures
        for _ in range(3):
            await strong.submit(b"1")
        assert weak.shard.counters.signatures == signed, "it votes no more"
        assert (await strong.status())["peers"] == ["n1", "n3"]
        told: list[NodeEvent] = []
        with events:
            while events.statistics().current_buffer_used:
                told.append(events.receive_nowait())
        assert "too much" in next(event.detail for event in told if event.kind == "stopped")
        with pytest.raises(ApplicationError):
            await cluster.stop("n2")
        await agree(cluster.nodes)
        assert await total(strong) == 9


async def test_a_failure_that_nobody_asked_about_is_raised_at_the_end_and_all_are_stopped(monkeypatch):
    monkeypatch.setattr(Fragile, "born", 0)
    cluster = four(Fragile)
    with pytest.raises(ApplicationError, match="too much"):
        async with cluster:
            nodes = list(cluster.nodes)
            for _ in range(4):
                await nodes[0].submit(b"1")
            await wait_for(lambda: _failed(nodes[2]))
    for node in nodes:
        with pytest.raises(NotReady):
            await node.status()


async def _failed(node: Node) -> bool:
    return node.failure is not None


class MoodyStorage(MemoryStorage):
    """A disk that is full or broken while the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.mood: BftkitError | None = None

    def open_append(self, path: str):
        return _MoodyFile(self, super().open_append(path))


class _MoodyFile:
    def __init__(self, storage: MoodyStorage, inner) -> None:
        self._storage, self._inner = storage, inner
        self.truncate, self.close = inner.truncate, inner.close

    def write(self, buffers) -> None:
        if isinstance(self._storage.mood, StorageFull):
            raise self._storage.mood
        self._inner.write(buffers)

    def sync(self) -> None:
        if self._storage.mood is not None:
            raise self._storage.mood
        self._inner.sync()


def with_moody_disk(name: str, **options: Any) -> tuple[Cluster, MoodyStorage]:
    cluster = four(**options)
    storage = cluster._storages[name] = MoodyStorage()
    return cluster, storage


async def test_a_failing_sync_stops_the_node_and_the_others_go_on():
    cluster, storage = with_moody_disk("n3")
    async with cluster:
        broken = cluster.nodes[3]
        await cluster.nodes[0].submit(b"1")
        storage.mood = StorageError("the disk is broken")
        for _ in range(3):
            await cluster.nodes[0].submit(b"1")
        with pytest.raises(StorageError, match="broken"), anyio.fail_after(5):
            await broken.run_until_stopped()
        with pytest.raises(StorageError, match="broken"):
            await cluster.stop("n3")
        storage.mood = None
        await cluster.start("n3")
        await agree(cluster.nodes, applied=4)


async def test_a_full_disk_stalls_its_node_alone_until_there_is_space(monkeypatch):
    monkeypatch.setattr(shard, "FULL_DISK_RETRY_S", 0.005)
    monkeypatch.setattr(application, "FULL_DISK_RETRY_S", 0.005)
    cluster, storage = with_moody_disk("n2", limits=Limits(checkpoint_interval=4))
    async with cluster:
        full = cluster.nodes[2]
        await cluster.nodes[0].submit(b"1")
        storage.mood = StorageFull("no space")
        for _ in range(20):
            await cluster.nodes[0].submit(b"1")
        await wait_for(lambda: _counted(full))
        assert full.failure is None
        storage.mood = None
        await agree(cluster.nodes)
        assert await total(full) == 21


async def _counted(node: Node) -> bool:
    return node.shard.counters.disk_full > 2


async def test_a_node_that_cannot_start_says_why_and_leaves_the_rest_running():
    cluster = four()
    async with cluster:
        await cluster.nodes[0].submit(b"1")
        await cluster.stop("n3")
        other_process = cluster._storages["n3"].lock("log/lock")
        with pytest.raises(StorageLocked):
            await cluster.start("n3")
        assert (await cluster.nodes[0].submit(b"1")).result == b"2"
        other_process.release()
        await cluster.start("n3")
        await agree(cluster.nodes)


def test_limits_that_no_frame_holds_are_refused_before_anything_starts():
    with pytest.raises(ConfigurationError, match="max_batch_bytes"):
        Cluster.in_memory(4, Counter, limits=Limits(max_batch_bytes=4_000_000))
