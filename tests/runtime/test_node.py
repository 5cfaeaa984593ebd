"""One node: what it says of itself, what it refuses, how it ends."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from bftkit.batteries.counter import Counter
from bftkit.core.epoch import Limits
from bftkit.core.ids import canonical
from bftkit.errors import ConfigurationError, NotReady, StorageError, StorageLocked
from bftkit.replica.client_messages import (
    Busy,
    OpenSession,
    Reply,
    SessionOpened,
    client_domain,
    open_session_statement,
)
from bftkit.runtime.admin_messages import AdminAsk
from bftkit.runtime.cluster import Cluster
from bftkit.runtime.memory_transport import MemoryNetwork
from bftkit.runtime.node import EVENT_BUFFER, Node, NodeEvent, identity_of
from bftkit.runtime.node_parts import NodeParts
from bftkit.storage.memory import MemoryStorage
from bftkit.wire.auth import SigningKey
from tests.replica.parts import CLIENT, KEYS, genesis_of, open_session, settings_of
from tests.runtime.parts import Channel

pytestmark = pytest.mark.anyio

STATUS_KEYS = {
    "id", "cluster", "engine", "epoch", "view", "mode", "leader", "position", "height", "applied", "stable",
    "state_root", "sessions_root", "waiting_for", "waiting_on", "peers", "clients", "counters", "last_rejection",
}  # fmt: skip


class Quiet:
    """A transport that reaches nobody, and fails when it is told to."""

    def __init__(self) -> None:
        self.broken = anyio.Event()
        self.refuses: Exception | None = None

    def send(self, peer, priority, buffers) -> bool:
        return False

    def flush(self) -> None:
        pass

    def statistics(self) -> dict:
        return {}

    async def run(self, handler, *, task_status) -> None:
        if self.refuses is not None:
            raise self.refuses
        task_status.started()
        await self.broken.wait()
        raise OSError("the network is gone")


def lone(**fields) -> tuple[Node, Quiet]:
    """A node with the scripted engine, without peers."""
    transport = Quiet()
    values = {"settings": settings_of(), "key": KEYS[0], "storage": MemoryStorage(), "transport": transport, **fields}
    return Node(Counter(), NodeParts(**values)), transport


async def test_before_start_and_after_stop_every_call_says_that_it_is_not_ready():
    node, _ = lone()

    async def calls() -> None:
        channel = Channel(CLIENT.public_key)
        for call in (
            lambda: node.submit(b"1"),
            lambda: node.submit_many([b"1"]),
            lambda: node.query(b""),
            lambda: node.status(),
            lambda: node.submit_encoded(channel, []),
        ):
            with pytest.raises(NotReady):
                await call()
        answer = await node.answer_admin(AdminAsk(1, "status"))
        assert not answer.ok

    await calls()
    async with node:
        assert (await node.status())["id"] == "n0"
    await calls()
    with pytest.raises(NotReady):
        await node.__aenter__()


async def test_the_status_says_everything_under_fixed_keys():
    node, _ = lone(facts={"peer_address": "here"})
    async with node:
        status = await node.status()
    assert set(status) >= STATUS_KEYS | {"peer_address"}
    assert msgspec.json.decode(msgspec.json.encode(status)) == status
    assert (status["engine"], status["leader"], status["peers"]) == ("scripted", "n0", [])


async def test_questions_are_answered_and_unknown_ones_refused():
    node, _ = lone()
    async with node:
        status = await node.answer_admin(AdminAsk(1, "status"))
        assert status.ok
        assert msgspec.json.decode(status.body)["id"] == "n0"
        explained = await node.answer_admin(AdminAsk(2, "explain"))
        assert "view 0" in msgspec.json.decode(explained.body)[0]
        query = await node.answer_admin(AdminAsk(3, "query", b""))
        assert (query.id, query.ok, query.body) == (3, True, b"0")
        unknown = await node.answer_admin(AdminAsk(4, "x" * 100))
        assert not unknown.ok
        assert b"unknown question" in unknown.body


async def test_a_query_that_fails_is_an_answer_and_not_the_end_of_the_node():
    node, _ = lone()
    async with node:
        node._application.query = lambda request: 1 // 0
        answer = await node.answer_admin(AdminAsk(1, "query", b""))
        assert not answer.ok
        assert b"ZeroDivisionError" in answer.body
        assert node.failure is None


async def test_a_stop_that_is_asked_for_ends_the_wait():
    node, _ = lone()
    async with node:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.run_until_stopped)
            await anyio.lowlevel.checkpoint()
            node.stop()
        channel = Channel(CLIENT.public_key)
        node.edge.connect(channel)
        await node.submit_encoded(channel, [canonical(open_session())])
        assert isinstance(channel.replies[0], Busy)


async def test_a_transport_that_fails_stops_the_node_and_its_context_raises_it():
    node, transport = lone()
    with pytest.raises(OSError, match="network is gone"):
        async with node:
            transport.broken.set()
            with pytest.raises(OSError, match="network is gone"), anyio.fail_after(5):
                await node.run_until_stopped()
    assert isinstance(node.failure, OSError)


async def test_a_node_that_cannot_start_raises_the_reason_and_releases_its_disk():
    storage = MemoryStorage()
    node, transport = lone(storage=storage)
    transport.refuses = OSError("the port is taken")
    with pytest.raises(OSError, match="port is taken"):
        await node.__aenter__()
    again, _ = lone(storage=storage)
    async with again:
        assert again.failure is None


async def test_two_nodes_cannot_share_a_disk():
    storage = MemoryStorage()
    node, _ = lone(storage=storage)
    async with node:
        other, _ = lone(storage=storage)
        with pytest.raises(StorageLocked):
            await other.__aenter__()


async def test_a_disk_belongs_to_one_member_of_one_cluster():
    storage = MemoryStorage()
    node, _ = lone(storage=storage)
    async with node:
        pass
    other, _ = lone(storage=storage, settings=settings_of(1), key=KEYS[1])
    with pytest.raises(StorageError):
        await other.__aenter__()
    genesis = genesis_of()
    assert identity_of(genesis, "n0") != identity_of(genesis, "n1")


async def test_strangers_are_not_heard():
    node, _ = lone()
    async with node:
        node.on_peer_up("stranger")
        await node.on_frames("stranger", [])
        node.on_peer_down("stranger", "")
        node.on_peer_up("n2")
        assert (await node.status())["peers"] == ["n2"]
        node.on_peer_down("n2", "gone")
        assert (await node.status())["peers"] == []


async def test_events_tell_what_happens_and_a_slow_listener_loses_only_its_own():
    node, _ = lone()
    slow, quick = node.events(), node.events()
    kinds: list[str] = []
    async with node:
        for _ in range(EVENT_BUFFER):
            node.on_peer_up("n1")
            kinds.append((await quick.receive()).kind)
    with quick, slow:
        kinds += [event.kind async for event in quick]
        late = [event async for event in slow]
    assert len(late) == EVENT_BUFFER
    assert {"view", "started", "peer up"} <= set(kinds)
    assert kinds[-1] == "stopped"
    assert all(isinstance(event, NodeEvent) for event in late)
    node._tell("too late", "")


async def test_answers_reach_the_client_in_one_session_of_its_own():
    limits = Limits(checkpoint_interval=4)
    async with Cluster.in_memory(4, Counter, limits=limits) as cluster:
        node = cluster.nodes[1]
        key = SigningKey.generate()
        channel = Channel(key.public_key)
        node.edge.connect(channel)
        domain = client_domain("in-memory", 0)
        statement = open_session_statement(domain, key.public_key, bytes(16))
        request = canonical(OpenSession(key.public_key, bytes(16), key.sign(statement)))
        for expected in (1, 2):
            await node.submit_encoded(channel, [request])
            with anyio.fail_after(10):
                while len(channel.replies) < expected:
                    await anyio.sleep(0.002)
        assert channel.replies[0] == channel.replies[1]
        assert isinstance(channel.replies[0], SessionOpened)
        receipts = await node.submit_many([b"1"] * 10)
        assert receipts[-1].result == b"10"
        assert receipts[-1].certificate is not None
        assert not any(isinstance(reply, Reply) for reply in channel.replies)


async def test_a_network_in_memory_has_one_node_of_a_name():
    network = MemoryNetwork()
    node, _ = lone(transport=network.transport("n0"))
    async with node:
        other, _ = lone(transport=network.transport("n0"))
        with pytest.raises(ConfigurationError):
            await other.__aenter__()
