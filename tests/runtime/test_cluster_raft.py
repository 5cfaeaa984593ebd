"""Whole clusters of Raft in one program: any size, a leader that stops, a member that comes back."""

from __future__ import annotations

import anyio
import pytest

from bftkit.batteries.counter import Counter
from bftkit.runtime.cluster import Cluster
from bftkit.runtime.node import Node

pytestmark = pytest.mark.anyio

FAST = {"election_timeout_ms": 200, "heartbeat_ms": 20}


async def agree(nodes: list[Node], value: bytes) -> None:
    with anyio.fail_after(10):
        while {await node.query(b"") for node in nodes} != {value}:
            await anyio.sleep(0.005)


@pytest.mark.parametrize("members", [1, 2, 3, 5])
async def test_every_member_takes_commands(members):
    async with Cluster.in_memory(members, Counter, engine="raft", options=FAST) as cluster:
        for number, node in enumerate(cluster.nodes):
            receipt = await node.submit(b"%d" % (number + 1), timeout=20)
            assert receipt.certificate is None, "between checkpoints a crash-tolerant engine proves nothing"
        await agree(list(cluster.nodes), b"%d" % sum(range(1, members + 1)))


async def test_the_others_go_on_without_the_leader_and_it_comes_back():
    async with Cluster.in_memory(3, Counter, engine="raft", options=FAST) as cluster:
        await cluster.nodes[0].submit(b"1", timeout=20)
        status = await cluster.nodes[0].status()
        leader = status["leader"]
        await cluster.stop(leader)
        first, second = cluster.nodes
        await first.submit(b"2", timeout=20)
        assert (await first.status())["view"] > status["view"]
        await cluster.start(leader)
        await second.submit(b"4", timeout=20)
        await agree(list(cluster.nodes), b"7")
