"""TLS over a stream: whole bursts in one read, cuts, and reasons that reach the other side."""

import ssl

import anyio
import pytest

from bftkit.runtime.credentials import client_context, create_authority, server_context, tls_refusal
from bftkit.runtime.tls_stream import TlsStream
from tests.runtime.tcp_members import Cluster

pytestmark = pytest.mark.anyio


class Pipe:
    """One end of a byte stream in memory."""

    def __init__(self, inward, outward):
        self._inward, self._outward = inward, outward

    async def receive(self, max_bytes=0):
        return await self._inward.receive()

    async def send(self, item):
        await self._outward.send(item)

    async def aclose(self):
        self._inward.close()
        self._outward.close()


def pipes():
    there = anyio.create_memory_object_stream[bytes](100)
    back = anyio.create_memory_object_stream[bytes](100)
    return Pipe(back[1], there[0]), Pipe(there[1], back[0])


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path, ("n0", "n1"))


async def ends(cluster, client_files=None):
    """Return both ends, their handshake done."""
    near, far = pipes()
    client = TlsStream(near, client_context(client_files or cluster.files("node", "n0")), server_side=False)
    server = TlsStream(far, server_context(cluster.files("node", "n1")), server_side=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.handshake)
        tasks.start_soon(server.handshake)
    return client, server


async def close(*streams):
    for stream in streams:
        await stream.aclose()


async def test_a_burst_of_many_records_comes_in_one_read(cluster):
    with anyio.fail_after(5):
        client, server = await ends(cluster)
        await client.send(bytes(200_000))
        assert len(await server.receive()) == 200_000
        await client.send(bytes(50_000))
        first = await server.receive(20_000)
        assert 20_000 <= len(first) <= 20_000 + 16 * 1024
        assert len(first) + len(await server.receive()) == 50_000
        await close(client, server)


async def test_what_came_before_the_end_is_read_before_the_end(cluster):
    with anyio.fail_after(5):
        client, server = await ends(cluster)
        await client.send(b"last words")
        await client.aclose()
        assert await server.receive() == b"last words"
        with pytest.raises(anyio.EndOfStream):
            await server.receive()
        await close(server)


async def test_bytes_that_are_changed_on_the_way_are_an_error(cluster):
    with anyio.fail_after(5):
        client, server = await ends(cluster)
        await client._stream.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            await server.receive()
        await close(client, server)


async def test_a_stranger_is_told_why_it_is_refused(cluster):
    near, far = pipes()
    stranger = cluster.files("node", "n0")
    other = Cluster(cluster.folder, ("n0",))
    other.authority = create_authority("demo")
    client = TlsStream(near, client_context(stranger), server_side=False)
    server = TlsStream(far, server_context(other.files("node", "n1")), server_side=True)
    reasons = []

    async def shake(stream):
        try:
            await stream.handshake()
            await stream.receive()
        except ssl.SSLError as error:
            reasons.append(tls_refusal(error).reason)
        await stream.aclose()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shake, client)
            tasks.start_soon(shake, server)
    assert sorted(reasons) == [
        "the other side does not know the authority of this side's certificate",
        "the other side's certificate was made by another authority",
    ]
