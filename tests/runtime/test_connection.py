"""Connections between the handshake and the end: what ends them, with which reason, and what must not."""

import time
from contextlib import asynccontextmanager

import anyio
import pytest

from bftkit.errors import WireError
from bftkit.runtime.connection import NetworkTuning
from bftkit.runtime.dialer import dial
from bftkit.runtime.endpoint import Endpoint
from bftkit.runtime.listener import Listener, Refusals, host_and_port
from bftkit.wire.framing import FrameType, encode_frame
from tests.runtime.parts import Hands
from tests.runtime.tcp_members import QUICK, Cluster, running, vote

pytestmark = [pytest.mark.anyio, pytest.mark.network]


@pytest.fixture(params=["tls", "plain"])
def cluster(request, tmp_path):
    return Cluster(tmp_path, ("n0", "n1"), secure=request.param == "tls")


@asynccontextmanager
async def linked(cluster, tuning=QUICK, *, other_tuning=None, other_clock=None):
    """Yield the two ends of one connection; both run."""
    ends = {
        name: Endpoint(
            cluster.identity(name), cluster.members, credentials=cluster.files("node", name), tuning=own, clock=clock
        )
        for name, own, clock in (("n0", tuning, None), ("n1", other_tuning or tuning, other_clock))
    }
    accepted = []
    arrived = anyio.Event()

    async def serve(connection):
        accepted.append(connection)
        arrived.set()
        await connection.run()

    listener = Listener("127.0.0.1:0", ends["n1"], Refusals())
    await listener.open()
    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.run, serve)
            dialled = await dial(ends["n0"], listener.address, "n1")
            tasks.start_soon(dialled.run)
            await arrived.wait()
            yield dialled, accepted[0]
            tasks.cancel_scope.cancel()


async def ended(connection):
    """Read until the connection ends; return its reason."""
    with pytest.raises(WireError) as caught:
        while True:
            await connection.receive()
    assert str(caught.value) == connection.reason
    return connection.reason


async def test_both_ends_know_each_other_and_talk(cluster):
    async with linked(cluster) as (first, second):
        assert (first.peer.name, second.peer.name) == ("n1", "n0")
        assert first.peer.public_key == cluster.members["n1"]
        first.send(vote(b"to n1"))
        second.send(vote(b"to n0"))
        assert [frame.payload for frame in await first.receive()] == [b"to n0"]
        assert [frame.payload for frame in await second.receive()] == [b"to n1"]


async def test_a_close_ends_both_ends_and_the_first_reason_counts(cluster):
    async with linked(cluster) as (first, second):
        first.close("done")
        first.close("done twice")
        assert not first.send(vote())
        assert await ended(first) == "done"
        assert "the other side closed" in await ended(second)


async def test_the_other_side_is_told_why(cluster):
    async with linked(cluster) as (first, second):
        first.close("the epoch is over", tell=True)
        assert await ended(second) == "the other side refused: the epoch is over"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"bk\x01\x11\xff\xff\xff\xff", "a VOTE frame of 4294967295 bytes"),
        (b"no frame at all", "not a bftkit frame"),
        (b"bk\x01\x20\x00\x00\x00\x00", "a REQUEST frame is not accepted here"),
        (b"bk\x07\x11\x00\x00\x00\x00", "frame version 7"),
    ],
)
async def test_bytes_that_cannot_be_used_end_the_connection(cluster, sent, reason):
    async with linked(cluster) as (first, second):
        first.send([sent])
        assert reason in await ended(second)
        assert reason in await ended(first)


async def test_a_frame_that_does_not_end(cluster):
    header = encode_frame(FrameType.VOTE, bytes(1000))[0]

    async def trickle(connection):
        connection.send([header])
        while connection.send([b"."]):
            await anyio.sleep(0.005)

    impatient = NetworkTuning(frame_timeout_ms=100)
    async with linked(cluster, other_tuning=impatient) as (first, second), anyio.create_task_group() as tasks:
        tasks.start_soon(trickle, first)
        assert await ended(second) == "a frame was not complete within 100 ms"
        assert "not complete within 100 ms" in await ended(first)


async def test_how_long_a_frame_may_take_is_read_from_the_clock(cluster):
    header = encode_frame(FrameType.VOTE, bytes(1000))[0]
    clock = Hands()

    async def trickle(connection):
        connection.send([header])
        while connection.send([b"."]):
            await anyio.sleep(0.005)

    impatient = NetworkTuning(frame_timeout_ms=100)
    async with linked(cluster, other_tuning=impatient, other_clock=clock) as (first, second):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle, first)
            tasks.start_soon(ended, second)
            while second.outbox.statistics.bytes_received < 60:
                await anyio.sleep(0.005)
            assert second.reason is None, "three times as long as it may take, but the clock stands still"
            while second.reason is None:
                clock.now += 20
                await anyio.sleep(0.005)
        assert second.reason == "a frame was not complete within 100 ms"


async def test_an_idle_connection_is_held_by_pings(cluster):
    async with linked(cluster, NetworkTuning(ping_interval_ms=20)) as ends, anyio.create_task_group() as tasks:
        for end in ends:
            tasks.start_soon(ended, end)
        while min(end.outbox.statistics.writes for end in ends) < 10:
            await anyio.sleep(0.01)
        assert [end.reason for end in ends] == [None, None]
        for end in ends:
            end.close("enough")


async def test_a_peer_that_does_not_read_is_given_up(cluster):
    async with linked(cluster, NetworkTuning(write_timeout_ms=200)) as (first, _):
        for _ in range(24):
            first.send(encode_frame(FrameType.BULK, bytes(1024 * 1024)))
        assert await ended(first) == "the other side did not read for 200 ms"


async def test_not_reading_for_a_while_is_not_silence(cluster):
    async with linked(cluster, NetworkTuning(ping_interval_ms=20)) as (slow, other):
        other.send(vote(b"one"))
        await slow.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ended, other)
            # Many times the silence after which a reader would call the other side dead.
            while slow.outbox.statistics.writes < 10:
                await anyio.sleep(0.01)
            other.send(vote(b"two"))
            assert [frame.payload for frame in await slow.receive()] == [b"two"]
            assert (slow.reason, other.reason) == (None, None)
            other.close("enough")


async def test_a_process_that_stood_still_does_not_blame_the_other_side(cluster):
    async with linked(cluster, NetworkTuning(ping_interval_ms=50)) as ends, anyio.create_task_group() as tasks:
        for end in ends:
            tasks.start_soon(ended, end)
        await anyio.wait_all_tasks_blocked()
        # The whole process stands still.
        time.sleep(0.4)
        before = [end.outbox.statistics.writes for end in ends]
        while any(end.outbox.statistics.writes <= was for end, was in zip(ends, before, strict=True)):
            await anyio.sleep(0.01)
        assert [end.reason for end in ends] == [None, None]
        for end in ends:
            end.close("enough")


async def test_a_flood_of_pings_is_answered_once_a_read(cluster):
    async with linked(cluster) as (first, second):
        first.send([b"".join(encode_frame(FrameType.PING)) * 1000, *vote(b"after")])
        assert [frame.payload for frame in await second.receive()] == [b"after"]
        assert second.outbox.waiting_messages + second.outbox.statistics.messages_sent < 10


class SwallowingProxy:
    """Pass bytes between a dialler and a member, until it is told to swallow them instead; it never hangs up."""

    def __init__(self, target):
        self.target = target
        self.swallows = False

    async def start(self, tasks):
        multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
        tasks.start_soon(self._serve, multi)
        return f"127.0.0.1:{multi.extra(anyio.abc.SocketAttribute.local_port)}"

    async def _serve(self, multi):
        async with multi:
            await multi.serve(self._handle)

    async def _handle(self, near):
        async with near:
            try:
                far = await anyio.connect_tcp(*host_and_port(self.target))
            except OSError:
                return
            async with far, anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_on, near, far)
                tasks.start_soon(self._pass_on, far, near)

    async def _pass_on(self, source, target):
        try:
            while True:
                data = await source.receive()
                if not self.swallows:
                    await target.send(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            if not self.swallows:
                await target.aclose()


async def test_a_peer_that_vanishes_without_a_word_is_missed_and_found_again(cluster):
    tuning = NetworkTuning(ping_interval_ms=40, reconnect_min_ms=5, reconnect_max_ms=20, handshake_timeout_ms=300)
    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            proxy = SwallowingProxy(cluster.peers["n1"])
            second = cluster.transport("n1", tuning=tuning)
            cluster.peers["n1"] = await proxy.start(tasks)
            async with running(cluster.transport("n0", tuning=tuning), second) as members:
                for member in members:
                    await member.seen.until(lambda member=member: member.seen.ups)
                proxy.swallows = True
                for member in members:
                    await member.seen.until(lambda member=member: member.seen.downs)
                    assert "nothing heard for" in member.seen.downs[0][1]
                assert not members[0].say("n1")
                proxy.swallows = False
                for member in members:
                    await member.seen.until(lambda member=member: len(member.seen.ups) > len(member.seen.downs))
            tasks.cancel_scope.cancel()
