"""Simulated clients: sessions, runs of commands, retries, duplicates on purpose, acknowledgements."""

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from bftkit.core.epoch import Limits
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    AnyReply,
    Busy,
    Envelope,
    OpenSession,
    ReadReply,
    Refusal,
    Reply,
    SessionId,
    SessionOpened,
    envelope_statement,
    open_session_statement,
)
from bftkit.replica.sessions import NONCE_BYTES
from bftkit.testing.reader import SimulatedReader

if TYPE_CHECKING:
    from bftkit.testing.world import World

RETRY_MS = 400
"""Pause before a request is sent again, and to somebody else."""

MOST_OPEN = 3
"""Requests that a client has under way at once."""

BUSY_US = 20_000
"""Least pause of a client that has enough under way."""

MOST_COMMANDS = 5
"""Commands in one request."""

LENGTH_BYTES = 5
"""Most that stands before a command in an encoded request."""

ENVELOPE_BYTES = 200
"""Most that stands around the commands."""

TRIES_ALONE = 2
"""Times that a request goes to one member before it goes to all."""


def longest(limits: Limits) -> int:
    """Return how long a simulated client's request may be."""
    return MOST_COMMANDS * (limits.max_command_bytes + LENGTH_BYTES) + ENVELOPE_BYTES


_Key = tuple[SessionId, int, int]


class _Open:
    """A request that is not answered by enough replicas yet."""

    __slots__ = ("data", "other", "tries", "versions", "votes")

    def __init__(self, data: bytes, versions: tuple[tuple[bytes, ...], ...] = (), other: bytes | None = None) -> None:
        self.data = data
        self.other = other
        """The same sequences with other commands: what a two-faced client sends to some members."""
        self.versions = versions
        """The commands of each version."""
        self.tries = 0
        self.votes: dict[AnyReply, set[ReplicaIndex]] = {}


class SimulatedClient:
    """One client. It believes what enough members say alike, and asks again until they do."""

    def __init__(self, world: "World", number: int, name: str, envelopes: int) -> None:
        self.name = name
        self.public_key = world.signatures.public_key(name)
        self._world = world
        self._choices = world.choices.client
        self._number = number
        self._left = envelopes
        self._domain = world.client_domain
        self._enough = world.settings.membership.quorum.weak
        self._quorum = world.settings.membership.quorum.quorum
        self._nonce = self.public_key[:NONCE_BYTES]
        self._session: SessionId | None = None
        self._opening: _Open | None = None
        self._open: dict[_Key, _Open] = {}
        self._strangers: set[ReplicaIndex] = set()
        """Members that do not know the session."""
        self._thinking = False
        self._next = 1
        self._acknowledged = 0
        self._answered: set[int] = set()
        self._members = len(world.settings.membership)
        self.reader = SimulatedReader(world, number, self.public_key)
        """Its reads."""
        self._contact = self._below("contact", self._members)
        self.acknowledged_commands = 0
        self.height = 0
        """Highest height of an answer."""

    def _below(self, what: str, bound: int) -> int:
        return self._choices.below(what, self._number, bound)

    @property
    def done(self) -> bool:
        """Say whether everything was sent and answered."""
        return self._session is not None and not self._left and not self._open and self.reader.idle

    def start(self) -> None:
        """Ask for a session."""
        self._world.checkers.asks_for_session(self._nonce)
        signature = self._world.signatures.sign(
            self.public_key, open_session_statement(self._domain, self.public_key, self._nonce)
        )
        self._opening = opening = _Open(canonical(OpenSession(self.public_key, self._nonce, signature)))
        self._try(opening, lambda: self._opening is opening)

    def _lose_session(self) -> None:
        """Give up what is under way, whose outcome stays unknown, and ask for another session and for as much again."""
        self._world.counters["sessions lost"] += 1
        self._session = None
        self._left += len(self._open)
        self._open.clear()
        self._strangers.clear()
        self._answered.clear()
        self._next, self._acknowledged = 1, 0
        self._nonce = sha256(self._nonce).digest()[:NONCE_BYTES]
        self.start()

    def _try(self, request: _Open, still: Callable[[], bool]) -> None:
        """Send a request, first to the contact, later to others, until it is answered."""
        if not still():
            return
        request.tries += 1
        if request.tries > 1:
            self._contact = self._below("contact", self._members)
        receivers = {self._contact: None}
        if request.tries > TRIES_ALONE:
            receivers.update(dict.fromkeys(range(self._members)))
        elif self._choices.chance("repeat", self._number, self._world.profile.repeat):
            receivers[self._below("contact", self._members)] = None
        # When all is healed it tells one story, or chance alone could keep it from an answer to that one.
        share = 0.5 if self._world.profile.two_faced else 0.0
        for receiver in receivers:
            other = request.other is not None and self._choices.chance("version", self._number, share)
            data = request.other if other and request.other is not None else request.data
            self._world.request(receiver, data, self)
        delay_ms = RETRY_MS + self._below("retry", RETRY_MS)
        self._world.events.due("client", self._number, delay_ms * 1_000, self._try, request, still)

    def _think(self) -> None:
        self._thinking = bool(self._left) and self._session is not None
        if not self._thinking:
            return
        pause_us = 1_000 * self._below("think", 1 + self._world.profile.think_ms)
        if len(self._open) < MOST_OPEN:
            self._left -= 1
            self._send()
            if self._choices.chance("read", self._number, self._world.profile.reads):
                self.reader.read()
        else:
            pause_us += BUSY_US
        self._world.events.due("client", self._number, pause_us, self._think)

    def _send(self) -> None:
        session = self._session
        if session is None:
            return
        count = 1 + self._below("count", MOST_COMMANDS)
        first, self._next = self._next, self._next + count
        data, commands = self._envelope(session, first, count)
        key = (session, first, count)
        if self._choices.chance("two-faced", self._number, self._world.profile.two_faced):
            self._world.hits["two_faced"] += 1
            # The same run with other commands, or one that only overlaps it: whoever wins, each sequence runs once.
            shorter = self._below("shorter", count)
            other, others = self._envelope(session, first, count - shorter)
            request = _Open(data, (commands,) if shorter else (commands, others), other)
        else:
            request = _Open(data, (commands,))
        self._open[key] = request
        self._try(request, lambda: self._open.get(key) is request)

    def _envelope(self, session: SessionId, first: int, count: int) -> tuple[bytes, tuple[bytes, ...]]:
        """Return a signed run of new commands, encoded, and the commands."""
        commands = tuple(self._world.new_command(session, first + offset) for offset in range(count))
        encoded = canonical(commands)
        statement = envelope_statement(self._domain, session, first, count, self._acknowledged, encoded)
        signature = self._world.signatures.sign(self.public_key, statement)
        envelope = Envelope(session, first, count, self._acknowledged, msgspec.Raw(encoded), signature)
        return canonical(envelope), commands

    def receive(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Count a member's reply."""
        if isinstance(reply, Busy):
            if reply.reason == UNKNOWN_SESSION and reply.session == self._session:
                self._strangers.add(member)
                if len(self._strangers) >= self._quorum:
                    self._lose_session()
            return
        if isinstance(reply, ReadReply):
            self.reader.receive(member, reply)
            return
        if isinstance(reply, SessionOpened):
            if self._opening is not None and reply.nonce == self._nonce and self._agreed(self._opening, member, reply):
                self._opening = None
                self._session = reply.session
                self._world.checkers.told(reply.session[0])
                if not self._thinking:
                    self._think()
            return
        key = (reply.session, reply.first, reply.count)
        request = self._open.get(key)
        if request is not None and self._agreed(request, member, reply):
            del self._open[key]
            self._finish(request, reply)

    def _agreed(self, request: _Open, member: ReplicaIndex, reply: AnyReply) -> bool:
        votes = request.votes.setdefault(reply, set())
        votes.add(member)
        return len(votes) >= self._enough

    def _finish(self, request: _Open, reply: Reply | Refusal) -> None:
        self._world.checkers.acknowledged(reply, request.versions)
        self._world.trace("a", self._number, reply.first, reply.count)
        if isinstance(reply, Reply):
            self.height = max(self.height, reply.height)
        if isinstance(reply, Reply) or reply.executed:
            self.acknowledged_commands += reply.count
        self._answered.update(range(reply.first, reply.first + reply.count))
        while self._acknowledged + 1 in self._answered:
            self._acknowledged += 1
            self._answered.discard(self._acknowledged)
