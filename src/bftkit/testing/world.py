"""The world of one schedule: time, members, network, clients, and what happens to them."""

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

from bftkit.core.engine import EngineSpec
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.core.quorum import FaultModel
from bftkit.errors import ConfigurationError, StorageError
from bftkit.replica.client_messages import AnyReply, client_domain, decode_request
from bftkit.replica.dissemination import BEYOND_QUOTA
from bftkit.replica.execution import Answer
from bftkit.replica.outputs import Report
from bftkit.runtime.admin_messages import AdminAnswer
from bftkit.runtime.client_edge import place_of
from bftkit.testing.adversary import AdversarialHeap
from bftkit.testing.checkers import Checkers, Violation
from bftkit.testing.choices import Choices, Name
from bftkit.testing.client import SimulatedClient
from bftkit.testing.clock import EventHeap
from bftkit.testing.disk import CrashMode
from bftkit.testing.fault_atlas import FaultAtlas, Spare, is_memory
from bftkit.testing.frames import FrameCodec
from bftkit.testing.invariants import load_invariants
from bftkit.testing.journal import Journal
from bftkit.testing.liars import Liars, choose_liars
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
        liars: Liars | None = None,
    ) -> None:
        """Make the world of a seed, in which nothing has happened yet.

        `profile` is a name that `draw_profile` knows, drawn from the seed, or a fixed one; `engine` is the name of an
        installed engine, or a specification. Without `options` an engine with timeouts gets ones that are short beside
        the faults, and those of `settings`. `journal` takes what happens for people to read. `record` writes down every
        decision, `decisions` are those to follow in place of the seed's: see `Choices`.

        `liars` are members that lie, each with the name of one of the `BEHAVIOURS` or a function, beside those that the
        profile draws: all together no more than the engine tolerates. The atlas of rot knows of them.

        EngineError for an engine that is not installed; ConfigurationError for what it does not take or tolerate.
        """
        spec = spec_of(engine)
        expect_possible(spec, replicas)
        said = (seed, engine, replicas, profile, settings, workload, options)
        self.replay = replay_line(*said) if decisions is None else ""
        """What makes such a world again and plays it; empty where it follows decisions, which no line can hold."""
        profile = profile_of(profile, seed)
        options = usual_options(spec, settings) if options is None else options
        self.profile = self.drawn = profile
        self.choices = choices = Choices(seed, record=record, decisions=decisions)
        self.hits: Tally[str] = Tally()
        """What went wrong, by class of fault, counted when it did."""
        self.events = self._event_heap(profile)
        self.signatures: Signatures = RealSignatures() if profile.real_signatures else SignatureRegistry()
        workload = workload or Workload()
        self.make_machine, self.make_query = workload.make_machine, workload.make_query
        self.healed = False
        self.counters: Tally[str] = Tally()
        """What members report and do, by name."""
        self._journal = journal
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[tuple[Any, ...]] = []
        self._tokens = 0
        self._senders: dict[int, tuple[Listener, bytes]] = {}
        """Who sent the request of a token, and the request."""
        self._commands = 0
        self._make_command, self._command_random = workload.make_command, choices.random("commands")
        every = every_settings(spec, replicas, options, workload.limits, profile, self.signatures)
        self.settings = every[0]
        self.client_domain = client_domain(CLUSTER, self.settings.genesis.config.group)
        self.checkers = self._make_checkers()
        self.nodes = [SimulatedNode(self, settings, index) for index, settings in enumerate(every)]
        """The instances; the first of each member stands at its index, a twin behind all of them."""
        self.instances: list[tuple[int, ...]] = [(index,) for index in range(replicas)]
        """For each member, its instances."""
        self.liars: list[ReplicaIndex] = []
        """Members that say what they like; twins are honest one by one."""
        choose_liars(self, liars or {})
        self.atlas = self._atlas()
        """Which disks may rot: no more members lose their memory than may lie."""
        self.network = self._network(journal)
        self.clients = self._make_clients()
        self._by_key = {client.public_key: client for client in self.clients}
        self.faults = chosen_faults(draw_faults(profile, replicas, choices.random("plan")), choices.crash)

    def _event_heap(self, profile: Profile) -> EventHeap:
        if not profile.adversarial:
            return EventHeap()
        return AdversarialHeap(self.choices.order, profile.duration_ms * 1_000, self.hits)

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
        if journal is not None:
            journal.peek = FrameCodec(self.settings, self.signatures.verify).peek
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
        network.liars = self.liars
        return network

    @property
    def tolerated(self) -> int:
        """Count the members that may lie or forget: none where the engine tolerates crashes only."""
        byzantine = self.settings.spec.fault_model is FaultModel.BYZANTINE
        return self.settings.membership.quorum.faults if byzantine else 0

    # -- phases -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all members and clients, and let the faults come."""
        at_first_start = [fault for fault in self.faults if waits_for_first_start(fault)]
        for fault in at_first_start:
            self.unless_healed(self._inflict, fault)
        for node in self.nodes:
            node.start()
        for number, client in enumerate(self.clients):
            self.events.after(self.choices.client.below("start", number, 50_000), client.start)
        for fault in [fault for fault in self.faults if fault not in at_first_start]:
            self.events.after(fault.at_us, self.unless_healed, self._inflict, fault)

    def unless_healed(self, function: Callable[..., None], *arguments: Any) -> None:
        """Let a fault begin now: this is how every one does, and none once everything has healed."""
        if not self.healed:
            function(*arguments)

    def _inflict(self, fault: Fault) -> None:
        self.trace("f", fault.members[0], fault.number, fault.kind)
        inflict(self, fault)

    def heal(self) -> None:
        """End every fault, and start whoever is down, unless it has stopped for good.

        Of more clients than there are sessions, with one kept for who comes next, the rest leave: they would take the
        sessions from each other for ever.
        """
        self.healed = True
        self.profile = CALM
        self.events.keep_time()
        self.network.calm_down(CALM)
        for node in self.nodes:
            node.no_more_faults()
            if not node.alive and not node.stopped:
                node.start()
        for client in self.clients[max(0, self.settings.limits.max_sessions - 1) :]:
            client.leave()

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
        self._loses(node, path)
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

    def damage(self, member: ReplicaIndex, path: str) -> None:
        """Flip a bit of a member's file, and crash the member, so that it reads what is left.

        ConfigurationError where the atlas does not allow it: whoever is among `atlas.victims` may lose anything, and
        `Profile.spare` says what else may be lost.
        """
        if not self.atlas.may_damage(member, path):
            may = ", ".join(f"n{victim}" for victim in self.atlas.victims) or "nobody"
            raise ConfigurationError(f"{path} of n{member} may not be damaged: {may} may lose everything in this run")
        node, random = self.nodes[member], self.choices.random("damage", member, self.events.now_us)
        node.disk.flip_bit(path, random=random, then=partial(self._rotted, node, "bit_flips"))
        self._loses(node, path)
        if node.alive:
            self.crashed(node)

    def _loses(self, node: SimulatedNode, path: str) -> None:
        """Note that what stands in a member's file may be lost."""
        node.rotten = True
        if is_memory(path):
            node.forgetful = True
            self.checkers.suspects.setdefault(node.index, "its disk was damaged")
        else:
            self.checkers.robbed.setdefault(node.index, "a snapshot was damaged")

    def _rotted(self, node: SimulatedNode, kind: str, fault: Fault | None = None) -> None:
        """Count damage that somebody met; a member that wrote to the wrong place crashes soon, so that it reads it."""
        self.hits[kind] += 1
        if fault is not None:
            node.later(1 + fault.number % SOON_US, self.unless_healed, self.crashed, node, fault)

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
        return bool(self.checkers.robbed) and self.faulty > self.tolerated

    @property
    def faulty(self) -> int:
        """Count the members on whom nobody can rely: they lie, may have forgotten what they signed, or have stopped."""
        return len({node.index for node in self.nodes if node.stopped or node.index in self.checkers.suspects})

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
            self._carry("requests", member, self.nodes[instance].submit, self._tokens, data)

    def answer(self, member: ReplicaIndex, answer: Answer) -> None:
        """Carry a member's answer to the client whom it concerns, or lose it."""
        client = self._by_key.get(answer.public_key)
        if client is not None:
            self._carry("answers", member, client.receive, member, answer.reply)

    def read(self, member: ReplicaIndex, public_key: bytes, data: bytes) -> None:
        """Carry a client's question to the one member whom it believes, or lose it."""
        for instance in self.instances[member]:
            self._carry("requests", member, self.nodes[instance].read, public_key, data)

    def answer_read(self, member: ReplicaIndex, public_key: bytes, answer: AdminAnswer) -> None:
        """Carry that member's answer back, or lose it."""
        client = self._by_key.get(public_key)
        if client is not None:
            self._carry("answers", member, client.reader.answered, answer)

    def refused(self, member: ReplicaIndex, token: int, reason: str, retry_after_ms: int = 0) -> None:
        """Carry a member's refusal of a request to whoever sent it, or lose it."""
        self.counters[f"refused: {reason}"] += 1
        known = self._senders.get(token)
        if known is not None:
            listener, data = known
            busy = place_of(decode_request(data)).busy(reason, retry_after_ms)
            self._carry("answers", member, listener.receive, member, busy)

    def _carry(self, kind: str, member: ReplicaIndex, function: Callable[..., None], *arguments: Any) -> None:
        stream, profile = self.choices.links, self.profile
        if stream.chance("loss", member, profile.loss):
            return
        least, spread = profile.link_us
        delay_us = least + spread * stream.below("delay", member, FINE) // FINE
        self.events.due(kind, member, delay_us, function, *arguments)

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
