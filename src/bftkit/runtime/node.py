"""The node: one replica with its disk, its peers and its clients.

``async with Node.open("n0/bftkit.toml", Counter()) as node`` starts it; inside, `submit` waits for
finality. A node that meets what it must not survive (a failed disk, a state machine that raises, a
state that differs from what a quorum certified) stops, and says why.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.epoch import Genesis
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.errors import ApplicationError, NotReady, StorageError
from bftkit.replica.client_messages import client_domain
from bftkit.replica.execution import Executor
from bftkit.replica.inputs import PeerDown, PeerUp, Submission, Submitted
from bftkit.replica.outputs import Report
from bftkit.replica.recovery import LoggedRecord, recover
from bftkit.replica.state_machine import StateMachine
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.application import ApplicationStage, Outcome, restore_newest
from bftkit.runtime.channel import CLIENTS
from bftkit.runtime.client import Client, Receipt
from bftkit.runtime.client_edge import ClientEdge, ReplyChannel
from bftkit.runtime.client_port import ClientConnection, ClientPort
from bftkit.runtime.client_settings import ClientSettings
from bftkit.runtime.clock import Clock
from bftkit.runtime.first_start import open_log
from bftkit.runtime.listener import Refusal
from bftkit.runtime.local_connector import LocalConnector
from bftkit.runtime.metrics_port import MetricsPort
from bftkit.runtime.node_metrics import NodeMetrics
from bftkit.runtime.node_parts import Adapt, NodeParts
from bftkit.runtime.node_questions import NodeQuestions, status_of
from bftkit.runtime.payload_store import PayloadStore
from bftkit.runtime.peer_codec import PeerCodec
from bftkit.runtime.pipeline import VerifyPipeline
from bftkit.runtime.reads import ReadStage
from bftkit.runtime.shard import ReplicaShard
from bftkit.runtime.tcp import TcpTransport
from bftkit.storage.log import Log
from bftkit.storage.snapshots import SnapshotStore
from bftkit.wire.auth import SignatureVerifier, SigningKey
from bftkit.wire.framing import Frame

LOG_DIRECTORY = "log"
SNAPSHOT_DIRECTORY = "snapshots"
EVENT_BUFFER = 1024
"""Events that a slow listener may be behind; further ones are dropped for it."""

PROOFS_KEPT = 4096
"""Heights whose commit certificate is remembered for receipts."""

EVENTS_WORTH_TELLING = ("view", "stable", "accused", "behind", "caught up", "diverged", "rejected", "unsigned")
"""Kinds of event that `Node.events` yields, beside "started", "peer up", "peer down" and "stopped"."""


class NodeEvent(msgspec.Struct, frozen=True):
    """Something that happened on a node."""

    kind: str
    detail: str


class Node:
    """One member of a group; build it with `open`, or with `bftkit.runtime.cluster` inside a program."""

    def __init__(self, application: StateMachine, parts: NodeParts) -> None:
        self.settings = parts.settings
        self.name = parts.settings.membership.name(parts.settings.own)
        self.failure: BaseException | None = None
        """Why the node stopped by itself."""
        self._application = application
        self._parts = parts
        self._transport = parts.transport
        self._clock = parts.clock
        self._listeners: list[MemoryObjectSendStream[NodeEvent]] = []
        self._tasks: TaskGroup | None = None
        self._stopped = anyio.Event()
        self._running = False
        self._scopes: list[anyio.CancelScope] = []
        self._log: Log | None = None
        self._proofs: OrderedDict[int, QuorumCertificate] = OrderedDict()
        self._client: Client | None = None
        self._client_lock = anyio.Lock()
        self._questions = NodeQuestions(self)

    @classmethod
    def open(
        cls, path: str, application: StateMachine, *, adapt: Adapt | None = None, clock: Clock | None = None
    ) -> Self:
        """Return the node that a configuration file describes; enter it to start it.

        `adapt` may replace what the files describe, or put something around it: a storage or a transport of one's own.
        `clock` is read by the whole node, its connections and the judgement of its certificate included.

        ConfigurationError lists everything that is wrong with the file, its genesis and its keys.
        """
        from bftkit.runtime.node_files import node_parts

        parts = node_parts(path, clock)
        return cls(application, parts if adapt is None else adapt(parts))

    # -- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._running or self._stopped.is_set():
            raise NotReady("a node is started once")
        self._build()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            await self._start(self._tasks)
        except BaseException as error:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)
            self._tasks = None
            self._close()
            self._stopped.set()
            if self.failure is not None and isinstance(error, Exception):
                raise self.failure from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._refuse_work("the node is stopping")
        self._running = False
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)
        try:
            self._close()
        except StorageError as error:
            self._fail(error)
        if self.failure is None:
            self._tell("stopped", "in order")
        self._stopped.set()
        for listener in self._listeners:
            listener.close()
        if self.failure is not None:
            raise self.failure

    def _build(self) -> None:
        settings = self.settings
        verifier = SignatureVerifier()
        hit = self._parts.hit
        identity = identity_of(settings.genesis, self.name)
        self._log = open_log(self._parts.storage, LOG_DIRECTORY, identity, self._parts.first_start, hit)
        try:
            snapshots = SnapshotStore(self._parts.storage, SNAPSHOT_DIRECTORY)
            executor = Executor(self._application, settings.genesis, verifier.verify)
            snapshot = restore_newest(executor, snapshots)
            payloads = PayloadStore(self._log)
            recovered = recover(settings, snapshot, self._records(), self._log.next_index)
            for digest, index in recovered.replica.payloads.indices():
                payloads.recovered(digest, index)
            hit("node.after_recovery")
        except BaseException:
            self._log.close()
            raise
        self._uncommitted = recovered.uncommitted
        self.replica = recovered.replica
        codec = PeerCodec(settings)
        self.shard = ReplicaShard(
            self.replica,
            self._parts.key,
            self._log,
            payloads,
            snapshots,
            self._transport,
            codec,
            self._clock,
        )
        self.shard.hit = hit
        self.application = ApplicationStage(executor, payloads, snapshots, self._clock, self._on_outcome, hit)
        self.shard.attach(self.application)
        self.reads = ReadStage(self.application, self._clock, self._take, lambda: self.replica.commits.executed)
        self.pipeline = VerifyPipeline(settings, codec, verifier, self._clock, self.shard.inbox, self._parts.lanes)
        check = getattr(self._application, "check", None)
        self.edge = ClientEdge(settings.genesis, verifier, self._submit, executor.sessions.owner_of, check)
        self.shard.on_report = self._on_report
        self.shard.on_refuse = self.edge.on_refuse
        self.shard.on_read_ready = self.reads.on_ready
        self.metrics = NodeMetrics(settings.genesis.config.group, settings.spec.name)
        self.shard.on_final = self.metrics.consensus.finality_delay_ms.record

    def _records(self) -> Iterator[LoggedRecord]:
        for record in self._log.records() if self._log is not None else ():
            yield LoggedRecord(record.index, record.kind, record.epoch, record.payload)

    async def _start(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._guarded, self.application.run)
        tasks.start_soon(self._guarded, self.reads.run)
        inner = await tasks.start(self._host)
        self.shard.start(inner, self._uncommitted)
        self.pipeline.start(inner)
        self._parts.hit("node.before_listen")
        await tasks.start(self._run_transport)
        if self._parts.port is not None:
            await tasks.start(self._run_port, self._parts.port)
        if self._parts.metrics_address:
            page = MetricsPort(self._parts.metrics_address, lambda: self.metrics.page(self))
            await tasks.start(page.run)
        self._parts.hit("node.after_listen")
        self._running = True
        self._tell("started", f"{self.name} runs {self.settings.spec.name} at height {self.replica.commits.height}")

    async def _host(self, *, task_status: anyio.abc.TaskStatus[TaskGroup]) -> None:
        """Hold the tasks of shard and pipeline; the first error of any stops the node."""
        await self._guarded(self._hold, task_status)

    async def _hold(self, task_status: anyio.abc.TaskStatus[TaskGroup]) -> None:
        async with anyio.create_task_group() as inner:
            inner.start_soon(anyio.sleep_forever)
            task_status.started(inner)

    async def _run_transport(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        await self._guarded(lambda: self._transport.run(self, task_status=task_status))

    async def _run_port(self, port: ClientPort, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        await self._guarded(lambda: port.run(self, task_status=task_status))

    async def _guarded(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Run a task whose failure stops the node."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                await function(*arguments)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Stop everything that the node does; its context is left by whoever entered it."""
        if self.failure is None:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.failure = error
            self._refuse_work("the node has failed")
            self._tell("stopped", str(error))
        self._stopped.set()
        for scope in self._scopes:
            scope.cancel()

    def _close(self) -> None:
        if self._log is not None:
            log, self._log = self._log, None
            log.close()

    async def run_until_stopped(self) -> None:
        """Wait until the node fails or is told to stop; raises what it failed of."""
        await self._stopped.wait()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Let `run_until_stopped` return; the node ends when its context is left."""
        if self._running:
            self._refuse_work("the node is stopping")
        self._stopped.set()

    def _refuse_work(self, reason: str) -> None:
        self.edge.closed = reason
        self.reads.close(reason)

    @property
    def is_running(self) -> bool:
        """Say whether the node is started and not stopped."""
        return self._running

    def _require_running(self) -> None:
        if not self._running:
            raise NotReady("the node is not running")

    # -- peers ------------------------------------------------------------------------------------

    async def on_frames(self, peer: str, frames: list[Frame]) -> None:
        """Take frames of a member."""
        index = self.settings.membership.index(peer)
        if index is not None:
            await self.pipeline.submit(index, frames)

    def on_peer_up(self, peer: str) -> None:
        """Note that a channel to a member has opened."""
        index = self.settings.membership.index(peer)
        if index is not None and self.failure is None:
            self._take(PeerUp(self._clock.now_ms(), index))
            self._tell("peer up", peer)

    def on_peer_down(self, peer: str, reason: str) -> None:
        """Note that a channel to a member is gone."""
        index = self.settings.membership.index(peer)
        if index is not None and self.failure is None and self._tasks is not None:
            self._take(PeerDown(self._clock.now_ms(), index))
            self._tell("peer down", f"{peer}: {reason}")

    def _take(self, *events: Any) -> None:
        try:
            self.shard.take(*events)
        except Exception as error:
            self._fail(error)

    # -- clients ----------------------------------------------------------------------------------

    async def _submit(self, submissions: tuple[Submission, ...]) -> None:
        event = Submitted(self._clock.now_ms(), submissions)
        if not self.shard.inbox.send_nowait(CLIENTS, event):
            await self.shard.inbox.send(CLIENTS, event)

    async def on_client_frames(self, connection: ClientConnection, frames: list[Frame]) -> None:
        """Take frames of a client's connection."""
        await self.edge.take_frames(connection, frames, self._questions.take)

    def on_client_up(self, connection: ClientConnection) -> None:
        """Note a client that has connected."""
        self.edge.connect(connection)

    def on_client_down(self, connection: ClientConnection) -> None:
        """Note a client that is gone."""
        self.edge.disconnect(connection)

    async def submit(self, command: bytes, *, timeout: float = 10.0) -> Receipt:
        """Submit one command and wait for finality: decided by the group, executed here.

        The receipt carries the certificate of its position where the engine gives one. Raises `Rejected`,
        `Overloaded`, `OutcomeUnknown` after `timeout` seconds, `NotReady` before start and after stop.
        """
        client = await self._local_client()
        return self._proven(await client.submit(command, timeout=timeout))

    async def submit_many(self, commands: Sequence[bytes], *, timeout: float = 10.0) -> list[Receipt]:
        """Submit commands in order and wait for all of them."""
        client = await self._local_client()
        return [self._proven(receipt) for receipt in await client.submit_many(commands, timeout=timeout)]

    async def query(self, request: bytes, *, timeout: float = 5.0, stale_ok: bool = False) -> bytes:
        """Ask the state machine: its answer reflects everything that was acknowledged to anybody before the call.

        Where the engine knows how recent this node is, this node answers; elsewhere the read goes through the log.
        With `stale_ok` it answers from its state as it is, which may be old. Raises `Rejected` where the state machine
        fails at the request, `NotReady` where there is no answer within `timeout` seconds.
        """
        self._require_running()
        if stale_ok:
            return bytes(await self.application.call(self.application.executor.query, request))
        if self.settings.spec.answers_reads:
            return await self._questions.read(request, timeout)
        client = await self._local_client()
        return await client.query(request, timeout=timeout)

    def _proven(self, receipt: Receipt) -> Receipt:
        return msgspec.structs.replace(receipt, certificate=self._proofs.get(receipt.height))

    async def _local_client(self) -> Client:
        """Return the client for callers in this process, opened when it is first needed."""
        async with self._client_lock:
            if not self._running or self._tasks is None:
                raise NotReady("the node is not running")
            if self.edge.closed:
                raise NotReady(self.edge.closed)
            if self._client is None:
                self._client = await self._tasks.start(self._host_client)
            return self._client

    async def _host_client(self, *, task_status: anyio.abc.TaskStatus[Client]) -> None:
        key = SigningKey.generate()
        config = self.settings.genesis.config
        client = Client(
            key,
            client_domain(config.cluster, config.group),
            Quorum.of(FaultModel.CRASH, 1),
            LocalConnector(key.public_key, self.edge, self.submit_encoded),
            ClientSettings(names=(self.name,), max_command_bytes=config.limits.max_command_bytes),
        )
        async with client:
            task_status.started(client)
            await anyio.sleep_forever()

    async def submit_encoded(self, channel: ReplyChannel, requests: Sequence[bytes]) -> None:
        """Take encoded requests of a caller in this process; answers go to its channel."""
        self._require_running()
        await self.edge.take(channel, requests)

    async def answer_admin(self, ask: AdminAsk) -> AdminAnswer:
        """Answer a question about this node."""
        return await self._questions.answer(ask)

    # -- what happens -----------------------------------------------------------------------------

    def _on_outcome(self, outcome: Outcome) -> None:
        for job in outcome.executed:
            if job.certificate is not None:
                for height in range(job.first_height, job.first_height + len(job.refs)):
                    self._proofs[height] = job.certificate
        while len(self._proofs) > PROOFS_KEPT:
            self._proofs.popitem(last=False)
        if outcome.answers:
            self._parts.hit("application.before_reply")
            self.edge.answer(outcome.answers)
        if outcome.events:
            self._take(*outcome.events)
            self.reads.on_executed()

    def _on_report(self, report: Report) -> None:
        if report.event in EVENTS_WORTH_TELLING:
            self._tell(report.event, report.detail)
        if report.event == "diverged":
            self._fail(ApplicationError(report.detail))

    def _tell(self, kind: str, detail: str) -> None:
        event = NodeEvent(kind, detail)
        for listener in list(self._listeners):
            try:
                listener.send_nowait(event)
            except anyio.WouldBlock:
                continue
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._listeners.remove(listener)

    def _refusals(self) -> list[Refusal]:
        """List who could not connect lately, to either port."""
        ports = (self._transport, self._parts.port)
        return [
            refusal
            for port in ports
            if isinstance(port, TcpTransport | ClientPort)
            for refusal in port.refusals.latest()
        ]

    def events(self) -> MemoryObjectReceiveStream[NodeEvent]:
        """Return a stream of what happens from now on; close it when done."""
        send, receive = anyio.create_memory_object_stream[NodeEvent](EVENT_BUFFER)
        self._listeners.append(send)
        return receive

    async def status(self) -> dict[str, Any]:
        """Return what this node knows of itself, as plain values."""
        self._require_running()
        return await status_of(self, self._parts.facts, self._refusals())


def identity_of(genesis: Genesis, name: str) -> bytes:
    """Return the 32 bytes that bind a node's files to cluster, first epoch and name."""
    return sha256(b"bftkit/node\x00" + genesis.digest() + name.encode()).digest()
