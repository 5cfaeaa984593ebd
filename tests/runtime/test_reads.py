"""Reads at one node: recent enough, in turn with the state machine, and an outcome for everybody."""

from __future__ import annotations

import threading

import anyio
import msgspec
import pytest

from bftkit.batteries.counter import Counter
from bftkit.core.inputs import Read
from bftkit.core.outputs import ReadReady
from bftkit.errors import ApplicationError, NotReady, Rejected
from bftkit.replica import read_queue
from bftkit.replica.read_queue import ASK_AGAIN_MS
from bftkit.replica.sessions import MAX_RESULTS_BYTES
from bftkit.runtime import reads
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.cluster import Cluster
from bftkit.runtime.reads import ReadOutcome, ReadStage
from bftkit.wire.codec import Codec
from bftkit.wire.framing import HEADER_BYTES, Frame, FrameType
from tests.replica.parts import CLIENT
from tests.runtime.parts import Channel, Hands

pytestmark = pytest.mark.anyio


class Machine:
    """An application stage whose state machine is a number."""

    def __init__(self) -> None:
        self.executor = self
        self.height = 0
        self.calls: list[int] = []

    def query(self, request: bytes) -> bytes:
        if request == b"raise":
            raise ApplicationError("query() raised")
        return bytes(int(request)) if request else b"%d" % self.height

    async def call(self, function, *arguments):
        await anyio.lowlevel.checkpoint()
        self.calls.append(len(*arguments))
        return function(*arguments)


class Rig:
    def __init__(self) -> None:
        self.machine = Machine()
        self.clock = Hands()
        self.questions: list[Read] = []
        self.executed = 0
        self.stage = ReadStage(self.machine, self.clock, self.questions.append, lambda: self.executed)
        self.outcomes: list[ReadOutcome] = []

    def read(self, request: bytes = b"") -> None:
        self.stage.read(request, self.outcomes.append)

    def ready(self, position: int, question: int = -1) -> None:
        self.stage.on_ready(ReadReady(self.questions[question].token, position))

    def execute(self, position: int) -> None:
        self.executed = self.machine.height = position
        self.stage.on_executed()

    async def until(self, outcomes: int) -> None:
        with anyio.fail_after(10):
            while len(self.outcomes) < outcomes:
                await anyio.sleep(0.001)


class Running(Rig):
    """A rig whose stage runs."""

    async def __aenter__(self):
        self.tasks = anyio.create_task_group()
        await self.tasks.__aenter__()
        self.tasks.start_soon(self.stage.run)
        return self

    async def __aexit__(self, *_):
        self.tasks.cancel_scope.cancel()
        await self.tasks.__aexit__(None, None, None)


async def test_a_reader_waits_for_the_position_and_for_its_execution():
    async with Running() as rig:
        rig.read()
        rig.execute(4)
        await anyio.wait_all_tasks_blocked()
        assert rig.outcomes == []
        rig.ready(5)
        await anyio.wait_all_tasks_blocked()
        assert rig.outcomes == []
        rig.execute(6)
        await rig.until(1)
        assert rig.outcomes == [ReadOutcome(True, b"6", 6)]
        assert rig.stage.count == 1


async def test_what_is_executed_already_is_answered_at_once_and_many_share_a_visit(monkeypatch):
    monkeypatch.setattr(reads, "AT_ONCE", 8)
    async with Running() as rig:
        rig.execute(9)
        for _ in range(21):
            rig.read()
        rig.ready(3)
        rig.ready(9)
        await rig.until(21)
        assert len(rig.questions) == 2, "those who came meanwhile share a question"
        assert sorted(rig.machine.calls) == [5, 8, 8]


async def test_a_failing_query_and_a_long_answer_are_refusals_for_good():
    async with Running() as rig:
        rig.read(b"raise")
        rig.ready(0)
        rig.read(b"%d" % (MAX_RESULTS_BYTES + 1))
        rig.ready(0)
        rig.read(b"%d" % MAX_RESULTS_BYTES)
        rig.ready(0)
        await rig.until(3)
        assert [(outcome.ok, outcome.retry) for outcome in rig.outcomes] == [
            (False, False),
            (False, False),
            (True, False),
        ]


async def test_a_silent_engine_is_asked_again_and_a_reader_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(reads, "TICK_S", 0.001)
    async with Running() as rig:
        rig.read()
        rig.clock.now += ASK_AGAIN_MS
        with anyio.fail_after(10):
            while len(rig.questions) < 2:
                await anyio.sleep(0.001)
        assert rig.questions[0].token != rig.questions[1].token
        rig.clock.now += read_queue.PATIENCE_MS
        await rig.until(1)
        assert not rig.outcomes[0].ok
        assert rig.outcomes[0].retry


async def test_too_many_readers_are_refused_and_may_try_elsewhere(monkeypatch):
    monkeypatch.setattr(read_queue, "MOST_READERS", 2)
    rig = Rig()
    for _ in range(3):
        rig.read()
    assert rig.outcomes == [ReadOutcome(False, b"overloaded", 0, retry=True)]


async def test_whoever_waits_when_the_node_stops_is_told_so_and_so_is_whoever_comes_later():
    async with Running() as rig:
        rig.read()
        rig.read()
        rig.ready(100)
        rig.stage.close("the node is stopping")
        rig.read()
        rig.execute(100)
        await anyio.wait_all_tasks_blocked()
    assert rig.outcomes == [ReadOutcome(False, b"the node is stopping", 0, retry=True)] * 3


async def test_those_who_are_being_served_when_the_node_stops_get_one_outcome():
    async with Running() as rig:
        rig.read()
        rig.ready(0)
        call = rig.machine.call

        async def stop_meanwhile(function, *arguments):
            rig.stage.close("the node has failed")
            return await call(function, *arguments)

        rig.machine.call = stop_meanwhile
        await rig.until(1)
        await anyio.wait_all_tasks_blocked()
    assert rig.outcomes == [ReadOutcome(False, b"the node has failed", 0, retry=True)]


async def test_tokens_of_two_lives_differ():
    one, other = Rig(), Rig()
    one.read()
    other.read()
    assert one.questions[0].token != other.questions[0].token


# --- On a node -------------------------------------------------------------------------------------------------------


async def test_a_node_whose_engine_answers_reads_orders_none():
    async with Cluster.in_memory(1, Counter, engine="solo") as cluster:
        (node,) = cluster.nodes
        await node.submit_many([b"2", b"3"])
        height = node.replica.commits.height
        assert await node.query(b"") == b"5"
        assert await node.query(b"", stale_ok=True) == b"5"
        assert node.replica.commits.height == height
        assert (await node.status())["counters"]["reads"] == 1
        answer = await node.answer_admin(AdminAsk(7, "read"))
        assert answer == AdminAnswer(7, True, b"5", height)


async def test_a_node_whose_engine_does_not_orders_them():
    async with Cluster.in_memory(4, Counter) as cluster:
        await cluster.nodes[0].submit(b"5")
        for node in cluster.nodes:
            height = node.replica.commits.height
            assert await node.query(b"") == b"5"
            assert node.replica.commits.height > height
        answer = await cluster.nodes[0].answer_admin(AdminAsk(1, "read"))
        assert (answer.ok, answer.retry) == (False, False)


class Held(Counter):
    """A counter that executes nothing until it may, and fails at some queries."""

    may = threading.Event()

    def apply(self, batch):
        if not self.may.wait(10):
            raise TimeoutError
        return super().apply(batch)

    def query(self, request):
        if request:
            raise ValueError("a query is empty")
        return super().query(request)


async def test_what_a_client_sends_behind_a_read_does_not_wait_for_it_and_the_read_sees_what_was_decided():
    Held.may.clear()
    async with Cluster.in_memory(1, Held, engine="solo") as cluster, anyio.create_task_group() as tasks:
        (node,) = cluster.nodes
        tasks.start_soon(node.submit, b"5")
        with anyio.fail_after(10):
            while node.replica.commits.height < 2:
                await anyio.sleep(0.001)
        channel = Channel(CLIENT.public_key)
        codec = Codec(AdminAsk)
        asks = [
            AdminAsk(1, "read"),
            AdminAsk(2, "explain"),
            AdminAsk(3, "read", b"x" * (1 << 17)),
            AdminAsk(4, "read", b"?"),
        ]
        frames = [Frame(FrameType.ADMIN, codec.encode(ask)) for ask in asks]
        await node.edge.take_frames(channel, frames, node._questions.take)
        answers = [Codec(AdminAnswer).decode(write[0][HEADER_BYTES:]) for write in channel.writes]
        assert [(answer.id, answer.ok) for answer in answers] == [(2, True), (3, False)]
        Held.may.set()
        with anyio.fail_after(10):
            while len(channel.writes) < 4:
                await anyio.sleep(0.001)
    answers = [Codec(AdminAnswer).decode(write[0][HEADER_BYTES:]) for write in channel.writes[2:]]
    found = {answer.id: answer for answer in answers}
    assert found[1].body == b"5"
    assert not found[4].ok
    assert b"a query is empty" in found[4].body


async def test_a_caller_in_the_process_gets_an_exception_for_what_has_no_answer():
    Held.may.set()
    async with Cluster.in_memory(1, Held, engine="solo") as cluster:
        (node,) = cluster.nodes
        with pytest.raises(Rejected, match="a query is empty"):
            await node.query(b"?")
        node.reads._tell = lambda question: None
        with pytest.raises(NotReady, match="in time"):
            await node.query(b"", timeout=0.01)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(NotReady, match="stopping"):
                    await node.query(b"", timeout=60)

            tasks.start_soon(ask)
            while not len(node.reads._queue):
                await anyio.lowlevel.checkpoint()
            node.stop()


async def test_an_answer_that_fits_no_frame_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(reads, "MAX_RESULTS_BYTES", 0)
    async with Cluster.in_memory(1, Counter, engine="solo") as cluster:
        answer = await cluster.nodes[0].answer_admin(AdminAsk(1, "query"))
        assert not answer.ok
        assert b"larger" in answer.body
        assert msgspec.structs.replace(answer, body=b"") == AdminAnswer(1, False, b"", 0)
