"""The verdict, on stores that were tampered with."""

import anyio
import pytest

from bftkit.batteries.kv import KeyValue
from bftkit.bench.verdict import Verdict, judge
from bftkit.bench.workload import make_lanes
from bftkit.core.batch import CommittedBatch

pytestmark = pytest.mark.anyio

PAYLOAD = 64


class Replicas:
    """Answers a verdict's questions from stores, as a client would."""

    def __init__(self, members=4):
        self.stores = [KeyValue() for _ in range(members)]
        self.names = tuple(f"n{index}" for index in range(members))
        self.down: set[str] = set()
        self.lanes = make_lanes(3, PAYLOAD, 5)

    def execute(self, number, times=1, stores=None, commands=None):
        lane = self.lanes[number]
        for store in stores or self.stores:
            for _ in range(times):
                store.apply(CommittedBatch(0, 1, commands or lane.commands()))
        lane.executed += 1

    async def status(self, *, timeout):
        await anyio.sleep(0)
        return [
            {"id": name, "error": "gone"}
            if name in self.down
            else {"id": name, "applied": 1, "state_root": store.state_root().hex()}
            for name, store in zip(self.names, self.stores, strict=True)
        ]

    async def query(self, request):
        return self.stores[0].query(request)

    async def judge(self, unknown=()):
        return await judge(self, self.lanes, set(unknown), PAYLOAD, 0.05)


async def test_all_is_well():
    replicas = Replicas()
    for number in (0, 1, 0):
        replicas.execute(number)
    verdict = await replicas.judge()
    assert verdict == Verdict(0, 0, True, 0, 4)
    assert verdict.is_good


async def test_what_was_acknowledged_and_is_not_there_is_lost():
    replicas = Replicas()
    replicas.execute(0)
    replicas.execute(1, times=0)
    assert await replicas.judge() == Verdict(5, 0, True, 0, 4)


async def test_what_is_there_twice_is_duplicated():
    replicas = Replicas()
    replicas.execute(0, times=3)
    verdict = await replicas.judge()
    assert verdict == Verdict(0, 10, True, 0, 4)
    assert not verdict.is_good


async def test_a_single_lost_put_is_found():
    replicas = Replicas()
    replicas.execute(0)
    replicas.execute(0, commands=replicas.lanes[0].commands()[:-1])
    assert await replicas.judge() == Verdict(1, 0, True, 0, 4)


async def test_an_unknown_outcome_is_neither():
    replicas = Replicas()
    replicas.execute(0)
    replicas.execute(1)
    replicas.lanes[1].executed -= 1
    assert await replicas.judge(unknown={1}) == Verdict(0, 0, True, 5, 4)


async def test_a_replica_that_differs_or_is_gone_makes_states_unequal():
    replicas = Replicas()
    replicas.execute(0)
    replicas.execute(1, stores=replicas.stores[:3])
    assert await replicas.judge() == Verdict(0, 0, False, 0, 3)
    replicas = Replicas()
    replicas.execute(0)
    replicas.down = {"n2"}
    assert await replicas.judge() == Verdict(0, 0, False, 0, 3)
