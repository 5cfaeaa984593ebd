"""What a client remembers and decides, sans-I/O: sequences, envelopes, tallies, retries.

Commands are gathered into *runs*. A run is signed once, as one envelope, and from then on never changes:
whatever is sent again is the same bytes, so each of its commands executes at most once. Methods take the
time in milliseconds and return what to send to whom; the caller owns sockets, clock and waiting.

The result of a run is what `Quorum.weak` replicas say in equal bytes, so at least one correct one says it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bftkit.core.ids import canonical
from bftkit.core.quorum import Quorum
from bftkit.errors import MalformedMessage
from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    Busy,
    Envelope,
    OpenSession,
    ReadReply,
    Refusal,
    ReplyMessage,
    SessionId,
    SessionOpened,
    envelope_statement,
    open_session_statement,
)
from bftkit.runtime.session_policy import SessionPolicy
from bftkit.wire.auth import SigningKey


class Executed(msgspec.Struct, frozen=True, gc=False):
    """The commands of a run were executed, once."""

    height: int
    results: tuple[bytes, ...]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """They were not and will not be executed."""

    reason: str


class Unanswered(msgspec.Struct, frozen=True, gc=False):
    """They may or may not have been executed, and no answer is to be had any more."""

    reason: str


class NotTaken(msgspec.Struct, frozen=True, gc=False):
    """No replica took them; they may be submitted again later."""

    reason: str
    retry_after_ms: int


class Divided(msgspec.Struct, frozen=True):
    """One of them is refused, so each goes on by itself, under its own sequence as before."""

    parts: tuple["Run", ...]


Outcome = Executed | Refused | Unanswered | NotTaken | Divided


class Run(msgspec.Struct, eq=False):
    """Commands with successive sequences, signed together."""

    session: "ClientSession"
    first: int
    """Sequence of the first command."""
    commands: list[bytes]
    size: int = 0
    """Bytes of the commands."""
    data: bytes = b""
    """The encoded, signed request; empty until it is sent."""
    outcome: Outcome | None = None
    waiter: Any = None
    """Whatever the caller waits on; not touched here."""
    patience_until: int = 0
    """When the least patient caller gives up; not touched here."""
    is_part: bool = False
    """Whether it was divided from an envelope that somebody else may still have ordered."""
    answers: dict[int, bytes] = {}
    """Newest answer of each replica, encoded."""
    refusals: dict[int, Busy] = {}
    """Replicas that did not take it, since it was last sent to them."""
    asked: set[int] = set()
    """Replicas that have it and have not refused it."""
    open_sends: int = 0
    """How often it was sent to a replica that has not refused it since: each of those may have it ordered."""
    retry_at: int = 0
    retry_ms: int = 0

    @property
    def last(self) -> int:
        """Return the sequence of the last command."""
        return self.first + len(self.commands) - 1

    def command_id(self, offset: int) -> tuple[SessionId, int]:
        """Name a command for good: its session and its sequence."""
        return self.session.id, self.first + offset


class Transmit(msgspec.Struct, frozen=True, gc=False):
    """An encoded request and the replicas that it goes to."""

    data: bytes
    replicas: tuple[int, ...]


class ReplyHead(ReplyMessage, frozen=True, tag=1):
    """A `Reply` whose results stay encoded: most replies are only counted."""

    session: SessionId
    first: int
    count: int
    height: int
    results: msgspec.Raw


AnyReplyHead = SessionOpened | ReplyHead | Refusal | Busy | ReadReply

SessionReply = SessionOpened | ReplyHead | Refusal | Busy
"""Those that concern a session."""

_decode_head = msgspec.msgpack.Decoder(AnyReplyHead).decode
_decode_results = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode


def decode_reply(payload: bytes | memoryview) -> AnyReplyHead:
    """Decode what a replica answered; MalformedMessage where it is no answer."""
    try:
        head: AnyReplyHead = _decode_head(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedMessage(f"not a reply: {error}") from None
    return head


class ClientSession:
    """One session of one client with all replicas of a group.

    `id` is (0, 0) until the session is open; commands may be submitted before, and wait. A session that
    the replicas do not know any more is `lost`: what was sent is `Unanswered`, what was not yet signed is
    handed over by `take_unsigned`.
    """

    def __init__(
        self,
        key: SigningKey,
        domain: bytes,
        nonce: bytes,
        quorum: Quorum,
        policy: SessionPolicy | None = None,
        *,
        contact: int = 0,
        opens_at: int = 0,
    ) -> None:
        """Make a session that asks to be opened from `opens_at` on, in the milliseconds that methods are given.

        `contact` is the replica to turn to first. See `reopening_pause_ms` for what follows one that was lost.
        """
        self.id: SessionId = (0, 0)
        self.nonce = nonce
        self.is_open = False
        self.lost = ""
        """Why the session is over; empty while it lives."""
        self.opening_refusal = ""
        """Why the session does not open, as far as a replica has said."""
        self.acknowledged = 0
        """Every sequence up to here has its outcome."""
        self.finished: list[Run] = []
        """Runs whose outcome has come; the caller takes them away with `take_finished`."""
        self.congested_until = 0
        """Until when all replicas are expected to refuse; new commands need not be tried before."""
        self._key = key
        self._domain = domain
        self._quorum = quorum
        self._policy = policy or SessionPolicy()
        self._contact = contact % quorum.members
        self._opens_at = opens_at
        self._connected: set[int] = set()
        self._next = 1
        self._queue: list[Run] = []
        self._queued = 0
        self._runs: dict[int, Run] = {}
        self._ends: dict[int, int] = {}
        self._strangers: set[int] = set()
        opening = Run(self, 0, [], data=self._open_request(), retry_at=opens_at, retry_ms=self._policy.open_retry_ms)
        self._opening = opening

    def _open_request(self) -> bytes:
        key = self._key.public_key
        signature = self._key.sign(open_session_statement(self._domain, key, self.nonce))
        return canonical(OpenSession(key, self.nonce, signature))

    # -- commands ---------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Count the commands that are not signed yet."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """Count the runs that are signed and have no outcome."""
        return len(self._runs)

    @property
    def pending(self) -> bool:
        """Say whether anything waits for time to pass."""
        return bool(self._runs or self._queue or not self.is_open) and not self.lost

    def has_room(self, commands: int) -> bool:
        """Say whether so many more commands may be submitted; a session that has nothing takes any number."""
        return not self._queued or self._queued + commands <= self._policy.queued_commands

    def submit(self, commands: Sequence[bytes]) -> list[tuple[Run, int, int]]:
        """Queue commands; return the runs that they are in, each with offset and number.

        They are signed and sent by the next `flush`, together with what others submit until then.
        """
        places: list[tuple[Run, int, int]] = []
        start = 0
        while start < len(commands):
            run = self._open_run(len(commands[start]))
            offset = len(run.commands)
            start += self._fill(run, commands, start)
            places.append((run, offset, len(run.commands) - offset))
        return places

    def submit_one(self, command: bytes) -> tuple[Run, int]:
        """Queue one command; return its run and its place there."""
        run = self._open_run(len(command))
        run.commands.append(command)
        run.size += len(command)
        self._next += 1
        self._queued += 1
        return run, len(run.commands) - 1

    def _open_run(self, size: int) -> Run:
        policy = self._policy
        if self._queue:
            run = self._queue[-1]
            if len(run.commands) < policy.run_commands and run.size + size <= policy.run_bytes:
                return run
        run = Run(self, self._next, [])
        self._queue.append(run)
        return run

    def _fill(self, run: Run, commands: Sequence[bytes], start: int) -> int:
        room = self._policy.run_commands - len(run.commands)
        taken = 0
        for command in commands[start : start + room]:
            if taken and run.size + len(command) > self._policy.run_bytes:
                break
            run.size += len(command)
            taken += 1
        run.commands.extend(commands[start : start + taken])
        self._next += taken
        self._queued += taken
        return taken

    def waiting(self) -> list[Run]:
        """List the runs that have no outcome, those in flight first."""
        return [*self._runs.values(), *self._queue]

    def take_unsigned(self) -> list[Run]:
        """Hand over the runs that were never sent."""
        queue, self._queue, self._queued = self._queue, [], 0
        return queue

    def adopt(self, runs: Iterable[Run]) -> None:
        """Take over unsent runs of a lost session under sequences of this one."""
        for run in runs:
            run.session, run.first = self, self._next
            self._next += len(run.commands)
            self._queued += len(run.commands)
            self._queue.append(run)

    def take_finished(self) -> list[Run]:
        """Return the runs whose outcome has come since the last call."""
        finished, self.finished = self.finished, []
        return finished

    # -- sending ----------------------------------------------------------------------------------

    def flush(self, now: int) -> list[Transmit]:
        """Sign what is queued, as far as the window allows, and say where it goes."""
        if not self.is_open or self.lost or not self._connected:
            return []
        sends: list[Transmit] = []
        while self._queue and self._queue[0].last <= self.acknowledged + self._policy.window:
            run = self._queue.pop(0)
            self._queued -= len(run.commands)
            sends += self._start(run, now)
        return sends

    def _start(self, run: Run, now: int) -> list[Transmit]:
        run.data = self._signed(run)
        self._runs[run.first] = run
        return self._send(run, (self._next_contact(run),), now)

    def _signed(self, run: Run) -> bytes:
        encoded = canonical(run.commands)
        count = len(run.commands)
        statement = envelope_statement(self._domain, self.id, run.first, count, self.acknowledged, encoded)
        signature = self._key.sign(statement)
        return canonical(Envelope(self.id, run.first, count, self.acknowledged, msgspec.Raw(encoded), signature))

    def _send(self, run: Run, replicas: tuple[int | None, ...], now: int) -> list[Transmit]:
        """Send a run, and set when to try again if no answer comes."""
        run.retry_ms = run.retry_ms or self._policy.retry_after_ms
        run.retry_at = now + run.retry_ms
        targets = tuple(replica for replica in replicas if replica is not None)
        for replica in targets:
            run.refusals.pop(replica, None)
            run.asked.add(replica)
        run.open_sends += len(targets)
        return [Transmit(run.data, targets)] if targets else []

    def _next_contact(self, run: Run) -> int | None:
        """Return the replica to turn to: the usual one, or the next that is there and has not refused."""
        members = self._quorum.members
        for step in range(members):
            replica = (self._contact + step) % members
            if replica in self._connected and replica not in run.refusals and replica not in run.asked:
                return replica
        return None

    def on_connected(self, replica: int, now: int) -> list[Transmit]:
        """Note that a replica can be reached; what reached nobody goes there."""
        self._connected.add(replica)
        sends: list[Transmit] = []
        for run in self._open_requests() if self.is_open or now >= self._opens_at else ():
            if not run.asked and not run.refusals:
                sends += self._send(run, (replica,), now)
        return sends + self.flush(now)

    def on_disconnected(self, replica: int, now: int) -> list[Transmit]:
        """Note that a replica cannot be reached; what only it had goes to another."""
        self._connected.discard(replica)
        sends: list[Transmit] = []
        for run in self._open_requests():
            if replica in run.asked:
                run.asked.discard(replica)
                if not run.asked:
                    sends += self._send(run, (self._next_contact(run),), now)
        return sends

    def _open_requests(self) -> list[Run]:
        if self.lost:
            return []
        return list(self._runs.values()) if self.is_open else [self._opening]

    def on_tick(self, now: int) -> list[Transmit]:
        """Send again what has waited long enough, to all replicas; call it every few milliseconds."""
        sends: list[Transmit] = []
        due = [run for run in self._open_requests() if run.retry_at <= now and self._connected]
        for run in due:
            if not run.asked and not run.refusals:
                sends += self._send(run, (self._next_contact(run),), now)
                continue
            run.refusals.clear()
            run.retry_ms = min(2 * run.retry_ms, self._policy.longest_retry_ms)
            sends += self._send(run, tuple(sorted(self._connected)), now)
        if due and self.is_open:
            # The contact may be the one who keeps requests to itself.
            self._contact = (self._contact + 1) % self._quorum.members
        return sends

    # -- answers ----------------------------------------------------------------------------------

    def on_reply(self, replica: int, reply: SessionReply, payload: bytes | memoryview, now: int) -> list[Transmit]:
        """Count one replica's answer; `payload` is its encoded form, which equal answers share."""
        match reply:
            case ReplyHead():
                run = self._runs.get(reply.first)
                if run is not None and reply.count == len(run.commands) and self._agreed(run, replica, payload):
                    return self._on_executed(run, reply, now)
            case Busy():
                return self._on_busy(replica, reply, now)
            case Refusal():
                run = self._runs.get(reply.first)
                if run is not None and reply.count == len(run.commands) and self._agreed(run, replica, payload):
                    return self._on_refused(run, reply, now)
            case SessionOpened():
                if not self.is_open and self._agreed(self._opening, replica, payload):
                    self.id, self.is_open = reply.session, True
                    return self.flush(now)
        return []

    def _agreed(self, run: Run, replica: int, payload: bytes | memoryview) -> bool:
        """Note an answer; say whether enough replicas gave the same. A replica's newer answer replaces its older."""
        answers = run.answers
        answers[replica] = payload if type(payload) is bytes else bytes(payload)
        needed = self._quorum.weak
        return needed == 1 or sum(answer == payload for answer in answers.values()) >= needed

    def _on_executed(self, run: Run, reply: ReplyHead, now: int) -> list[Transmit]:
        try:
            results = _decode_results(reply.results)
        except msgspec.DecodeError:
            results = ()
        if len(results) != len(run.commands):
            # Only liars answer so, and a correct replica was among those who agreed.
            return self._finish(run, Unanswered("the replicas' answer cannot be read"), now)
        self._strangers.clear()
        return self._finish(run, Executed(reply.height, results), now)

    def _on_refused(self, run: Run, refusal: Refusal, now: int) -> list[Transmit]:
        if refusal.executed or run.is_part:
            return self._finish(run, Unanswered(refusal.reason), now)
        return self._finish(run, Refused(refusal.reason), now)

    def _finish(self, run: Run, outcome: Outcome, now: int) -> list[Transmit]:
        del self._runs[run.first]
        self._ends[run.first] = run.last
        while self.acknowledged + 1 in self._ends:
            self.acknowledged = self._ends.pop(self.acknowledged + 1)
        self._conclude(run, outcome)
        return self.flush(now)

    def _conclude(self, run: Run, outcome: Outcome) -> None:
        run.outcome = outcome
        run.answers, run.refusals, run.data = {}, {}, b""
        self.finished.append(run)

    # -- refusals by single replicas --------------------------------------------------------------

    def _on_busy(self, replica: int, busy: Busy, now: int) -> list[Transmit]:
        run = self._runs.get(busy.first) if self.is_open else self._opening
        if run is None or (busy.session != self.id) or self.lost:
            return []
        run.refusals[replica] = busy
        run.open_sends -= 1
        if run is self._opening:
            self.opening_refusal = busy.reason
        run.asked.discard(replica)
        if self.is_open and busy.reason == UNKNOWN_SESSION:
            self._strangers.add(replica)
            if len(self._strangers) >= self._quorum.quorum:
                return self._lose("the replicas do not know the session any more")
        if self.is_open and not busy.retry_after_ms and self._refused_by_enough(run, busy.reason):
            return self._reject(run, busy.reason, now)
        if run.asked:
            return []
        contact = self._next_contact(run)
        if contact is not None:
            return self._send(run, (contact,), now)
        return self._on_all_busy(run, busy, now)

    def _refused_by_enough(self, run: Run, reason: str) -> bool:
        same = [busy for busy in run.refusals.values() if not busy.retry_after_ms and busy.reason == reason]
        return len(same) >= self._quorum.weak

    def _reject(self, run: Run, reason: str, now: int) -> list[Transmit]:
        """Refuse a single command; of several, find out which it is by sending each alone."""
        if len(run.commands) == 1:
            return self._finish(run, Refused(reason), now)
        del self._runs[run.first]
        parts = tuple(
            Run(self, run.first + offset, [command], len(command), is_part=True)
            for offset, command in enumerate(run.commands)
        )
        run.outcome = Divided(parts)
        self.finished.append(run)
        return [send for part in parts for send in self._start(part, now)]

    def _on_all_busy(self, run: Run, busy: Busy, now: int) -> list[Transmit]:
        """Everybody who can be reached refused: wait a while, or give up where nobody can have kept a copy."""
        pause = max(1, *(known.retry_after_ms for known in run.refusals.values()))
        self.congested_until = max(self.congested_until, now + pause)
        # A liar may refuse it and order it later; whoever gave no answer may have passed it on before it crashed.
        is_certain = run.open_sends <= 0 and not run.is_part
        if self.is_open and self._quorum.weak == 1 and is_certain and len(run.refusals) == self._quorum.members:
            return self._finish(run, NotTaken(busy.reason, pause), now)
        run.retry_at = now + pause
        return []

    def _lose(self, reason: str) -> list[Transmit]:
        self.lost = reason
        for run in list(self._runs.values()):
            del self._runs[run.first]
            self._conclude(run, Unanswered(reason))
        return []
