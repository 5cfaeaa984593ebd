"""The way to the node in the same process."""

import anyio
import pytest

from bftkit.runtime.local_connector import LocalConnector
from bftkit.wire.framing import FrameType, encode_frame

pytestmark = pytest.mark.anyio


class Edge:
    def __init__(self):
        self.channels = []

    def connect(self, channel):
        self.channels.append(channel)

    def disconnect(self, channel):
        self.channels.remove(channel)


class Sink:
    def __init__(self):
        self.told = []

    def on_up(self, replica):
        self.told.append(("up", replica))

    def on_down(self, replica, reason):
        self.told.append(("down", replica))

    def on_replies(self, replica, payloads):
        self.told.append(("replies", replica, [bytes(payload) for payload in payloads]))

    def on_answer(self, replica, answer):
        self.told.append(("answer", replica))


async def test_requests_go_to_the_node_in_order_and_answers_come_back_without_their_frames():
    edge, sink = Edge(), Sink()
    taken = []
    enough = anyio.Event()

    async def submit(channel, requests):
        taken.append((channel.public_key, requests))
        channel.send([b"".join(encode_frame(FrameType.REPLY, b"answer %d" % len(taken)))])
        if len(taken) == 2:
            enough.set()

    connector = LocalConnector(b"key", edge, submit)
    async with anyio.create_task_group() as tasks:
        await tasks.start(connector.run, sink)
        assert [channel.public_key for channel in edge.channels] == [b"key"]
        connector.send(0, [b"a", b"b"])
        connector.send(0, [b"c"])
        await enough.wait()
        tasks.cancel_scope.cancel()
    assert taken == [(b"key", [b"a", b"b"]), (b"key", [b"c"])]
    assert sink.told == [("up", 0), ("replies", 0, [b"answer 1"]), ("replies", 0, [b"answer 2"])]
    assert edge.channels == []
    connector.send(0, [b"too late"])
    assert not connector.ask(0, b"")
