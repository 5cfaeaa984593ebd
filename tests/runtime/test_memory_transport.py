"""The network inside one program: the semantics of links, without sockets."""

import anyio
import pytest

from bftkit.errors import ConfigurationError, MalformedMessage
from bftkit.runtime.channel import BULK, CONTROL
from bftkit.runtime.memory_transport import MemoryNetwork
from bftkit.wire.framing import FrameType, encode_frame
from tests.runtime.recording_peers import Recorder

pytestmark = pytest.mark.anyio


def vote(payload=b"vote"):
    return encode_frame(FrameType.VOTE, payload)


class Node:
    """A transport that runs, and what its handler saw."""

    def __init__(self, network, name):
        self.transport = network.transport(name)
        self.seen = Recorder()

    async def start(self, tasks):
        self.scope = await tasks.start(self._run)

    async def _run(self, *, task_status):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                await tasks.start(lambda *, task_status: self.transport.run(self.seen, task_status=task_status))
                task_status.started(scope)

    def say(self, peer, payload=b"vote", priority=CONTROL):
        return self.transport.send(peer, priority, vote(payload))


@pytest.fixture
async def pair():
    """Return a network with two nodes that run."""
    network = MemoryNetwork(outbox_bytes=1000, outbox_messages=10)
    nodes = Node(network, "a"), Node(network, "b")
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            await node.start(tasks)
        yield network, *nodes
        tasks.cancel_scope.cancel()


async def test_what_is_flushed_arrives_in_order(pair):
    _, a, b = pair
    with anyio.fail_after(5):
        assert a.say("b", b"1")
        assert a.say("b", b"2")
        a.transport.flush()
        assert await b.seen.payloads(2) == [("a", b"1"), ("a", b"2")]
    assert (a.seen.ups, b.seen.ups) == (["b"], ["a"])
    statistics = a.transport.statistics()["b"]
    assert (statistics.messages_sent, statistics.writes, statistics.connected) == (2, 1, True)
    assert b.transport.statistics()["a"].frames_received == 2


async def test_nobody_is_sent_to_who_is_not_there(pair):
    _, a, _ = pair
    assert not a.say("c")
    assert a.transport.statistics()["c"].dropped_unconnected == 1


async def test_a_cut_loses_what_is_on_its_way_and_a_reconnect_starts_anew(pair):
    network, a, b = pair
    a.say("b", b"lost")
    network.disconnect("a", "b")
    assert [peer for peer, _ in a.seen.downs] == ["b"]
    assert b.seen.downs == [("a", "the network is cut")]
    assert not a.say("b", b"dropped")
    network.reconnect("b", "a")
    assert a.seen.ups == ["b", "b"]
    with anyio.fail_after(5):
        a.say("b", b"new")
        a.transport.flush()
        assert await b.seen.payloads(1) == [("a", b"new")]
    assert a.transport.statistics()["b"].dropped_unsent == 1


async def test_a_node_that_stops_goes_down_and_may_come_again(pair):
    network, a, b = pair
    b.scope.cancel()
    with anyio.fail_after(5):
        await a.seen.until(lambda: a.seen.downs == [("b", "the other side stopped")])
        async with anyio.create_task_group() as tasks:
            again = Node(network, "b")
            await again.start(tasks)
            assert a.seen.ups == ["b", "b"]
            again.say("a", b"back")
            again.transport.flush()
            assert await a.seen.payloads(1) == [("b", b"back")]
            tasks.cancel_scope.cancel()


async def test_a_handler_that_does_not_take_frames_fills_the_outbox_of_the_sender_alone(pair):
    _, a, b = pair
    with anyio.fail_after(5):
        b.seen.pause()
        a.say("b", b"first")
        a.transport.flush()
        await b.seen.until(lambda: b.seen.waiting)
        assert [a.say("b", bytes(100)) for _ in range(12)].count(True) == 9
        b.say("a", b"free")
        b.transport.flush()
        await a.seen.payloads(1)
        b.seen.resume()
        a.transport.flush()
        assert len(await b.seen.payloads(10)) == 10
    assert a.transport.statistics()["b"].dropped_full == 3


async def test_bytes_that_are_no_frames_end_one_link(pair):
    _, a, b = pair
    with anyio.fail_after(5):
        a.transport.send("b", BULK, [b"GET / HTTP/1.1\r\n\r\n"])
        a.transport.flush()
        await b.seen.until(lambda: b.seen.downs)
    assert "not a bftkit frame" in b.seen.downs[0][1]
    assert a.seen.downs == [("b", b.seen.downs[0][1])]


async def test_a_handler_may_refuse_what_a_peer_says(pair):
    _, a, b = pair
    b.seen.refusal = MalformedMessage("no such epoch")
    with anyio.fail_after(5):
        a.say("b")
        a.transport.flush()
        await b.seen.until(lambda: b.seen.downs)
    assert "no such epoch" in b.seen.downs[0][1]


async def test_isolation_and_healing(pair):
    network, a, b = pair
    network.isolate("a")
    assert [peer for peer, _ in b.seen.downs] == ["a"]
    network.heal()
    assert b.seen.ups == ["a", "a"]
    assert a.seen.ups == ["b", "b"]


async def test_a_name_is_taken_once(pair):
    network, _, _ = pair
    with pytest.raises(ConfigurationError, match="already"):
        await Node(network, "a").transport.run(Recorder())
