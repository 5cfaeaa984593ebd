"""Simulated clients: sessions, runs of commands, retries, duplicates on purpose, acknowledgements."""

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.replica.client_messages import (
    AnyReply,
    Busy,
    Envelope,
    OpenSession,
    Refusal,
    Reply,
    SessionId,
    SessionOpened,
    envelope_statement,
    open_session_statement,
)
from bftkit.replica.sessions import NONCE_BYTES

if TYPE_CHECKING:
    from bftkit.testing.world import World

RETRY_MS = 400
"""Pause before a request is sent again, and to somebody else."""

MOST_OPEN = 3
"""Requests that a client has under way at once."""

MOST_COMMANDS = 5
"""Commands in one request."""

_Key = tuple[SessionId, int, int]


class _Open:
    """A request that is not answered by enough replicas yet."""

    __slots__ = ("commands", "data", "tries", "votes")

    def __init__(self, data: bytes, commands: tuple[bytes, ...]) -> None:
        self.data = data
        self.commands = commands
        self.tries = 0
        self.votes: dict[AnyReply, set[ReplicaIndex]] = {}


class SimulatedClient:
    """One client. It believes what enough members say alike, and asks again until they do."""

    def __init__(self, world: "World", name: str, envelopes: int, domain: bytes, enough: int) -> None:
        self.name = name
        self.public_key = sha256(name.encode()).digest()
        self._world = world
        self._random = world.streams.client
        self._left = envelopes
        self._domain = domain
        self._enough = enough
        self._nonce = self.public_key[:NONCE_BYTES]
        self._session: SessionId | None = None
        self._opening: _Open | None = None
        self._open: dict[_Key, _Open] = {}
        self._next = 1
        self._acknowledged = 0
        self._answered: set[int] = set()
        self._contact = self._random.randrange(len(world.nodes))
        self.acknowledged_commands = 0
        self.height = 0
        """Highest height of an answer."""

    @property
    def done(self) -> bool:
        """Say whether everything was sent and answered."""
        return self._session is not None and not self._left and not self._open

    def start(self) -> None:
        """Ask for a session."""
        signature = self._world.registry.sign(
            self.public_key, open_session_statement(self._domain, self.public_key, self._nonce)
        )
        self._opening = _Open(canonical(OpenSession(self.public_key, self._nonce, signature)), ())
        self._try(self._opening, lambda: self._session is None)

    def _try(self, request: _Open, still: Callable[[], bool]) -> None:
        """Send a request, first to the contact, later to others, until it is answered."""
        if not still():
            return
        members = len(self._world.nodes)
        request.tries += 1
        if request.tries > 1:
            self._contact = self._random.randrange(members)
        receivers = {self._contact: None}
        if request.tries > 2 or self._random.random() < self._world.profile.repeat:
            receivers.update(dict.fromkeys(range(members) if request.tries > 2 else (self._random.randrange(members),)))
        for receiver in receivers:
            self._world.request(receiver, request.data)
        delay_ms = RETRY_MS + self._random.randrange(RETRY_MS)
        self._world.events.after(delay_ms * 1_000, self._try, request, still)

    def _think(self) -> None:
        if not self._left:
            return
        if len(self._open) < MOST_OPEN:
            self._left -= 1
            self._send()
        pause_us = 1_000 * self._random.randrange(1 + self._world.profile.think_ms)
        self._world.events.after(pause_us, self._think)

    def _send(self) -> None:
        session = self._session
        if session is None:
            return
        count = self._random.randint(1, MOST_COMMANDS)
        commands = [self._world.new_command() for _ in range(count)]
        encoded = canonical(commands)
        first, self._next = self._next, self._next + count
        statement = envelope_statement(self._domain, session, first, count, self._acknowledged, encoded)
        signature = self._world.registry.sign(self.public_key, statement)
        envelope = Envelope(session, first, count, self._acknowledged, msgspec.Raw(encoded), signature)
        key = (session, first, count)
        request = self._open[key] = _Open(canonical(envelope), tuple(commands))
        self._try(request, lambda: self._open.get(key) is request)

    def receive(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Count a member's reply."""
        if isinstance(reply, Busy):
            return
        if isinstance(reply, SessionOpened):
            if self._opening is not None and reply.nonce == self._nonce and self._agreed(self._opening, member, reply):
                self._opening = None
                self._session = reply.session
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
        self._world.checkers.acknowledged(reply, request.commands)
        self._world.trace("a", int.from_bytes(self.public_key[:2], "big"), reply.first, reply.count)
        if isinstance(reply, Reply):
            self.height = max(self.height, reply.height)
        self.acknowledged_commands += reply.count
        self._answered.update(range(reply.first, reply.first + reply.count))
        while self._acknowledged + 1 in self._answered:
            self._acknowledged += 1
            self._answered.discard(self._acknowledged)
