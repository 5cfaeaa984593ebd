"""Linearizable reads while nodes are killed and stand still: nobody sees less than what was known before."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest

from bftkit import Client, NotReady, OutcomeUnknown, Overloaded
from bftkit.batteries.kv import add, get, result
from bftkit.core.quorum import FaultModel
from bftkit.plugins import load_engines
from tests.integration.proxied_cluster import ProxiedCluster

pytestmark = [pytest.mark.processes, pytest.mark.timeout(280)]

COUNTERS = 4
READERS = 6
FAULTS = 8
READS_EACH = 25
"""Reads that must be answered during each fault, and after it."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Ledger:
    """What is known of some counters, and what readers are told of them."""

    def __init__(self) -> None:
        self.known = [0] * COUNTERS
        """Highest value that anybody has been told of."""
        self.called = [0] * COUNTERS
        """How often it was to be raised."""
        self.answered = 0
        self.unanswered = 0
        self.stale_answers = 0
        self.stop = False

    async def write(self, client: Client, counter: int) -> None:
        while not self.stop:
            self.called[counter] += 1
            try:
                receipt = await client.submit(add(_key(counter), 1), timeout=40)
            except (OutcomeUnknown, Overloaded):
                continue
            self.told(counter, _number(receipt.result))

    def told(self, counter: int, value: int) -> None:
        self.known[counter] = max(self.known[counter], value)

    async def read(self, client: Client, chance: random.Random) -> None:
        while not self.stop:
            counter = chance.randrange(COUNTERS)
            floor = self.known[counter]
            try:
                value = _number(await client.query(get(_key(counter)), timeout=20))
            except NotReady:
                self.unanswered += 1
                continue
            assert floor <= value <= self.called[counter]
            self.told(counter, value)
            self.answered += 1

    async def read_stale(self, client: Client) -> None:
        """What may be old is no older than the beginning, and from no future."""
        while not self.stop:
            value = _number(await client.query(get(_key(0)), timeout=20, stale_ok=True))
            assert 0 <= value <= self.called[0]
            self.stale_answers += 1
            await anyio.sleep(0.05)

    async def progress(self) -> None:
        goal = self.answered + READS_EACH
        with anyio.fail_after(60):
            while self.answered < goal:
                await anyio.sleep(0.02)


def _key(counter: int) -> bytes:
    return b"counter-%d" % counter


def _number(data: bytes) -> int:
    return int(result(data).value or b"0")


ENGINES = {
    name: (3 if spec.fault_model is FaultModel.CRASH else 4, "view_timeout_ms" in spec.options_type.__struct_fields__)
    for name, spec in load_engines().items()
    if name != "solo"
}
"""For each engine of a group, how many members tolerate one fault, and whether its patience can be set."""


@pytest.mark.anyio
@pytest.mark.parametrize("engine", ENGINES)
async def test_reads_are_recent_while_nodes_are_killed_and_stand_still(tmp_path: Path, engine: str) -> None:
    ledger, chance = Ledger(), random.Random(5)
    replicas, has_timeout = ENGINES[engine]
    options: dict[str, object] = {"view_timeout_ms": 400} if has_timeout else {}
    with ProxiedCluster(tmp_path, engine=engine, replicas=replicas, **options) as cluster:
        async with (
            Client.open(cluster.folder) as writer,
            Client.open(cluster.folder, sessions=0, contact=1) as reader,
            anyio.create_task_group() as tasks,
        ):
            for counter in range(COUNTERS):
                tasks.start_soon(ledger.write, writer, counter)
            for number in range(READERS):
                client = reader if number % 2 else writer
                tasks.start_soon(ledger.read, client, random.Random(number))
            tasks.start_soon(ledger.read_stale, reader)
            for fault in range(FAULTS):
                victim = chance.choice(cluster.names)
                if fault % 2:
                    cluster.kill(victim)
                    await ledger.progress()
                    cluster.start(victim)
                else:
                    cluster.pause(victim)
                    await ledger.progress()
                    cluster.go_on(victim)
                await ledger.progress()
            ledger.stop = True
        assert set(cluster.exit_codes().values()) == {None}
    assert ledger.answered >= 2 * FAULTS * READS_EACH
    assert ledger.unanswered == 0, "those who are left answer within 20 s"
    assert ledger.stale_answers
    assert min(ledger.known) > 0


@pytest.mark.anyio
async def test_one_node_that_knows_what_is_decided_answers_alone_and_after_a_kill_no_less(tmp_path: Path) -> None:
    ledger = Ledger()
    with ProxiedCluster(tmp_path, replicas=1, engine="solo") as cluster:
        async with Client.open(cluster.folder) as client, anyio.create_task_group() as tasks:
            for counter in range(COUNTERS):
                tasks.start_soon(ledger.write, client, counter)
            for number in range(READERS):
                tasks.start_soon(ledger.read, client, random.Random(number))
            for _ in range(FAULTS):
                await ledger.progress()
                cluster.kill(cluster.names[0])
                cluster.start(cluster.names[0])
            await ledger.progress()
            reading = await client.read(get(_key(0)))
            assert not reading.ordered
            ledger.stop = True
        assert set(cluster.exit_codes().values()) == {None}
    assert ledger.answered >= FAULTS * READS_EACH
