"""Bad input, tried one by one against running nodes: each gets one clear error, and nobody else notices."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from msgspec import structs

from bftkit import Client, Node, NotReady, Rejected
from bftkit.batteries.kv import KeyValue, get, put, result
from bftkit.config import GenesisConfig, check_files, load_genesis, render
from bftkit.core.batch import BatchHeader, BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, Checkpoint, CheckpointCertificate
from bftkit.core.ids import canonical
from bftkit.errors import HandshakeRefused
from bftkit.replica.client_messages import (
    AnyReply,
    Busy,
    Envelope,
    OpenSession,
    Reply,
    SessionOpened,
    client_domain,
    envelope_statement,
    open_session_statement,
)
from bftkit.replica.messages import StableCheckpoint
from bftkit.runtime.connection import FramedConnection
from bftkit.runtime.credentials import (
    Authority,
    Credentials,
    issue,
    read_authority,
    read_credentials,
    write_credentials,
)
from bftkit.runtime.dialer import connect_client, dial
from bftkit.runtime.endpoint import Endpoint
from bftkit.runtime.node_files import LazyEngines, node_parts
from bftkit.runtime.peer_codec import PeerCodec
from bftkit.runtime.testnet import NewCluster, write_testnet
from bftkit.runtime.tls_stream import TlsStream
from bftkit.wire.auth import SigningKey
from bftkit.wire.envelope import encode_body
from bftkit.wire.framing import FrameType, encode_frame, frame_header
from bftkit.wire.handshake import ChannelIdentity, LocalIdentity
from bftkit_pbft.messages import NewView, NewViewCopy, Prepare, PrePrepare, PrePrepareCopy, ViewChange, ViewChangeCopy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


class Net:
    """Three running nodes of four; the fourth member's files are the attacker's."""

    def __init__(self, folder: Path, genesis: GenesisConfig) -> None:
        self.folder = folder
        self.genesis = genesis
        self.nodes: dict[str, Node] = {}

    def address(self, name: str) -> tuple[str, int]:
        member = next(member for member in self.genesis.members if member.name == name)
        host, _, port = member.peer_address.rpartition(":")
        return host, int(port)

    async def refused(self, name: str, words: str) -> None:
        """Wait until a node says that it refused somebody, in these words."""
        said: list[str] = []
        with anyio.move_on_after(10):
            while True:
                status = await self.nodes[name].status()
                said = [*status["refusals"], str(status["last_rejection"]), str(status["last_refusal"])]
                if any(words in line for line in said):
                    return
                await anyio.sleep(0.05)
        pytest.fail(f"{name} does not say {words!r} but {said}")

    async def still_commits(self) -> None:
        """Show that nobody else has noticed."""
        receipt = await self.nodes["n0"].submit(put(b"k", b"v"), timeout=20)
        assert receipt.certificate.signers == (0, 1, 2)
        assert {node.failure for node in self.nodes.values()} == {None}
        assert [len((await node.status())["peers"]) >= 2 for node in self.nodes.values()] == [True] * 3


@asynccontextmanager
async def _net(folder: Path) -> AsyncIterator[Net]:
    net = Net(folder / "net", write_testnet(folder / "net", NewCluster(base_port=0)))
    async with AsyncExitStack() as stack:
        for name in ("n0", "n1", "n2"):
            path = str(net.folder / name / "bftkit.toml")
            net.nodes[name] = await stack.enter_async_context(Node.open(path, KeyValue()))
        await net.still_commits()
        yield net


async def _raw(net: Net, data: bytes, *, tls: bool) -> bytes:
    """Send bytes to n0's peer port, with the fourth member's TLS certificate or without; return what comes back."""
    host, port = net.address("n0")
    context = None
    if tls:
        files = read_credentials(net.folder / "n3" / "keys")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
    stream: ByteStream = await anyio.connect_tcp(host, port)
    if context is not None:
        stream = await TLSStream.wrap(stream, server_side=False, ssl_context=context, standard_compatible=False)
    answer = b""
    async with stream:
        await stream.send(data)
        with anyio.fail_after(10):
            try:
                while True:
                    answer += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return answer


async def test_a_frame_announcing_4_gib(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        announced = frame_header(FrameType.HELLO, 0)[:4] + (0xFFFFFFFF).to_bytes(4, "big")
        answer = await _raw(net, announced, tls=True)
        assert b"4294967295" in answer or b"at most" in answer
        await net.refused("n0", "4294967295")
        await net.still_commits()


@pytest.mark.parametrize("tls", [True, False])
async def test_random_bytes(tmp_path: Path, tls: bool) -> None:
    async with _net(tmp_path) as net:
        await _raw(net, bytes(range(7, 250)), tls=tls)
        await net.refused("n0", "not a bftkit frame" if tls else "TLS")
        await net.still_commits()


async def _as_peer(net: Net, attack: Callable[[Node], Awaitable[None]]) -> None:
    """Run the fourth member, whose application never matters, and let it do its worst."""
    parts = node_parts(str(net.folder / "n3" / "bftkit.toml"))
    async with Node(KeyValue(), parts) as liar:
        with anyio.fail_after(10):
            while len((await liar.status())["peers"]) < 3:
                await anyio.sleep(0.05)
        await attack(liar)


async def test_a_valid_certificate_with_another_nodes_id(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        keys = net.folder / "n3" / "keys"
        for file in ("certificate.pem", "certificate.key", "authority.pem"):
            (keys / file).unlink()
        authority = read_authority(net.folder / "authority")
        write_credentials(issue(authority, "node", "n1"), keys)
        parts = node_parts_unchecked(net, "n3")
        async with Node(KeyValue(), parts):
            await net.refused("n0", "n1")
            await net.still_commits()


def node_parts_unchecked(net: Net, name: str):
    """Build a node whose certificate is not its own, past the check that would stop an honest operator."""
    from bftkit.runtime import node_files

    honest = node_files._credentials
    node_files._credentials = lambda config, clock: read_credentials(net.folder / name / "keys")
    try:
        return node_parts(str(net.folder / name / "bftkit.toml"))
    finally:
        node_files._credentials = honest


async def test_a_peer_from_another_cluster(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        other = tmp_path / "other"
        write_testnet(other, NewCluster(base_port=0, cluster_id="elsewhere"))
        text = (other / "genesis.toml").read_text()
        ours = dict(
            zip(_addresses(load_genesis(other / "genesis.toml", LazyEngines())), _addresses(net.genesis), strict=True)
        )
        for theirs, here in ours.items():
            text = text.replace(theirs, here)
        for path in other.rglob("genesis.toml"):
            path.write_text(text)
        async with Node.open(str(other / "n3" / "bftkit.toml"), KeyValue()):
            await net.refused("n0", "authority")
            await net.still_commits()


def _addresses(genesis: GenesisConfig) -> list[str]:
    return [address for member in genesis.members for address in (member.peer_address, member.client_address)]


async def test_a_member_that_is_none(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        keys = tmp_path / "stranger"
        write_credentials(issue(read_authority(net.folder / "authority"), "node", "n9"), keys)
        text = (net.folder / "genesis.toml").read_text()
        key = SigningKey.generate()
        member = next(member for member in net.genesis.members if member.name == "n3")
        folder = net.folder / "n3"
        # The stranger believes in a genesis that has it as a member in the place of n3.
        forged = text.replace('name = "n3"', 'name = "n9"').replace(member.public_key, key.public_key.hex())
        (folder / "genesis.toml").write_text(forged)
        (folder / "bftkit.toml").write_text(
            '[node]\nname = "n9"\ngenesis = "genesis.toml"\n[keys]\nconsensus = "keys/stranger.key"\n'
        )
        (folder / "keys" / "stranger.key").write_text(f"ed25519:{key.seed().hex()}\n")
        (folder / "keys" / "stranger.key").chmod(0o600)
        for file in ("certificate.pem", "certificate.key", "authority.pem"):
            (folder / "keys" / file).unlink()
            (keys / file).rename(folder / "keys" / file)
        async with Node.open(str(folder / "bftkit.toml"), KeyValue()):
            await net.refused("n0", "genesis")
            await net.still_commits()


def _identity(net: Net, name: str) -> LocalIdentity:
    """Return what an honest member says of itself: the right cluster, genesis and settings."""
    return node_parts(str(net.folder / name / "bftkit.toml")).transport._endpoint.hello()


class _SaysAnything(Endpoint):
    """An end that checks others by the true cluster, whatever it says of itself."""

    true_cluster = ""

    async def _secure(self, stream: Any, cluster: str, *, initiator: bool) -> tuple[TlsStream, ChannelIdentity]:
        return await super()._secure(stream, self.true_cluster, initiator=initiator)


async def _dial_as(net: Net, identity: LocalIdentity, credentials: Credentials, folder: Path) -> str:
    """Shake hands with n0 as somebody else; return why n0 does not want to."""
    write_credentials(credentials, folder)
    members = {member.name: bytes.fromhex(member.public_key) for member in net.genesis.members}
    endpoint = _SaysAnything(lambda: identity, members, credentials=read_credentials(folder))
    endpoint.true_cluster = net.genesis.cluster.id
    host, port = net.address("n0")
    with pytest.raises(HandshakeRefused) as refused:
        await dial(endpoint, f"{host}:{port}", "n0")
    return str(refused.value)


async def test_a_stranger_who_knows_everything_but_is_no_member(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        identity = structs.replace(_identity(net, "n3"), name="n9", key=SigningKey.generate())
        certificate = issue(read_authority(net.folder / "authority"), "node", "n9")
        assert "'n9' is not a member of epoch 0" in await _dial_as(net, identity, certificate, tmp_path / "n9")
        await net.refused("n0", "'n9' is not a member of epoch 0")
        await net.still_commits()


async def test_a_member_with_another_key(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        identity = structs.replace(_identity(net, "n3"), key=SigningKey.generate())
        certificate = issue(read_authority(net.folder / "authority"), "node", "n3")
        assert "the key of 'n3' is not the registered one" in await _dial_as(
            net, identity, certificate, tmp_path / "n3"
        )
        await net.refused("n0", "the key of 'n3' is not the registered one")
        await net.still_commits()


async def test_a_member_that_names_another_cluster(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        identity = structs.replace(_identity(net, "n3"), cluster="elsewhere")
        certificate = issue(read_authority(net.folder / "authority"), "node", "n3")
        words = f"cluster 'elsewhere'; this is cluster '{net.genesis.cluster.id}'"
        assert words in await _dial_as(net, identity, certificate, tmp_path / "n3")
        await net.refused("n0", words)
        await net.still_commits()


async def test_a_certificate_of_the_right_authority_for_another_cluster(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        authority = read_authority(net.folder / "authority")
        certificate = issue(Authority("elsewhere", authority.certificate, authority.key), "node", "n3")
        words = "the certificate is of cluster 'elsewhere'"
        assert words in await _dial_as(net, _identity(net, "n3"), certificate, tmp_path / "n3")
        await net.refused("n0", words)
        await net.still_commits()


def _of_a_non_member(net: Net) -> list[tuple[Any, str]]:
    """List messages whose signatures are of somebody who is none, and the words that refuse each."""
    stranger = 7
    genesis = CheckpointCertificate(EMPTY_CHECKPOINT, None)
    ref = BatchRef(bytes(32), 1, 1, 1)
    copy = "a copy names a signer who is no member"
    interval = net.genesis.limits.checkpoint_interval
    checkpoint = Checkpoint(interval, interval, bytes(32), bytes(32), bytes(32))
    signed = QuorumCertificate.of(checkpoint.statement(), {0: bytes(64), 1: bytes(64), stranger: bytes(64)}, 4)
    return [
        (ViewChangeCopy(stranger, ViewChange(1, genesis, (), bytes(64))), copy),
        (NewViewCopy(stranger, NewView(1, (), (), bytes(64))), copy),
        (PrePrepareCopy(stranger, PrePrepare(0, 1, (ref,), bytes(64))), copy),
        (StableCheckpoint(CheckpointCertificate(checkpoint, signed)), "a signer is not a member"),
        # What a member did not sign is not its word either.
        (ViewChangeCopy(1, ViewChange(1, genesis, (), bytes(64))), "a signature of n1 is not valid"),
        (Prepare(0, 1, bytes(32), bytes(64)), "a signature of n3 is not valid"),
    ]


async def test_messages_of_a_non_member_on_a_members_link(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:

        async def attack(liar: Node) -> None:
            codec = PeerCodec(liar.settings)
            for message, words in _of_a_non_member(net):
                before = (await net.nodes["n0"].status())["counters"]["rejected"]
                encoded = codec.encode(message)
                assert liar._transport.send("n0", encoded.priority, encoded.buffers)
                liar._transport.flush()
                status = await _rejected(net.nodes["n0"], before)
                assert status["last_rejection"] == f"n3: {words}"
            # The link is the member's own, and stays.
            assert "n3" in status["peers"]

        await _as_peer(net, attack)
        await net.still_commits()


async def _rejected(node: Node, before: int) -> dict[str, Any]:
    """Wait until a node has rejected more messages than before, and return its status."""
    with anyio.fail_after(10):
        while True:
            status = await node.status()
            if status["counters"]["rejected"] > before:
                return status
            await anyio.sleep(0.02)


async def test_an_empty_batch_and_a_message_that_does_not_decode(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:

        async def attack(liar: Node) -> None:
            header = canonical(BatchHeader(0, 3, 0))
            parts = [bytes(part) for part in encode_body(header, b"\x90")]
            size = sum(map(len, parts))
            transport = liar._transport
            assert transport.send("n0", 1, [frame_header(FrameType.BODY, size), *parts])
            transport.flush()
            await net.refused("n0", "batch header is out of range")
            payload = b"\xc1" * 40
            assert transport.send("n0", 0, [frame_header(FrameType.VOTE, len(payload)) + payload])
            transport.flush()
            await net.refused("n0", "n3: ")

        await _as_peer(net, attack)
        await net.still_commits()


async def test_an_oversized_command(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        limit = net.genesis.limits.max_command_bytes
        with pytest.raises(Rejected, match=str(limit)):
            await net.nodes["n0"].submit(bytes(limit + 1))
        async with Client.open(net.folder) as client:
            with pytest.raises(Rejected, match=str(limit)):
                await client.submit(bytes(limit + 1))
            await client.submit(put(b"large", bytes(limit - 16)), timeout=20)
            assert result(await client.query(get(b"large"))).value == bytes(limit - 16)
        await net.still_commits()


async def test_an_oversized_command_past_the_clients_own_check(tmp_path: Path) -> None:
    async with _net(tmp_path) as net, anyio.create_task_group() as tasks:
        limit = net.genesis.limits.max_command_bytes
        raw = await RawClient.connect(net)
        tasks.start_soon(raw.connection.run)
        session = await raw.open_session()
        refusal = await raw.ask(raw.envelope(session, 1, [bytes(limit + 1)]))
        assert isinstance(refusal, Busy)
        assert (refusal.session, refusal.first) == (session, 1)
        assert refusal.reason == f"a command is longer than {limit} bytes"
        await net.refused("n0", f"a command is longer than {limit} bytes")
        # One command too long refuses the whole run; the same sequences are still free for a good one.
        refusal = await raw.ask(raw.envelope(session, 1, [put(b"a", b"1"), bytes(limit + 1)]))
        assert isinstance(refusal, Busy)
        async with Client.open(net.folder) as other:
            await other.submit(put(b"other", b"goes on"), timeout=20)
            assert result(await other.query(get(b"a"))).value is None
        reply = await raw.ask(raw.envelope(session, 1, [put(b"a", b"2")]))
        assert isinstance(reply, Reply)
        assert raw.connection.reason is None
        raw.connection.close("done")
        await net.still_commits()


class RawClient:
    """A client that signs and sends whatever it is told to, to n0 alone."""

    def __init__(self, connection: FramedConnection, key: SigningKey, domain: bytes) -> None:
        self.connection = connection
        self._key = key
        self._domain = domain

    @classmethod
    async def connect(cls, net: Net) -> "RawClient":
        keys = net.folder / "client" / "keys"
        # A key of its own: answers go to every connection of a key.
        key, files = SigningKey.generate(), read_credentials(keys)
        cluster = net.genesis.cluster.id
        identity = LocalIdentity(cluster=cluster, role=files.role, name=files.name, key=key, nonce=b"")
        members = {member.name: bytes.fromhex(member.public_key) for member in net.genesis.members}
        address = next(member.client_address for member in net.genesis.members if member.name == "n0")
        connection = await connect_client(address, lambda: identity, members, expected_name="n0", credentials=files)
        return cls(connection, key, client_domain(cluster, 0))

    async def open_session(self) -> tuple[int, int]:
        public_key, nonce = self._key.public_key, bytes(range(16))
        signature = self._key.sign(open_session_statement(self._domain, public_key, nonce))
        opened = await self.ask(OpenSession(public_key, nonce, signature))
        assert isinstance(opened, SessionOpened)
        return opened.session

    def envelope(self, session: tuple[int, int], first: int, commands: list[bytes]) -> Envelope:
        encoded = msgspec.msgpack.encode(commands)
        statement = envelope_statement(self._domain, session, first, len(commands), 0, encoded)
        return Envelope(session, first, len(commands), 0, msgspec.Raw(encoded), self._key.sign(statement))

    async def ask(self, request: OpenSession | Envelope) -> AnyReply:
        """Send a request and return the next reply."""
        assert self.connection.send(encode_frame(FrameType.REQUEST, msgspec.msgpack.encode(request)))
        with anyio.fail_after(20):
            while True:
                for frame in await self.connection.receive():
                    if frame.type is FrameType.REPLY:
                        return msgspec.msgpack.decode(frame.payload, type=AnyReply)


# The refusal is as slow as the opening of a client may be; once is enough.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_command_while_the_node_is_stopping(tmp_path: Path) -> None:
    async with _net(tmp_path) as net:
        net.nodes["n2"].stop()
        with pytest.raises((NotReady, Rejected), match=r"stopping|not running"):
            await net.nodes["n2"].submit(put(b"k", b"w"))
        await net.nodes["n0"].submit(put(b"k", b"x"), timeout=20)


def test_a_configuration_with_five_mistakes(tmp_path: Path) -> None:
    write_testnet(tmp_path / "net", NewCluster(base_port=0))
    path = tmp_path / "net" / "genesis.toml"
    lines = path.read_text()
    genesis = load_genesis(path, LazyEngines())
    first, second, third, _ = genesis.members
    broken = (
        lines.replace('engine = "pbft"', 'engine = "pbtf"')
        .replace(second.public_key, first.public_key)
        .replace(third.peer_address, first.peer_address)
        .replace("checkpoint_interval = 128", "checkpoint_interval = 0")
        .replace("max_command_bytes", "max_comand_bytes")
    )
    path.write_text(broken)
    problems = [problem for problem in check_files([path], LazyEngines()) if problem.severity == "error"]
    assert len(problems) == 5
    text = render(problems)
    for words in ("pbtf", "did you mean", "public key", "address", "checkpoint_interval", "max_comand_bytes", "^"):
        assert words in text
    assert all(problem.line for problem in problems)
