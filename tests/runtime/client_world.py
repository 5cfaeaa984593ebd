"""Replicas without consensus for tests of clients: one shared log, real executors, and a network that misbehaves."""

from random import Random

from bftkit.core.batch import make_batch
from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.membership import Member
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.errors import Rejected
from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    Busy,
    Envelope,
    ReadReply,
    ReadRequest,
    Reply,
    client_domain,
    decode_commands,
    decode_request,
)
from bftkit.replica.execution import Executor
from bftkit.runtime.client_session import ClientSession, decode_reply
from bftkit.runtime.session_policy import SessionPolicy
from bftkit.wire.auth import SigningKey, verify

BAD = b"bad"
"""A command that every replica refuses before it is ordered."""


class Diary:
    """A state machine that writes everything down and answers with the place."""

    def __init__(self):
        self.entries = []

    def apply(self, batch):
        self.entries.extend(batch.commands)
        count = len(self.entries)
        return [b"%d" % (count - len(batch.commands) + offset) for offset in range(len(batch.commands))]

    def snapshot(self):
        return canonical(self.entries)

    def restore(self, data):
        raise NotImplementedError

    def query(self, request):
        if request == BAD:
            raise ValueError(id(self))
        return b"%d entries, %s" % (len(self.entries), request)

    def check(self, command):
        if command == BAD:
            raise Rejected("a bad command")


def make_genesis(members=4, fault_model=FaultModel.BYZANTINE, limits=None):
    return Genesis(
        EpochConfig(
            "test",
            0,
            0,
            "none",
            "1",
            fault_model,
            b"",
            tuple(Member(f"n{index}", bytes([index + 1]) * 32) for index in range(members)),
            limits or Limits(),
        ),
        EMPTY_CHECKPOINT,
    )


class World:
    """One client session, some replicas, and messages on their way."""

    def __init__(
        self, seed=0, members=4, fault_model=FaultModel.BYZANTINE, policy=None, limits=None, liars=(), opens_at=0
    ):
        self.random = Random(seed)
        genesis = make_genesis(members, fault_model, limits)
        self.key = SigningKey(bytes([7]) * 32)
        self.quorum = Quorum.of(fault_model, members)
        self.now = 1000
        self.domain = client_domain("test", 0)
        self.session = ClientSession(
            self.key, self.domain, bytes(16), self.quorum, policy or SessionPolicy(), opens_at=opens_at
        )
        self.diaries = [Diary() for _ in range(members)]
        self.executors = [Executor(diary, genesis, verify) for diary in self.diaries]
        self.log = []
        self.to_replicas = []
        self.to_client = []
        self.busy: dict[int, tuple[str, int] | None] = dict.fromkeys(range(members))
        self.silent = set()
        self.liars = set(liars)
        self.sent = []

    def send(self, transmits):
        for transmit in transmits:
            self.sent.append(transmit)
            self.to_replicas += [(replica, transmit.data) for replica in transmit.replicas]

    def connect(self, *replicas):
        for replica in replicas or range(self.quorum.members):
            self.send(self.session.on_connected(replica, self.now))

    def flush(self):
        self.send(self.session.flush(self.now))

    def tick(self, milliseconds=50):
        self.now += milliseconds
        self.send(self.session.on_tick(self.now))

    def replica_takes(self, replica, data):
        request = decode_request(data)
        place = (request.session, request.first) if isinstance(request, Envelope) else ((0, 0), 0)
        if replica in self.silent:
            return
        busy = self.busy[replica]
        if busy is not None:
            nonce = request.nonce if isinstance(request, ReadRequest) else b""
            self.to_client.append((replica, canonical(Busy(*place, *busy, nonce))))
            return
        if isinstance(request, ReadRequest) and replica in self.liars:
            self.to_client.append((replica, canonical(ReadReply(request.nonce, 1, b"lie"))))
        if isinstance(request, Envelope):
            if replica in self.liars:
                lie = Reply(request.session, request.first, request.count, 1, (b"lie",) * request.count)
                self.to_client.append((replica, canonical(lie)))
            if any(command == BAD for command in decode_commands(request.commands)):
                self.to_client.append((replica, canonical(Busy(*place, "a bad command"))))
                return
            if self.executors[replica].sessions.get(request.session) is None:
                self.to_client.append((replica, canonical(Busy(*place, UNKNOWN_SESSION, 100))))
                return
        count = request.count if isinstance(request, Envelope) else 1
        self.log.append(make_batch(0, replica, [bytes(data)], count))

    def execute(self, replica):
        executor = self.executors[replica]
        while executor.height < len(self.log):
            body = self.log[executor.height]
            for answer in executor.execute(body.ref, body.blob, executor.height + 1):
                if replica not in self.silent:
                    self.to_client.append((replica, canonical(answer.reply)))

    def deliver_to_replicas(self):
        messages, self.to_replicas = self.to_replicas, []
        for replica, data in messages:
            self.replica_takes(replica, data)

    def deliver_to_client(self):
        messages, self.to_client = self.to_client, []
        for replica, payload in messages:
            self.send(self.session.on_reply(replica, decode_reply(payload), payload, self.now))

    def settle(self, rounds=30):
        """Deliver everything, faithfully, until nothing moves."""
        for _ in range(rounds):
            self.deliver_to_replicas()
            for replica in range(self.quorum.members):
                self.execute(replica)
            self.deliver_to_client()
            if not (self.to_replicas or self.to_client):
                return

    def scramble(self):
        """Do one thing that a network or a machine may do."""
        draw = self.random.random()
        queue = self.to_replicas if self.random.random() < 0.5 else self.to_client
        if queue and draw < 0.15:
            queue.pop(self.random.randrange(len(queue)))
        elif queue and draw < 0.25:
            queue.append(self.random.choice(queue))
        elif queue and draw < 0.35:
            self.random.shuffle(queue)
        elif draw < 0.55:
            self.deliver_to_replicas()
        elif draw < 0.70:
            self.execute(self.random.randrange(self.quorum.members))
        elif draw < 0.85:
            self.deliver_to_client()
        elif draw < 0.9:
            self.tick(self.random.choice((10, 300, 3000)))
        elif draw < 0.95:
            replica = self.random.randrange(self.quorum.members)
            self.send(self.session.on_disconnected(replica, self.now))
            self.send(self.session.on_connected(replica, self.now))
        else:
            replica = self.random.randrange(self.quorum.members)
            self.busy[replica] = None if self.busy[replica] else ("overloaded", 100)

    def heal(self):
        """Be faithful from now on."""
        self.busy = dict.fromkeys(self.busy, None)
        for _ in range(40):
            self.flush()
            self.settle()
            if not self.session.pending:
                return
            self.tick(3000)


def outcome_of(run, offset):
    """Follow a command through divided runs."""
    outcome = run.outcome
    while type(outcome).__name__ == "Divided":
        run, offset = outcome.parts[offset], 0
        outcome = run.outcome
    return outcome, offset


def envelope_of(data):
    """Decode a request that is an envelope."""
    request = decode_request(data)
    assert isinstance(request, Envelope)
    return request
