"""The world of one schedule: time, members, network, clients, and what happens to them."""

from collections import Counter as Tally
from collections.abc import Callable
from hashlib import blake2b, sha256
from random import Random
from typing import Any

from bftkit.batteries.counter import Counter
from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.engine import EngineSpec
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.membership import Member
from bftkit.replica.client_messages import client_domain
from bftkit.replica.execution import Answer
from bftkit.replica.outputs import Report
from bftkit.replica.settings import ReplicaSettings, ReplicaTuning
from bftkit.replica.state_machine import StateMachine
from bftkit.testing.checkers import Checkers
from bftkit.testing.client import SimulatedClient
from bftkit.testing.clock import EventHeap
from bftkit.testing.disk import CrashMode
from bftkit.testing.nemesis import Fault, draw_faults, inflict
from bftkit.testing.network import Network
from bftkit.testing.node import SimulatedNode
from bftkit.testing.profile import CALM, Profile
from bftkit.testing.signing import SignatureRegistry

RESTART_US = 50_000
"""How long a member stays down whose crash nobody planned."""

_CLUSTER = "simulated"


class Streams:
    """One random stream for each concern, so that a change of one leaves the others as they were."""

    def __init__(self, seed: int) -> None:
        self.network = Random(f"{seed}/network")
        self.disk = Random(f"{seed}/disk")
        self.faults = Random(f"{seed}/faults")
        self.client = Random(f"{seed}/client")
        self.links = Random(f"{seed}/links")
        """Between clients and members."""
        self.jitter = Random(f"{seed}/jitter")


class World:
    """Everything there is in one run. `start` it, let its `events` happen, `heal` it, look at it."""

    def __init__(
        self,
        seed: int,
        spec: EngineSpec,
        replicas: int,
        profile: Profile,
        *,
        options: Any = None,
        make_machine: Callable[[], StateMachine] = Counter,
        keep_trace: bool = False,
    ) -> None:
        self.profile = profile
        self.streams = Streams(seed)
        self.events = EventHeap()
        self.registry = SignatureRegistry()
        self.checkers = Checkers()
        self.make_machine = make_machine
        self.healed = False
        self.counters: Tally[str] = Tally()
        self.history: list[tuple[Any, ...]] | None = [] if keep_trace else None
        """Everything that was traced, when it is kept."""
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[tuple[Any, ...]] = []
        self._tokens = 0
        self._commands = 0
        genesis = _genesis(spec, replicas, profile, options)
        self.nodes = [
            SimulatedNode(self, ReplicaSettings(index, spec, genesis, options, _tuning(profile)))
            for index in range(replicas)
        ]
        self.network = Network(
            replicas, profile, self.streams.network, self.events, self._deliver, self._channel_changed
        )
        self._client_domain = client_domain(_CLUSTER, genesis.config.group)
        self._weak = self.nodes[0].settings.membership.quorum.weak
        self.clients = [self._client(f"client {number}", profile.envelopes) for number in range(profile.clients)]
        self._by_key = {client.public_key: client for client in self.clients}
        self.faults = draw_faults(profile, replicas, self.streams.faults)

    def _client(self, name: str, envelopes: int) -> SimulatedClient:
        return SimulatedClient(self, name, envelopes, self._client_domain, self._weak)

    # -- phases -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all members and clients, and let the faults come."""
        for node in self.nodes:
            node.start()
        for client in self.clients:
            self.events.after(self.streams.client.randrange(50_000), client.start)
        for fault in self.faults:
            self.events.after(fault.at_us, inflict, self, fault)

    def heal(self) -> None:
        """End every fault, and start whoever is down."""
        self.healed = True
        self.profile = CALM
        self.network.calm_down(CALM)
        for node in self.nodes:
            node.no_more_faults()
            if not node.alive:
                node.start()

    def add_client(self, name: str, envelopes: int) -> SimulatedClient:
        """Let one more client come."""
        client = self._client(name, envelopes)
        self.clients.append(client)
        self._by_key[client.public_key] = client
        client.start()
        return client

    # -- members ----------------------------------------------------------------------------------

    def started(self, node: SimulatedNode) -> None:
        """Note that a member runs."""
        self.trace("s", node.index, node.life, node.log.next_index)
        self.network.start(node.index)

    def crashed(self, node: SimulatedNode, fault: Fault | None = None) -> None:
        """Crash a member now, and start it again later."""
        fault = fault or node.next_crash
        node.next_crash = None
        mode = fault.mode if fault is not None else CrashMode.NOTHING
        self.trace("c", node.index, node.life, mode.value)
        self.counters["crashes"] += 1
        node.crash(mode)
        self.network.crash(node.index)
        self.events.after(fault.lasts_us if fault is not None else RESTART_US, self._restart, node, node.life)

    def _restart(self, node: SimulatedNode, life: int) -> None:
        if node.life == life and not node.alive:
            node.start()

    def reported(self, node: SimulatedNode, report: Report) -> None:
        """Take what a member's replica reports."""
        self.counters[report.event] += 1
        self.trace("r", node.index, 0, report.event)
        if node.honest and not any(not other.honest for other in self.nodes):
            self.checkers.reported(node.index, report)

    def _deliver(self, sender: ReplicaIndex, receiver: ReplicaIndex, message: Any) -> None:
        self.nodes[receiver].deliver(sender, message)

    def _channel_changed(self, member: ReplicaIndex, peer: ReplicaIndex, up: bool) -> None:
        self.nodes[member].channel(peer, up)

    # -- clients ----------------------------------------------------------------------------------

    def new_command(self) -> bytes:
        """Return a command unlike all others."""
        self._commands += 1
        command = b"%d" % self._commands
        self.checkers.submitted(command)
        return command

    def request(self, member: ReplicaIndex, data: bytes) -> None:
        """Carry a client's request to a member, or lose it."""
        self._tokens += 1
        self._carry(self.nodes[member].submit, self._tokens, data)

    def answer(self, member: ReplicaIndex, answer: Answer) -> None:
        """Carry a member's answer to the client whom it concerns, or lose it."""
        client = self._by_key.get(answer.public_key)
        if client is not None:
            self._carry(client.receive, member, answer.reply)

    def _carry(self, function: Callable[..., None], *arguments: Any) -> None:
        random, profile = self.streams.links, self.profile
        if profile.loss and random.random() < profile.loss:
            return
        least, spread = profile.link_us
        self.events.after(least + int(spread * random.random()), function, *arguments)

    # -- the trace --------------------------------------------------------------------------------

    def trace(self, kind: str, who: int, number: int, what: Any) -> None:
        """Add one line to the run's trace."""
        line = (self.events.now_us, kind, who, number, what)
        self._unhashed.append(line)
        if self.history is not None:
            self.history.append(line)
        if len(self._unhashed) >= 1_024:
            self._hash_trace()

    def _hash_trace(self) -> None:
        self._hash.update(canonical(self._unhashed))
        self._unhashed.clear()

    @property
    def trace_hash(self) -> str:
        """Return the hash of the whole trace up to now: equal for equal runs, on any machine."""
        self._hash_trace()
        return self._hash.hexdigest()


def _genesis(spec: EngineSpec, replicas: int, profile: Profile, options: Any) -> Genesis:
    members = tuple(Member(f"n{index:02}", sha256(b"member %d" % index).digest()) for index in range(replicas))
    config = EpochConfig(
        cluster=_CLUSTER,
        group=0,
        epoch=0,
        engine=spec.name,
        engine_version=spec.version,
        fault_model=spec.fault_model,
        options=canonical(options),
        members=members,
        limits=Limits(
            max_command_bytes=64,
            max_batch_bytes=2_048,
            checkpoint_interval=profile.checkpoint_interval,
            max_sessions=64,
        ),
    )
    return Genesis(config, EMPTY_CHECKPOINT)


def _tuning(profile: Profile) -> ReplicaTuning:
    return ReplicaTuning(
        batches_in_flight=2,
        max_batches_in_flight=6,
        sync_entries=8,
        snapshot_positions=profile.snapshot_positions,
        snapshot_chunk_bytes=256,
    )
