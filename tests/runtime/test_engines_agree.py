"""One schedule of clients, every engine: nobody can tell by the results which one orders the commands."""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
import pytest

from bftkit.batteries.kv import KeyValue, add, compare_and_set, delete, put, read
from bftkit.core.epoch import Limits
from bftkit.replica.settings import ReplicaTuning
from bftkit.runtime.cluster import Cluster
from bftkit.runtime.node import Node

pytestmark = pytest.mark.anyio

CLIENTS = 6
COMMANDS = 40
OWN_KEYS = 3
COUNT = add(b"shared", 1)
"""What all clients ask for now and then."""
PATIENCE_S = 60.0

ENGINES = {
    "solo": (1, {}),
    "raft": (3, {"election_timeout_ms": 200, "heartbeat_ms": 20}),
    "pbft": (4, {"view_timeout_ms": 400}),
    "hotstuff": (4, {"view_timeout_ms": 400}),
}
"""For each engine, how many members it has here, and its options."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def script(seed: int, client: int) -> list[bytes]:
    """Draw what a client asks for, one after another: its own keys are nobody else's, one key is everybody's."""
    chance = random.Random(f"{seed}/{client}")
    keys = [b"%d/%d" % (client, number) for number in range(OWN_KEYS)]
    commands = []
    for _ in range(COMMANDS):
        key = chance.choice(keys)
        value = b"%d" % chance.randrange(4)
        commands.append(
            chance.choice(
                (
                    put(key, value),
                    delete(key),
                    compare_and_set(key, chance.choice((None, b"1", b"2")), value),
                    add(key, chance.randrange(-9, 9)),
                    read(key),
                    put(key, b"word"),  # nothing can be added to it, and that is an answer too
                    COUNT,
                )
            )
        )
    return commands


async def play(engine: str, seed: int, *, hurt: bool) -> tuple[list[list[bytes]], bytes]:
    """Run all scripts at once; return what each client was told, and the state root that all members came to."""
    members, options = ENGINES[engine]
    cluster = Cluster.in_memory(members, KeyValue, engine=engine, options=options, limits=Limits(checkpoint_interval=4))
    cluster.tuning = ReplicaTuning(progress_ms=20, sync_grace_ms=20, fetch_retry_ms=20, snapshot_positions=8)
    told: list[list[bytes]] = [[] for _ in range(CLIENTS)]

    async def ask(client: int, node: Node) -> None:
        for command in script(seed, client):
            told[client].append((await node.submit(command, timeout=PATIENCE_S)).result)

    async def stop_and_start() -> None:
        for _ in range(2):
            await anyio.sleep(0.05)
            await cluster.stop("n0")
            await anyio.sleep(0.05)
            await cluster.start("n0")

    async with cluster:
        steady = cluster.nodes[1:] or cluster.nodes
        async with anyio.create_task_group() as tasks:
            for client in range(CLIENTS):
                tasks.start_soon(ask, client, steady[client % len(steady)])
            if hurt and members > 1:
                tasks.start_soon(stop_and_start)
        return told, await common_root(cluster.nodes)


async def common_root(nodes: Sequence[Node]) -> bytes:
    """Wait until all members have executed the same; return the root of their state."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            states = [await node.status() for node in nodes]
            found = {(state["applied"], state["state_root"]) for state in states}
            if len(found) == 1:
                return found.pop()[1]
            await anyio.sleep(0.01)


def results(seed: int, told: list[list[bytes]], *, shared: bool) -> list[list[bytes]]:
    """Keep the answers about the key that is everybody's, or about all others, which depend on nobody else."""
    return [
        [answer for command, answer in zip(script(seed, who), answers, strict=True) if (command == COUNT) is shared]
        for who, answers in enumerate(told)
    ]


def sums_of(seed: int, told: list[list[bytes]]) -> list[bytes]:
    """Return what everybody was told about the key that is everybody's, in no order."""
    return sorted(answer for answers in results(seed, told, shared=True) for answer in answers)


@pytest.mark.parametrize("hurt", [False, True], ids=["calm", "with a member that stops"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_engine_gives_each_client_the_same_results(seed: int, hurt: bool) -> None:
    expected, root = await play("solo", seed, hurt=False)
    sums = sums_of(seed, expected)
    assert len(set(sums)) == len(sums) > CLIENTS, "each of them saw a sum of its own"
    for engine in ("raft", "pbft", "hotstuff"):
        told, reached = await play(engine, seed, hurt=hurt)
        assert results(seed, told, shared=False) == results(seed, expected, shared=False), engine
        assert sums_of(seed, told) == sums, engine
        assert reached == root, engine
