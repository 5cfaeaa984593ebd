"""Bad input, tried one by one against running nodes: each gets one clear error, and nobody else notices."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from bftkit import Client, Node, NotReady, Rejected
from bftkit.batteries.kv import KeyValue, get, put, result
from bftkit.config import GenesisConfig, check_files, load_genesis, render
from bftkit.core.batch import BatchHeader
from bftkit.core.ids import canonical
from bftkit.runtime.credentials import issue, read_authority, read_credentials, write_credentials
from bftkit.runtime.node_files import LazyEngines, node_parts
from bftkit.runtime.testnet import NewCluster, write_testnet
from bftkit.wire.auth import SigningKey
from bftkit.wire.envelope import encode_body
from bftkit.wire.framing import FrameType, frame_header

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
    node_files._credentials = lambda config: read_credentials(net.folder / name / "keys")
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
