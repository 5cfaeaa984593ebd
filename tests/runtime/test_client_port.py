"""The port for clients: who gets in as what, what comes through, and who is disconnected."""

from contextlib import asynccontextmanager

import anyio
import pytest

from bftkit.errors import HandshakeRefused, MalformedMessage, WireError
from bftkit.runtime.client_port import MAX_CONNECTIONS_PER_KEY, ClientPort
from bftkit.runtime.connection import NetworkTuning
from bftkit.runtime.dialer import connect_client
from bftkit.wire.framing import FrameType, encode_frame
from tests.runtime.tcp_members import GENESIS, QUICK, Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.network]


@pytest.fixture(params=["tls", "plain"])
def cluster(request, tmp_path):
    return Cluster(tmp_path, ("n0", "n1"), secure=request.param == "tls")


class Echo:
    """Answer each request with its own payload, and write down who came and went."""

    def __init__(self):
        self.ups = []
        self.downs = []
        self.refusal = None
        self._changed = anyio.Event()

    async def on_client_frames(self, connection, frames):
        if self.refusal is not None:
            raise self.refusal
        for frame in frames:
            kind = FrameType.REPLY if frame.type is FrameType.REQUEST else FrameType.ADMIN_REPLY
            connection.send(encode_frame(kind, frame.payload))

    def on_client_up(self, connection):
        self.ups.append(connection)
        self._note()

    def on_client_down(self, connection):
        self.downs.append(connection)
        self._note()

    async def until(self, condition):
        while not condition():
            await self._changed.wait()

    def _note(self):
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def open_port(cluster, **options):
    """Yield the port of n0, its handler, and a function that connects somebody to it."""
    credentials = cluster.files("node", "n0")
    tuning = options.pop("tuning", QUICK)
    port = ClientPort(
        cluster.identity("n0"), "127.0.0.1:0", cluster.members, credentials=credentials, tuning=tuning, **options
    )
    handler = Echo()

    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:

            async def connect(name="alice", role="client", expected_name="n0", files=None, **identity):
                connection = await connect_client(
                    port.address,
                    cluster.identity(name, role=role, **identity),
                    cluster.members,
                    expected_name=expected_name,
                    credentials=files or cluster.files(role, name),
                    tuning=QUICK,
                )
                tasks.start_soon(connection.run)
                return connection

            await tasks.start(lambda *, task_status: port.run(handler, task_status=task_status))
            yield port, handler, connect
            tasks.cancel_scope.cancel()


async def reason_of(connection):
    with pytest.raises(WireError) as caught:
        while True:
            await connection.receive()
    return str(caught.value)


async def test_a_client_asks_and_is_answered(cluster):
    async with open_port(cluster) as (port, handler, connect):
        alice = await connect(genesis=b"")
        for number in range(10):
            assert alice.send(encode_frame(FrameType.REQUEST, bytes([number])))
        answers: list[bytes] = []
        while len(answers) < 10:
            answers += [bytes(frame.payload) for frame in await alice.receive()]
        assert answers == [bytes([number]) for number in range(10)]
        (seen,) = handler.ups
        assert (seen.role, seen.name) == ("client", "alice")
        assert port.connections == [seen]
        alice.close("done")
        await handler.until(lambda: handler.downs == [seen])
        assert "the other side closed" in seen.reason
        await anyio.wait_all_tasks_blocked()
        assert port.connections == []


async def test_the_handler_knows_an_operator_from_a_client(cluster):
    async with open_port(cluster) as (_, handler, connect):
        for name, role in (("op", "admin"), ("alice", "client")):
            somebody = await connect(name, role)
            somebody.send(encode_frame(FrameType.ADMIN, b"status"))
            answers = [(frame.type, frame.payload) for frame in await somebody.receive()]
            assert answers == [(FrameType.ADMIN_REPLY, b"status")]
        assert [(connection.role, connection.name) for connection in handler.ups] == [
            ("admin", "op"),
            ("client", "alice"),
        ]


async def test_nobody_sends_what_only_replicas_send(cluster):
    async with open_port(cluster) as (_, handler, connect):
        for role in ("client", "admin"):
            somebody = await connect("eve", role)
            await handler.until(lambda role=role: handler.ups and handler.ups[-1].role == role)
            somebody.send(encode_frame(FrameType.VOTE, b"yes"))
            assert "a VOTE frame is not accepted here" in await reason_of(somebody)


async def test_replicas_do_not_get_in_here(cluster):
    async with open_port(cluster) as (port, _, connect):
        with pytest.raises(HandshakeRefused, match="role 'peer' is not accepted"):
            await connect("n1", "peer", files=cluster.files("node", "n1"), genesis=GENESIS)
        while not port.refusals.latest():
            await anyio.sleep(0.002)
        assert "role 'peer'" in port.refusals.latest()[0].reason


async def test_a_client_is_no_operator(tmp_path):
    cluster = Cluster(tmp_path, ("n0",))
    async with open_port(cluster) as (_, _, connect):
        with pytest.raises(HandshakeRefused, match="certificate for role 'client' cannot be used as 'admin'"):
            await connect("alice", "admin", files=cluster.files("client", "alice"))


async def test_a_client_knows_whom_it_wants_to_talk_to(cluster):
    async with open_port(cluster) as (_, _, connect):
        with pytest.raises(HandshakeRefused, match="'n0' answers at the address of 'n1'"):
            await connect(expected_name="n1")
        cluster.members["n0"] = cluster.members["n1"]
        with pytest.raises(HandshakeRefused, match="the key of 'n0' is not the registered one"):
            await connect()


async def test_nobody_there(cluster):
    with anyio.fail_after(10), pytest.raises(HandshakeRefused, match="cannot connect"):
        await connect_client(cluster.peers["n1"], cluster.identity("a", role="client"), {}, tuning=QUICK)


async def test_a_client_that_does_not_read_is_disconnected(cluster):
    tuning = NetworkTuning(outbox_bytes=4 * 1024 * 1024)
    async with open_port(cluster, tuning=tuning) as (_, handler, connect):
        await connect()
        await handler.until(lambda: handler.ups)
        answer = encode_frame(FrameType.REPLY, bytes(1024 * 1024))
        while handler.ups[0].send(answer):
            await anyio.sleep(0)
        await handler.until(lambda: handler.downs)
        assert handler.ups[0].reason == "answers are not read quickly enough"


async def test_there_is_a_limit_to_clients_and_operators_get_in_beyond_it(cluster):
    async with open_port(cluster, max_connections=2) as (port, handler, connect):
        await connect("alice")
        await connect("bob")
        await handler.until(lambda: len(handler.ups) == 2)
        assert "more than 2 clients" in await reason_of(await connect("carol"))
        await connect("op", "admin")
        await handler.until(lambda: len(handler.ups) == 3)
        assert [refusal.reason for refusal in port.refusals.latest()] == ["more than 2 clients"]
        handler.ups[0].close("make room")
        await handler.until(lambda: handler.downs)
        handler.ups[2].close("make room")
        await handler.until(lambda: len(handler.downs) == 2)
        await anyio.wait_all_tasks_blocked()
        await connect("dave")
        await handler.until(lambda: len(handler.ups) == 4)


async def test_one_key_has_a_limit_of_its_own(tmp_path):
    cluster = Cluster(tmp_path, ("n0",), secure=False)
    key = cluster.keys["n0"].generate()
    async with open_port(cluster) as (_, handler, connect):
        for _ in range(MAX_CONNECTIONS_PER_KEY):
            await connect(key=key)
        await handler.until(lambda: len(handler.ups) == MAX_CONNECTIONS_PER_KEY)
        assert "connections with one key" in await reason_of(await connect(key=key))
        await connect()
        await handler.until(lambda: len(handler.ups) == MAX_CONNECTIONS_PER_KEY + 1)


async def test_the_handler_may_refuse_what_a_client_says_and_others_do_not_notice(cluster):
    async with open_port(cluster) as (_, handler, connect):
        alice, bob = await connect("alice"), await connect("bob")
        handler.refusal = MalformedMessage("no request")
        alice.send(encode_frame(FrameType.REQUEST, b"?"))
        assert await reason_of(alice) == "the other side refused: no request"
        handler.refusal = None
        bob.send(encode_frame(FrameType.REQUEST, b"!"))
        assert [frame.payload for frame in await bob.receive()] == [b"!"]
