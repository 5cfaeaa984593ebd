"""The world of one schedule: time, members, network, clients, and what happens to them."""

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

from bftkit.core.engine import EngineSpec
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.outputs import Broadcast, Send
from bftkit.errors import StorageError
from bftkit.replica.client_messages import AnyReply, client_domain, decode_request
from bftkit.replica.dissemination import BEYOND_QUOTA
from bftkit.replica.execution import Answer
from bftkit.replica.outputs import Report
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.admin_messages import AdminAnswer
from bftkit.runtime.client_edge import place_of
from bftkit.testing.byzantine import Said, draw_behaviour, make_behaviour
from bftkit.testing.checkers import Checkers, Violation
from bftkit.testing.choices import Choices, Name
from bftkit.testing.client import SimulatedClient
from bftkit.testing.clock import EventHeap
from bftkit.testing.disk import CrashMode
from bftkit.testing.fault_atlas import FaultAtlas, Spare, is_memory
from bftkit.testing.frames import FrameCodec
from bftkit.testing.invariants import load_invariants
from bftkit.testing.journal import Journal
from bftkit.testing.machine import tagged
from bftkit.testing.machine_beside import MachineBeside
from bftkit.testing.nemesis import Fault, chosen_faults, draw_faults, inflict, waits_for_first_start
from bftkit.testing.network import FINE, Network
from bftkit.testing.node import SimulatedNode
from bftkit.testing.profile import CALM, Profile, profile_of
from bftkit.testing.replay import replay_line
from bftkit.testing.signing import RealSignatures, SignatureRegistry, Signatures
from bftkit.testing.specs import Settings, expect_possible, spec_of, usual_options
from bftkit.testing.workload import Workload
from bftkit.testing.world_settings import CLUSTER, every_settings

RESTART_US = 50_000
"""How long a member stays down whose crash nobody planned."""

SOON_US = 30_000
"""How long after a write to the wrong place a member crashes at the latest."""

_MODE_HITS = {
    CrashMode.KILL: "processes killed",
    CrashMode.NOTHING: "writes lost",
    CrashMode.PREFIX: "writes cut off",
    CrashMode.TORN: "writes torn",
    CrashMode.REORDERED: "writes reordered",
}


class Listener(Protocol):
    """Who has sent a request."""

    def receive(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Take a member's answer."""
        ...


class World:
    """Everything there is in one run. `start` it, let its `events` happen, `heal` it, look at it.

    `bftkit.testing.finish` does all of that, and says what came of it.
    """

    def __init__(  # noqa: PLR0913  # which run, of what, and what to do with it: all but the seed has a default
        self,
        seed: int,
        profile: str | Profile = "all",
        *,
        engine: str | EngineSpec = "pbft",
        replicas: int = 4,
        options: Any = None,
        settings: Settings = (),
        workload: Workload | None = None,
        journal: Journal | None = None,
        record: bool = False,
        decisions: Mapping[Name, int] | None = None,
    ) -> None:
        """Make the world of a seed, in which nothing has happened yet.

        `profile` is a name that `draw_profile` knows, drawn from the seed, or a fixed one; `engine` is the name of an
        installed engine, or a specification. Without `options` an engine with timeouts gets ones that are short beside
        the faults, and those of `settings`. `journal` takes what happens for people to read. `record` writes down every
        decision, `decisions` are those to follow in place of the seed's: see `Choices`.

        ConfigurationError for a profile that nobody knows, options or a group that the engine does not take;
        EngineError for an engine that is not installed.
        """
        spec = spec_of(engine)
        expect_possible(spec, replicas)
        said = (seed, engine, replicas, profile, settings, workload, options)
        self.replay = replay_line(*said) if decisions is None else ""
        """What makes such a world again and plays it; empty where it follows decisions, which no line can hold."""
        profile = profile_of(profile, seed)
        options = usual_options(spec, settings) if options is None else options
        self.profile = self.drawn = profile
        self.choices = Choices(seed, record=record, decisions=decisions)
        self.events = EventHeap()
        self.signatures: Signatures = RealSignatures() if profile.real_signatures else SignatureRegistry()
        workload = workload or Workload()
        self.make_machine, self.make_query = workload.make_machine, workload.make_query
        self.healed = False
        self.counters: Tally[str] = Tally()
        """What members report and do, by name."""
        self.hits: Tally[str] = Tally()
        """What went wrong, by class of fault, counted when it did."""
        self._journal = journal
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[tuple[Any, ...]] = []
        self._tokens = 0
        self._senders: dict[int, tuple[Listener, bytes]] = {}
        """Who sent the request of a token, and the request."""
        self._commands = 0
        self._make_command = workload.make_command
        self._command_random = self.choices.random("commands")
        every = every_settings(spec, replicas, options, workload.limits, profile, self.signatures)
        self.settings = every[0]
        if journal is not None:
            journal.peek = FrameCodec(self.settings, self.signatures.verify).peek
        self.client_domain = client_domain(CLUSTER, self.settings.genesis.config.group)
        self.checkers = self._make_checkers()
        self.nodes = [SimulatedNode(self, settings, index) for index, settings in enumerate(every)]
        """The instances; the first of each member stands at its index, a twin behind all of them."""
        self.instances: list[tuple[int, ...]] = [(index,) for index in range(replicas)]
        """For each member, its instances."""
        self._liars: list[int] = []
        self._choose_liars(every)
        self.atlas = self._atlas()
        """Which disks may rot: no more members lose their memory than may lie."""
        self.network = self._network(journal)
        self.clients = self._make_clients()
        self._by_key = {client.public_key: client for client in self.clients}
        plan = draw_faults(profile, replicas, self.choices.random("plan"))
        self.faults = chosen_faults(plan, self.choices.crash)

    def _atlas(self) -> FaultAtlas:
        random = self.choices.random("atlas")
        return FaultAtlas(
            len(self.instances), self.tolerated, random, spare=self.profile.spare, faulty=self.checkers.suspects
        )

    def _make_clients(self) -> list[SimulatedClient]:
        envelopes = self.profile.envelopes
        return [SimulatedClient(self, number, f"client {number}", envelopes) for number in range(self.profile.clients)]

    def _make_checkers(self) -> Checkers:
        settings = self.settings
        invariants = load_invariants(settings.spec.name, len(settings.membership))
        must_answer = self.make_query is not None
        beside = MachineBeside(self.make_machine(), self.make_machine, must_answer=must_answer)
        return Checkers(beside, invariants, settings, self.signatures.verify)

    def _network(self, journal: Journal | None) -> Network:
        network = Network(
            len(self.nodes),
            self.profile,
            self.choices.network,
            self.events,
            self._deliver,
            self._channel_changed,
            self.hits,
            journal,
        )
        network.liars = self._liars
        return network

    def _choose_liars(self, every: list[ReplicaSettings]) -> None:
        """Let as many members lie as the profile wants and the engine tolerates."""
        random = self.choices.random("liars")
        most = min(self.profile.liars, self.tolerated)
        for number, index in enumerate(random.sample(range(len(every)), most)):
            name = draw_behaviour(random)
            if not self.choices.byzantine.chance("liar", index, 1.0):
                continue
            if self.profile.twins and number == 0:
                self.distrust(index, "twins")
                self.instances[index] = (index, len(self.nodes))
                twin = SimulatedNode(self, every[index], len(self.nodes))
                twin.honest = False
                twin.rewrite = partial(self._twin_says, twin)
                self.nodes.append(twin)
                continue
            self.let_lie(index, name)

    def distrust(self, index: ReplicaIndex, why: str) -> None:
        """Let a member be one that need not keep to the rules."""
        self.nodes[index].honest = False
        self.checkers.suspects[index] = why
        for node in self.nodes:
            node.verify_stage.hash_bodies = True

    def _twin_says(self, twin: SimulatedNode, outputs: list[Any]) -> list[Any]:
        """Note that the second instance of a member says something for the first time."""
        if any(isinstance(output, Send | Broadcast) for output in outputs):
            self.hits["byzantine: twins"] += 1
            twin.rewrite = None
        return outputs

    def let_lie(self, index: ReplicaIndex, name: str) -> None:
        """Let a member behave in one of the ways of `bftkit.testing.byzantine`."""
        self.distrust(index, name)
        node = self.nodes[index]
        behave = make_behaviour(
            name,
            spec=self.settings.spec,
            own=index,
            members=len(self.settings.membership),
            random=self.choices.random("behaviour", index),
        )

        def speak_until_it_lies(to: ReplicaIndex, message: Any) -> Said:
            said = behave(to, message)
            if node.speak is speak_until_it_lies and said != [(to, message)]:
                self.hits[f"byzantine: {name}"] += 1
                node.speak = behave
            return said

        node.speak = speak_until_it_lies
        self._liars.append(index)

    @property
    def tolerated(self) -> int:
        """Count the members that may lie or forget: none where the engine tolerates crashes only."""
        quorum = self.settings.membership.quorum
        return quorum.faults if quorum.weak > 1 else 0

    # -- phases -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all members and clients, and let the faults come."""
        at_first_start = [fault for fault in self.faults if waits_for_first_start(fault)]
        for fault in at_first_start:
            self._inflict(fault)
        for node in self.nodes:
            node.start()
        for number, client in enumerate(self.clients):
            self.events.after(self.choices.client.below("start", number, 50_000), client.start)
        for fault in [fault for fault in self.faults if fault not in at_first_start]:
            self.events.after(fault.at_us, self._inflict, fault)

    def _inflict(self, fault: Fault) -> None:
        self.trace("f", fault.members[0], fault.number, fault.kind)
        inflict(self, fault)

    def heal(self) -> None:
        """End every fault, and start whoever is down, unless it has stopped for good."""
        self.healed = True
        self.profile = CALM
        self.network.calm_down(CALM)
        for node in self.nodes:
            node.no_more_faults()
            if not node.alive and not node.stopped:
                node.start()

    def add_client(self, name: str, envelopes: int) -> SimulatedClient:
        """Let one more client come."""
        client = SimulatedClient(self, len(self.clients), name, envelopes)
        self.clients.append(client)
        self._by_key[client.public_key] = client
        client.start()
        return client

    # -- members ----------------------------------------------------------------------------------

    def started(self, node: SimulatedNode) -> None:
        """Note that a member runs."""
        self.trace("s", node.instance, node.life, node.log.next_index)
        self.network.start(node.instance)
        self._connection_changed(node.index)

    def crashed(self, node: SimulatedNode, fault: Fault | None = None) -> None:
        """Crash a member now, and start it again later."""
        fault = fault or node.plan.fault
        mode = fault.mode if fault is not None else CrashMode.NOTHING
        self.trace("c", node.instance, node.life, mode.value)
        self.counters["crashes"] += 1
        if node.crash(mode) or mode is CrashMode.KILL:
            self.hits[_MODE_HITS[mode]] += 1
        self.network.crash(node.instance)
        self._connection_changed(node.index)
        self.events.after(fault.lasts_us if fault is not None else RESTART_US, self._restart, node, node.life)

    def stopped(self, node: SimulatedNode, reason: str) -> None:
        """Let a member whose disk was damaged stop for good: it says why, and does not go on."""
        node.stopped = reason
        self.trace("e", node.instance, node.life, "stopped")
        self.counters["stopped for good"] += 1
        node.crash(CrashMode.KILL)
        self.network.crash(node.instance)
        self._connection_changed(node.index)

    def forgot(self, node: SimulatedNode, what: str) -> None:
        """Note that a member came up without what it took for durable: damage may do that, and nothing else.

        More members than may be faulty must not go on like that: it is what their operators have to know.
        """
        if not node.forgetful:
            raise Violation(what)
        if self.drawn.spare is Spare.NOTHING:
            raise StorageError(f"{what}: after such damage it comes back as a new member")

    def _restart(self, node: SimulatedNode, life: int) -> None:
        if node.life == life and not node.alive and not node.stopped:
            node.start()

    def rot(self, fault: Fault) -> None:
        """Damage what a member's disk holds, where the atlas allows it, and crash it, so that it reads what is left."""
        random = self.choices.random("rot", fault.number)
        whole = self.nodes[: len(self.instances)]
        filled = [
            [] if node.stopped else [path for path, content in node.disk.contents().items() if content]
            for node in whole
        ]
        chosen = self.atlas.choose(filled, random)
        if chosen is None:
            return
        node, path = whole[chosen[0]], chosen[1]
        node.rotten = True
        if is_memory(path):
            node.forgetful = True
            self.checkers.suspects.setdefault(node.index, "its disk was damaged")
        else:
            self.checkers.robbed.setdefault(node.index, "a snapshot was damaged")
        count = partial(self._rotted, node)
        # What goes to the wrong place may end up in anybody's memory.
        kinds = ("bit_flips", "misdirected_reads", "misdirected_writes")[: 3 if is_memory(path) else 2]
        match random.choice(kinds):
            case "bit_flips":
                node.disk.flip_bit(path, random=random, then=partial(count, "bit_flips"))
            case "misdirected_reads":
                node.disk.misdirect_read(
                    path, 1 + fault.number % 3, random=random, then=partial(count, "misdirected_reads")
                )
            case _:
                again = partial(count, "misdirected_writes", fault)
                node.disk.misdirect_write(path, 1 + fault.number % 3, random=random, then=again)
                return
        if node.alive:
            self.crashed(node, fault)

    def _rotted(self, node: SimulatedNode, kind: str, fault: Fault | None = None) -> None:
        """Count damage that somebody met; a member that wrote to the wrong place crashes soon, so that it reads it."""
        self.hits[kind] += 1
        if fault is not None:
            node.later(1 + fault.number % SOON_US, self.crashed, node, fault)

    def spoilt(self, node: SimulatedNode, sender: ReplicaIndex) -> None:
        """Note that a frame did not survive its way: the connection that it came over breaks."""
        self.counters["spoilt frames"] += 1
        for instance in self.instances[sender]:
            self.network.reset(node.instance, instance)

    @property
    def may_halt(self) -> bool:
        """Say whether the group need not go on: what it would need may be gone, or too many refuse to do without.

        A member whose log does not reach back to an older snapshot refuses to start when it loses the newest one.
        """
        if self.drawn.spare is Spare.NOTHING:
            return any(node.rotten for node in self.nodes)
        gone = {node.index for node in self.nodes if node.stopped or node.index in self.checkers.suspects}
        return bool(self.checkers.robbed) and len(gone) > self.tolerated

    def is_trusted(self, member: ReplicaIndex) -> bool:
        """Say whether what a member sends must be well-formed."""
        return member not in self.checkers.suspects

    def reported(self, node: SimulatedNode, report: Report) -> None:
        """Take what a member's replica reports."""
        self.counters[report.event] += 1
        if report.detail == BEYOND_QUOTA:
            self.counters[f"refused: {BEYOND_QUOTA}"] += 1
        self.trace("r", node.instance, 0, report.event)
        if node.honest and not node.rotten:
            self.checkers.reported(node.index, report)

    def post(self, sender: int, receivers: tuple[ReplicaIndex, ...], message: Any) -> None:
        """Carry a message from an instance to every instance of some members."""
        for receiver in receivers:
            for instance in self.instances[receiver]:
                self.network.send(sender, instance, message)

    def _deliver(self, sender: int, receiver: int, message: Any) -> None:
        self.nodes[receiver].deliver(self.nodes[sender].index, message)

    def _channel_changed(self, instance: int, peer: int, up: bool) -> None:
        if self.nodes[peer].index != self.nodes[instance].index:
            self.nodes[instance].channel(self.nodes[peer].index, up)

    # -- clients ----------------------------------------------------------------------------------

    def new_command(self) -> bytes:
        """Return a command unlike all others."""
        self._commands += 1
        return tagged(self._commands, self._make_command(self._command_random))

    def is_up(self, member: ReplicaIndex) -> bool:
        """Say whether clients can connect to a member."""
        return any(self.nodes[instance].alive for instance in self.instances[member])

    @property
    def somebody_is_up(self) -> bool:
        """Say whether clients can connect to any member."""
        return any(map(self.is_up, range(len(self.instances))))

    def _connection_changed(self, member: ReplicaIndex) -> None:
        """Let clients notice that a member has come up, or is down."""
        for client in self.clients:
            client.channel(member, self.is_up(member))

    def request(self, member: ReplicaIndex, data: bytes, listener: "Listener | None" = None) -> None:
        """Carry a client's request to a member, or lose it; who listens hears of a refusal."""
        self._tokens += 1
        if listener is not None:
            self._senders[self._tokens] = listener, data
        for instance in self.instances[member]:
            self._carry(member, self.nodes[instance].submit, self._tokens, data)

    def answer(self, member: ReplicaIndex, answer: Answer) -> None:
        """Carry a member's answer to the client whom it concerns, or lose it."""
        client = self._by_key.get(answer.public_key)
        if client is not None:
            self._carry(member, client.receive, member, answer.reply)

    def read(self, member: ReplicaIndex, public_key: bytes, data: bytes) -> None:
        """Carry a client's question to the one member whom it believes, or lose it."""
        for instance in self.instances[member]:
            self._carry(member, self.nodes[instance].read, public_key, data)

    def answer_read(self, member: ReplicaIndex, public_key: bytes, answer: AdminAnswer) -> None:
        """Carry that member's answer back, or lose it."""
        client = self._by_key.get(public_key)
        if client is not None:
            self._carry(member, client.reader.answered, answer)

    def refused(self, member: ReplicaIndex, token: int, reason: str, retry_after_ms: int = 0) -> None:
        """Carry a member's refusal of a request to whoever sent it, or lose it."""
        self.counters[f"refused: {reason}"] += 1
        known = self._senders.get(token)
        if known is not None:
            listener, data = known
            busy = place_of(decode_request(data)).busy(reason, retry_after_ms)
            self._carry(member, listener.receive, member, busy)

    def _carry(self, member: ReplicaIndex, function: Callable[..., None], *arguments: Any) -> None:
        stream, profile = self.choices.links, self.profile
        if stream.chance("loss", member, profile.loss):
            return
        least, spread = profile.link_us
        self.events.after(least + spread * stream.below("delay", member, FINE) // FINE, function, *arguments)

    # -- the trace --------------------------------------------------------------------------------

    def trace(self, kind: str, who: int, number: int, what: Any) -> None:
        """Add one line to the run's trace."""
        line = (self.events.now_us, kind, who, number, what)
        self._unhashed.append(line)
        if self._journal is not None:
            self._journal.line(*line)
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

    @property
    def steps(self) -> int:
        """Count the inputs that all replicas have handled."""
        return sum(node.steps for node in self.nodes)
