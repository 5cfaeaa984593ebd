"""Simulated clients: the real session between a will of its own and a network that loses things.

Sequences, signatures, tallies and retries are those of `ClientSession`. What is added here is what users do: requests
at odd moments, some of them to several members at once, and clients that tell two stories.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, cast

import msgspec

from bftkit.core.epoch import Limits
from bftkit.core.ids import ReplicaIndex, canonical
from bftkit.replica.client_messages import (
    AnyReply,
    Busy,
    Envelope,
    ReadReply,
    Refusal,
    Reply,
    SessionOpened,
    envelope_statement,
)
from bftkit.replica.sessions import NONCE_BYTES
from bftkit.runtime.client_session import (
    ClientSession,
    Divided,
    NotTaken,
    Refused,
    Run,
    SessionReply,
    Transmit,
    decode_reply,
)
from bftkit.runtime.session_policy import SessionPolicy, reopening_pause_ms
from bftkit.testing.reader import SimulatedReader
from bftkit.testing.signing import SimulatedKey
from bftkit.wire.auth import SigningKey

if TYPE_CHECKING:
    from bftkit.testing.world import World

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

FINE = 1_024
"""In how many steps a pause is drawn."""

TICK_US = 50_000
"""How often is looked whether a request goes out again, while there are any."""

POLICY = SessionPolicy(run_commands=MOST_COMMANDS, retry_after_ms=400, open_retry_ms=200, longest_retry_ms=800)
"""As users have it, but for retries that come soon beside the bound for healing.

The window is wider than many a group's, so that what is beyond a group's window is sent, and refused.
"""


def longest(limits: Limits) -> int:
    """Return how long a simulated client's request may be."""
    return MOST_COMMANDS * (limits.max_command_bytes + LENGTH_BYTES) + ENVELOPE_BYTES


_Commands = tuple[bytes, ...]


class SimulatedClient:
    """One client. It believes what its session believes, and tells the checkers what that is."""

    def __init__(self, world: "World", number: int, name: str, envelopes: int) -> None:
        self.name = name
        self.public_key = world.signatures.public_key(name)
        self._world = world
        self._choices = world.choices.client
        self._number = number
        self._left = envelopes
        self._members = len(world.settings.membership)
        self._nonce = self.public_key[:NONCE_BYTES]
        self._losses = 0
        """Sessions that were lost in a row before they served."""
        self._session: ClientSession | None = None
        self._versions: dict[tuple[int, int], list[_Commands]] = {}
        """For each run of this session, by first sequence and count, its commands: two lists from the two-faced."""
        self._others: dict[bytes, bytes] = {}
        """For requests of this session, the same sequences with other commands, which some members get."""
        self._copied: set[int] = set()
        """First sequences of the runs that members got besides those whom the session knows to have them."""
        self._ticking = self._thinking = self._has_left = False
        self.reader = SimulatedReader(world, number, self.public_key)
        """Its reads."""
        self.acknowledged_commands = 0
        self.height = 0
        """Highest height of an answer."""

    def _below(self, what: str, bound: int) -> int:
        return self._choices.below(what, self._number, bound)

    @property
    def _now_ms(self) -> int:
        return self._world.events.now_us // 1_000

    @property
    def done(self) -> bool:
        """Say whether everything was sent and answered, or this client has left."""
        session = self._session
        return self._has_left or (session is not None and not session.pending and not self._left and self.reader.idle)

    def leave(self) -> None:
        """Ask for nothing any more, and wait for no answer."""
        self._has_left = True
        self._session, self._left = None, 0

    def start(self, pause_ms: int = 0) -> None:
        """Ask for a session, at once or later."""
        world = self._world
        world.checkers.asks_for_session(self._nonce)
        contact = self._below("contact", self._members)
        key = cast(SigningKey, SimulatedKey(world.signatures, self.public_key))
        quorum = world.settings.membership.quorum
        opens_at = self._now_ms + pause_ms
        self._session = session = ClientSession(
            key, world.client_domain, self._nonce, quorum, POLICY, contact=contact, opens_at=opens_at
        )
        for step in range(self._members):
            member = (contact + step) % self._members
            if world.is_up(member):
                self._post(session.on_connected(member, self._now_ms))
        self._tick_later()

    def channel(self, member: ReplicaIndex, up: bool) -> None:
        """Note that the connection to a member is there, or gone."""
        session = self._session
        if session is not None:
            turn = session.on_connected if up else session.on_disconnected
            self._post(turn(member, self._now_ms))

    # -- sending ----------------------------------------------------------------------------------

    def _post(self, sends: list[Transmit]) -> None:
        for send in sends:
            for member in send.replicas:
                self._world.request(member, self._version(send.data), self)
            chance = self._world.profile.repeat
            if len(send.replicas) == 1 and self._choices.chance("repeat", self._number, chance):
                self._copied.update(first for first, _ in self._versions)
                self._world.request(self._below("contact", self._members), self._version(send.data))

    def _version(self, data: bytes) -> bytes:
        """Return a request as a member gets it. When all is healed the two-faced tell one story.

        Chance alone could keep them from an answer to that one.
        """
        other = self._others.get(data)
        share = 0.5 if self._world.profile.two_faced else 0.0
        return other if other is not None and self._choices.chance("version", self._number, share) else data

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._world.events.due("client", self._number, TICK_US, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        session = self._session
        if session is not None and session.pending:
            self._post(session.on_tick(self._now_ms))
            self._tick_later()

    # -- requests ---------------------------------------------------------------------------------

    def _begin_thinking(self, pause_us: int) -> None:
        if not self._thinking:
            self._thinking = True
            self._world.events.due("client", self._number, pause_us, self._think)

    def _think(self) -> None:
        session = self._session
        if not self._left or session is None or not session.is_open:
            self._thinking = False
            return
        pause_us = 1_000 * self._below("think", 1 + self._world.profile.think_ms)
        if session.in_flight < MOST_OPEN and self._world.somebody_is_up:
            self._left -= 1
            self._send(session)
            if self._choices.chance("read", self._number, self._world.profile.reads):
                self.reader.read()
        else:
            pause_us += BUSY_US
        self._world.events.due("client", self._number, pause_us, self._think)

    def _send(self, session: ClientSession) -> None:
        commands = self._new_commands(1 + self._below("count", MOST_COMMANDS))
        ((run, _, _),) = session.submit(commands)
        self._note(session, run.first, commands)
        sends = session.flush(self._now_ms)
        if self._choices.chance("two-faced", self._number, self._world.profile.two_faced):
            self._world.hits["two_faced"] += 1
            # The same run with other commands, or one that only overlaps it: whoever wins, each sequence runs once.
            others = self._new_commands(len(commands) - self._below("shorter", len(commands)))
            self._note(session, run.first, others)
            self._others[run.data] = self._envelope(session, run.first, others)
            self._copied.add(run.first)
        self._post(sends)
        self._tick_later()

    def _new_commands(self, count: int) -> list[bytes]:
        return [self._world.new_command() for _ in range(count)]

    def _note(self, session: ClientSession, first: int, commands: list[bytes]) -> None:
        """Remember what was submitted under which sequences."""
        for offset, command in enumerate(commands):
            self._world.checkers.submitted(command, session.id, first + offset)
        self._versions.setdefault((first, len(commands)), []).append(tuple(commands))

    def _envelope(self, session: ClientSession, first: int, commands: list[bytes]) -> bytes:
        """Return a signed run, encoded, of which the session knows nothing."""
        encoded, count, acknowledged = canonical(commands), len(commands), session.acknowledged
        statement = envelope_statement(self._world.client_domain, session.id, first, count, acknowledged, encoded)
        signature = self._world.signatures.sign(self.public_key, statement)
        return canonical(Envelope(session.id, first, count, acknowledged, msgspec.Raw(encoded), signature))

    # -- answers ----------------------------------------------------------------------------------

    def receive(self, member: ReplicaIndex, reply: AnyReply) -> None:
        """Take a member's reply."""
        if isinstance(reply, ReadReply) or (isinstance(reply, Busy) and reply.nonce):
            self.reader.receive(member, reply)
            return
        session = self._session
        if session is None or (isinstance(reply, SessionOpened) and reply.nonce != session.nonce):
            return
        if not isinstance(reply, SessionOpened) and reply.session != session.id:
            return
        payload = canonical(reply)
        was_open = session.is_open
        self._post(session.on_reply(member, cast(SessionReply, decode_reply(payload)), payload, self._now_ms))
        self._finish(session.take_finished(), reply)
        if session.lost:
            self._replace(session)
        elif session.is_open and not was_open:
            self._world.checkers.acknowledged(SessionOpened(session.nonce, session.id), ())
            self._begin_thinking(0)
        elif self._left:
            self._begin_thinking(BUSY_US)

    def _finish(self, runs: list[Run], reply: AnyReply) -> None:
        for run in runs:
            match run.outcome:
                case Divided():
                    for part in run.outcome.parts:
                        self._versions.setdefault((part.first, 1), []).append(tuple(part.commands))
                case NotTaken():
                    self._left += 1
                    self._refused(run, run.outcome.reason)
                case Refused() if isinstance(reply, Busy):
                    self._refused(run, run.outcome.reason)
                case _ if isinstance(reply, Reply | Refusal):
                    self._answered(run, reply)
                case _:
                    self._left += 1  # its session is lost, and its outcome stays unknown

    def _refused(self, run: Run, reason: str) -> None:
        """Hold the session to its word that nobody took a run, as far as it knows of all who got it."""
        if run.first not in self._copied:
            refusal = Refusal(run.session.id, run.first, len(run.commands), reason)
            self._world.checkers.acknowledged(refusal, (tuple(run.commands),))

    def _answered(self, run: Run, reply: Reply | Refusal) -> None:
        """Let the checkers judge an answer that the session believes.

        A part is not refused for good: the envelope that it comes from may be ordered all the same.
        """
        if run.is_part and isinstance(reply, Refusal) and not reply.executed:
            return
        self._world.checkers.acknowledged(reply, tuple(self._versions[run.first, len(run.commands)]))
        self._world.trace("a", self._number, reply.first, reply.count)
        if isinstance(reply, Reply):
            self.height = max(self.height, reply.height)
        if isinstance(reply, Reply) or reply.executed:
            self.acknowledged_commands += reply.count

    def _replace(self, lost: ClientSession) -> None:
        """Ask for another session, in which as much again is asked for as was under way."""
        self._world.counters["sessions lost"] += 1
        self._losses = 0 if lost.acknowledged else self._losses + 1
        self._left += len(lost.take_unsigned())
        self._versions.clear()
        self._others.clear()
        self._copied.clear()
        self._nonce = sha256(self._nonce).digest()[:NONCE_BYTES]
        self.start(reopening_pause_ms(POLICY, self._losses, self._below("reopen", FINE) / FINE))
