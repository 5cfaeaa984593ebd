"""SIGKILL under load: every acknowledged command is there, exactly once."""

from pathlib import Path

import anyio
import pytest

from bftkit import Client, OutcomeUnknown, Overloaded
from bftkit.batteries.kv import add, get, result
from tests.integration.process_cluster import ProcessCluster

pytestmark = [pytest.mark.processes, pytest.mark.timeout(280)]

KILLS = 20
WORKERS = 8


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Ledger:
    """What each worker was told: it adds one to its own counter, again and again."""

    def __init__(self) -> None:
        self.acknowledged = [0] * WORKERS
        self.unknown = [0] * WORKERS
        self.results: list[list[int]] = [[] for _ in range(WORKERS)]
        self.stop = False

    async def work(self, client: Client, worker: int) -> None:
        while not self.stop:
            try:
                receipt = await client.submit(add(_key(worker), 1), timeout=40)
            except Overloaded as error:
                await anyio.sleep(error.retry_after)
            except OutcomeUnknown:
                self.unknown[worker] += 1
            else:
                self.acknowledged[worker] += 1
                self.results[worker].append(_number(receipt.result))

    def total(self) -> int:
        return sum(self.acknowledged)

    async def check(self, client: Client) -> None:
        """Compare what the replicas hold with what was told."""
        for worker in range(WORKERS):
            told = self.results[worker]
            assert told == sorted(set(told)), "a command was executed twice, or out of order"
            held = _number(await client.query(get(_key(worker)), timeout=20))
            assert self.acknowledged[worker] <= held <= self.acknowledged[worker] + self.unknown[worker]


def _key(worker: int) -> bytes:
    return b"counter-%d" % worker


def _number(data: bytes) -> int:
    return int(result(data).value or b"0")


async def _progress(ledger: Ledger, commands: int) -> None:
    """Wait until so many more commands were acknowledged."""
    goal = ledger.total() + commands
    with anyio.fail_after(60):
        while ledger.total() < goal:
            await anyio.sleep(0.02)


async def _equal_states(client: Client) -> None:
    """Wait until all four replicas hold the same state."""
    with anyio.fail_after(60):
        while True:
            status = await client.status()
            roots = {
                (replica.get("applied"), replica.get("state_root"), replica.get("sessions_root")) for replica in status
            }
            if len(status) == 4 and len(roots) == 1 and status[0].get("applied"):
                return
            await anyio.sleep(0.1)


@pytest.mark.anyio
async def test_any_one_replica_is_killed(tmp_path: Path) -> None:
    ledger = Ledger()
    with ProcessCluster(tmp_path, view_timeout_ms=400) as cluster:
        async with Client.open(cluster.folder) as client, anyio.create_task_group() as tasks:
            for worker in range(WORKERS):
                tasks.start_soon(ledger.work, client, worker)
            for kill in range(KILLS):
                await _progress(ledger, 60)
                victim = cluster.names[kill % len(cluster.names)]
                cluster.kill(victim)
                await _progress(ledger, 60)
                cluster.start(victim)
            ledger.stop = True
        async with Client.open(cluster.folder) as client:
            await _equal_states(client)
            await ledger.check(client)
        assert set(cluster.exit_codes().values()) == {None}


@pytest.mark.anyio
async def test_all_replicas_are_killed_at_once(tmp_path: Path) -> None:
    ledger = Ledger()
    with ProcessCluster(tmp_path, view_timeout_ms=400) as cluster:
        async with Client.open(cluster.folder) as client, anyio.create_task_group() as tasks:
            for worker in range(WORKERS):
                tasks.start_soon(ledger.work, client, worker)
            for _ in range(KILLS):
                await _progress(ledger, 60)
                cluster.kill_all()
                for name in cluster.names:
                    cluster.start(name)
            await _progress(ledger, 60)
            ledger.stop = True
        async with Client.open(cluster.folder) as client:
            await _equal_states(client)
            await ledger.check(client)
        assert set(cluster.exit_codes().values()) == {None}
