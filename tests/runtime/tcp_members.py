"""Members on real sockets of the loopback interface: identities, certificates, and transports that run."""

import random
import socket
from contextlib import asynccontextmanager

import anyio

from bftkit.runtime.channel import CONTROL
from bftkit.runtime.connection import NetworkTuning
from bftkit.runtime.credentials import create_authority, issue, read_credentials, write_credentials
from bftkit.runtime.tcp import TcpTransport
from bftkit.wire.auth import SigningKey
from bftkit.wire.framing import FrameType, encode_frame
from bftkit.wire.handshake import LocalIdentity
from tests.runtime.recording_peers import Recorder

GENESIS = bytes(32)
QUICK = NetworkTuning(
    handshake_timeout_ms=1_000,
    frame_timeout_ms=200,
    ping_interval_ms=5_000,
    dial_timeout_ms=1_000,
    reconnect_min_ms=5,
    reconnect_max_ms=20,
)
"""Short deadlines, for tests that wait for one of them; pings stay out of the way."""


def vote(payload=b"vote"):
    return encode_frame(FrameType.VOTE, payload)


def free_address():
    """Return a loopback address that nobody listens at, with a port that the system gives to no outgoing connection."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return f"127.0.0.1:{port}"


class Cluster:
    """Who is who: keys, addresses and certificates of some members."""

    def __init__(self, folder, names=("n0", "n1", "n2"), *, secure=True):
        self.folder = folder
        self.secure = secure
        self.authority = create_authority("demo")
        self.keys = {name: SigningKey.generate() for name in names}
        self.members = {name: key.public_key for name, key in self.keys.items()}
        self.peers = {name: free_address() for name in names}

    def files(self, role, name, authority=None):
        """Return credentials on disk, made by this cluster's authority or another."""
        if not self.secure:
            return None
        folder = self.folder / f"{len(list(self.folder.iterdir()))}-{role}-{name}"
        write_credentials(issue(authority or self.authority, role, name), folder)
        return read_credentials(folder)

    def identity(self, name, **changes):
        """Return a hello factory of a member, or of somebody like it."""
        fields = {"cluster": "demo", "role": "peer", "name": name, "nonce": b"", "genesis": GENESIS}
        fields["key"] = self.keys.get(name) or SigningKey.generate()
        fields.update(changes)
        return lambda: LocalIdentity(**fields)

    def transport(self, name, *, tuning=QUICK, credentials=None, listen=None, **changes):
        """Return a member's transport."""
        return TcpTransport(
            self.identity(name, **changes),
            listen or self.peers[name],
            self.peers,
            self.members,
            credentials=credentials or self.files("node", name),
            tuning=tuning,
        )


class Member:
    """A transport that runs, and what its handler saw."""

    def __init__(self, transport):
        self.transport = transport
        self.seen = Recorder()
        self._ended = anyio.Event()

    async def start(self, tasks):
        self.scope = await tasks.start(self._run)
        return self

    async def stop(self):
        self.scope.cancel()
        await self._ended.wait()

    def say(self, peer, payload=b"vote", priority=CONTROL):
        """Send one VOTE and flush."""
        accepted = self.transport.send(peer, priority, vote(payload))
        self.transport.flush()
        return accepted

    def reasons(self):
        """Return the reasons of all refusals."""
        return [refusal.reason for refusal in self.transport.refusals.latest()]

    async def _run(self, *, task_status):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                await tasks.start(lambda *, task_status: self.transport.run(self.seen, task_status=task_status))
                task_status.started(scope)
        self._ended.set()


@asynccontextmanager
async def running(*transports):
    """Run transports; yield their members."""
    members = [Member(transport) for transport in transports]
    async with anyio.create_task_group() as tasks:
        for member in members:
            await member.start(tasks)
        yield members
        for member in members:
            await member.stop()
