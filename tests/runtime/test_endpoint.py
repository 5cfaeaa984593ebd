"""Strangers at the port of a member: each gets one clear reason, and the other links stay up."""

from contextlib import asynccontextmanager

import anyio
import pytest

from bftkit.errors import HandshakeRefused
from bftkit.runtime.connection import NetworkTuning
from bftkit.runtime.credentials import client_context, create_authority
from bftkit.runtime.dialer import dial
from bftkit.runtime.endpoint import Endpoint
from bftkit.runtime.listener import host_and_port
from bftkit.runtime.tls_stream import TlsStream
from bftkit.wire.auth import SigningKey
from bftkit.wire.framing import Frame, FrameDecoder, FrameType
from tests.runtime.tcp_members import QUICK, Cluster, running

pytestmark = [pytest.mark.anyio, pytest.mark.network]

HUGE = b"bk\x01\x01\xff\xff\xff\xff"
"""The header of a HELLO of 4 GiB."""


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path, ("n0", "n1", "n2"))


@asynccontextmanager
async def under_attack(cluster, *, tuning=QUICK):
    """Run n0 and n1 and yield n1, the victim; afterwards their link must have stood all the time."""
    with anyio.fail_after(15):
        async with running(cluster.transport("n0"), cluster.transport("n1", tuning=tuning)) as (other, victim):
            await victim.seen.until(lambda: victim.seen.ups)
            await other.seen.until(lambda: other.seen.ups)
            yield victim
            assert victim.seen.downs == []
            before = len(victim.seen.frames)
            other.say("n1", b"still here")
            await victim.seen.payloads(before + 1)


async def refused(victim):
    """Wait until the victim has refused somebody who connected, and return the reason, which is the only one."""
    while True:
        found = [refusal for refusal in victim.transport.refusals.latest() if refusal.address == "127.0.0.1"]
        if found:
            (refusal,) = found
            return refusal.reason
        await anyio.sleep(0.002)


async def try_to_connect(cluster, victim, /, *, name="n2", files=None, secure=True, **identity):
    """Dial the victim as somebody, and return the reason that this side gets."""
    credentials = (files or cluster.files("node", name)) if secure else None
    endpoint = Endpoint(cluster.identity(name, **identity), cluster.members, credentials=credentials, tuning=QUICK)
    with pytest.raises(HandshakeRefused) as caught:
        connection = await dial(endpoint, victim.transport.address, "n1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.run)
            try:
                await connection.receive()
            finally:
                connection.close("enough")
    return str(caught.value)


async def connect(victim):
    """Return a socket connected to the victim."""
    return await anyio.connect_tcp(*host_and_port(victim.transport.address))


@asynccontextmanager
async def raw_tls(cluster, victim):
    """Yield a TLS stream to the victim with a valid certificate of n2, before any frame."""
    async with await connect(victim) as socket:
        stream = TlsStream(socket, client_context(cluster.files("node", "n2")), server_side=False)
        await stream.handshake()
        yield stream


async def last_word(stream):
    """Return the reason in the REFUSE frame that arrives."""
    decoder = FrameDecoder()
    frames: list[Frame] = []
    while not frames:
        frames = decoder.feed(await stream.receive())
    assert frames[-1].type is FrameType.REFUSE
    return bytes(frames[-1].payload)


async def test_bytes_that_are_no_tls(cluster):
    async with under_attack(cluster) as victim, await connect(victim) as socket:
        await socket.send(b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n")
        assert "TLS" in await refused(victim)


async def test_a_frame_of_4_gib(cluster):
    async with under_attack(cluster) as victim, raw_tls(cluster, victim) as stream:
        await stream.send(HUGE)
        assert b"a HELLO frame of 4294967295 bytes" in await last_word(stream)
        assert "a HELLO frame of 4294967295 bytes" in await refused(victim)


async def test_random_bytes_inside_tls(cluster):
    async with under_attack(cluster) as victim, raw_tls(cluster, victim) as stream:
        await stream.send(b"\xde\xad\xbe\xef" * 100)
        assert b"not a bftkit frame" in await last_word(stream)
        assert "not a bftkit frame" in await refused(victim)


async def test_a_vote_before_the_hello(cluster):
    async with under_attack(cluster) as victim, raw_tls(cluster, victim) as stream:
        await stream.send(b"bk\x01\x11\x00\x00\x00\x00")
        assert b"a VOTE frame is not accepted here" in await last_word(stream)
        assert "a VOTE frame is not accepted here" in await refused(victim)


async def test_a_valid_certificate_with_the_name_of_another(cluster):
    async with under_attack(cluster) as victim:
        told = await try_to_connect(cluster, victim, name="n0", files=cluster.files("node", "n2"))
        assert "the certificate of 'n2' cannot be used as 'n0'" in told
        assert "the certificate of 'n2' cannot be used as 'n0'" in await refused(victim)


async def test_a_certificate_of_another_authority(cluster):
    async with under_attack(cluster) as victim:
        files = cluster.files("node", "n0", create_authority("demo"))
        # The stranger does not trust the member either, and says so first.
        assert "another authority" in await try_to_connect(cluster, victim, name="n0", files=files)
        assert "does not know the authority" in await refused(victim)


async def test_a_certificate_of_another_cluster_of_one_authority(cluster):
    async with under_attack(cluster) as victim:
        authority = cluster.authority
        authority.cluster_id = "other"
        files = cluster.files("node", "n0")
        authority.cluster_id = "demo"
        told = await try_to_connect(cluster, victim, name="n0", files=files, cluster="other")
        assert "the certificate is of cluster 'demo'" in told
        assert "the certificate is of cluster 'other'" in await refused(victim)


async def test_no_tls_at_a_port_with(cluster):
    async with under_attack(cluster) as victim:
        assert "TLS" in await try_to_connect(cluster, victim, secure=False)
        assert "TLS" in await refused(victim)


async def test_who_is_no_member(cluster):
    async with under_attack(cluster) as victim:
        told = await try_to_connect(cluster, victim, name="n9")
        assert "'n9' is not a member" in told
        assert "'n9' is not a member" in await refused(victim)


async def test_a_member_with_another_key(cluster):
    async with under_attack(cluster) as victim:
        told = await try_to_connect(cluster, victim, name="n0", key=SigningKey.generate())
        assert "the key of 'n0' is not the registered one" in told
        assert "the key of 'n0' is not the registered one" in await refused(victim)


async def test_a_client_at_the_port_for_peers(cluster):
    async with under_attack(cluster) as victim:
        files = cluster.files("client", "alice")
        told = await try_to_connect(cluster, victim, name="alice", files=files, role="client")
        assert "role 'client' is not accepted" in told
        assert "role 'client' is not accepted" in await refused(victim)


async def test_other_settings(cluster):
    async with under_attack(cluster) as victim:
        config = (("view_timeout_ms", bytes(8)),)
        told = await try_to_connect(cluster, victim, name="n0", config_digest=bytes(32), config=config)
        assert "settings of epoch 0 differ (view_timeout_ms)" in told
        assert "settings of epoch 0 differ (view_timeout_ms)" in await refused(victim)


async def test_a_member_that_should_be_dialled_and_not_dial(cluster):
    async with under_attack(cluster) as victim:
        endpoint = Endpoint(
            cluster.identity("n2"), cluster.members, credentials=cluster.files("node", "n2"), tuning=QUICK
        )
        connection = await dial(endpoint, victim.transport.address, "n1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.run)
            with pytest.raises(Exception, match="the smaller name dials"):
                await connection.receive()
        assert "the smaller name dials" in await refused(victim)


async def test_somebody_else_answers(cluster):
    async with under_attack(cluster) as victim:
        endpoint = Endpoint(
            cluster.identity("n2"), cluster.members, credentials=cluster.files("node", "n2"), tuning=QUICK
        )
        with pytest.raises(HandshakeRefused, match="'n1' answers at the address of 'n0'"):
            await dial(endpoint, victim.transport.address, "n0")
        assert "'n1' answers at the address of 'n0'" in await refused(victim)


@pytest.mark.parametrize("spoken", [b"", b"\x16\x03\x01"], ids=["silent", "one byte and no more"])
async def test_strangers_who_are_slow_on_purpose(cluster, spoken):
    tuning = NetworkTuning(handshake_timeout_ms=200)
    async with under_attack(cluster, tuning=tuning) as victim, await connect(victim) as socket:
        if spoken:
            await socket.send(spoken)
        assert await refused(victim) == "no handshake within 200 ms"
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await socket.receive()


async def test_a_stranger_who_hangs_up(cluster):
    async with under_attack(cluster) as victim:
        await (await connect(victim)).aclose()
        assert "during the handshake" in await refused(victim)


async def test_another_cluster_in_the_hello_of_a_port_without_tls(tmp_path):
    cluster = Cluster(tmp_path, secure=False)
    async with under_attack(cluster) as victim:
        told = await try_to_connect(cluster, victim, name="n0", secure=False, cluster="other")
        assert "cluster 'other'; this is cluster 'demo'" in told
        assert "cluster 'other'; this is cluster 'demo'" in await refused(victim)


async def test_tls_at_a_port_without(tmp_path):
    cluster = Cluster(tmp_path, secure=False)
    async with under_attack(cluster) as victim:
        cluster.secure = True
        assert "TLS" in await try_to_connect(cluster, victim, name="n0")
        assert "not a bftkit frame" in await refused(victim)


async def test_renewed_certificates_count_from_the_next_connection_on(cluster):
    authority = create_authority("demo")
    with anyio.fail_after(10):
        async with running(cluster.transport("n0"), cluster.transport("n1")) as (first, second):
            await first.seen.until(lambda: first.seen.ups)
            for member in (first, second):
                member.transport.use_credentials(cluster.files("node", member.transport.name, authority))
            assert (first.seen.downs, second.seen.downs) == ([], [])
            old = Endpoint(
                cluster.identity("n0"), cluster.members, credentials=cluster.files("node", "n0"), tuning=QUICK
            )
            with pytest.raises(HandshakeRefused, match="another authority"):
                await dial(old, second.transport.address, "n1")
            new = cluster.files("node", "n0", authority)
            dialler = Endpoint(cluster.identity("n0"), cluster.members, credentials=new, tuning=QUICK)
            connection = await dial(dialler, second.transport.address, "n1")
            connection.close("enough")
            await connection.run()
