"""The client: submit commands from outside, exactly once, and believe only what enough replicas say.

::

    async with Client.open("net") as client:
        receipt = await client.submit(b"...", timeout=5)

One client serves any number of tasks of one event loop: what they submit in one turn shares an envelope,
a signature and a write.
"""

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from bftkit.core.quorum import Quorum
from bftkit.errors import ClientError, NotReady, OutcomeUnknown, Overloaded, Rejected
from bftkit.replica.client_messages import Busy, ReadReply, SessionId, SessionOpened
from bftkit.replica.sessions import NONCE_BYTES
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.client_connector import Connector
from bftkit.runtime.client_questions import Questions
from bftkit.runtime.client_reads import ClientReads, Reading
from bftkit.runtime.client_session import (
    ClientSession,
    Divided,
    Executed,
    NotTaken,
    Refused,
    Run,
    Transmit,
    Unanswered,
    decode_reply,
)
from bftkit.runtime.client_settings import ClientSettings
from bftkit.runtime.clock import SystemClock
from bftkit.runtime.ordered_reads import OrderedReads
from bftkit.runtime.session_policy import reopening_pause_ms
from bftkit.wire.auth import SigningKey

TICK_S = 0.02
"""How often deadlines and retries are looked at while anything is on its way."""
GIVEN_UP = 4096
"""Commands without an answer in time whose outcome can still be asked for."""

CommandId = tuple[SessionId, int]
"""A command's session and its sequence there."""


class Receipt(msgspec.Struct, frozen=True):
    """What came of a command."""

    height: int
    """Height of the batch that it was executed in."""
    result: bytes
    """What the state machine returned for it."""
    certificate: Any
    """Proof that the height is decided; None where enough replicas have vouched for the result instead."""
    command_id: CommandId
    """Names the command for good."""


class Client:
    """One identity, its sessions, and ways to all replicas; use it as an async context manager."""

    def __init__(
        self,
        key: SigningKey,
        domain: bytes,
        quorum: Quorum,
        connector: Connector,
        settings: ClientSettings | None = None,
    ) -> None:
        """Prepare; `domain` is `client_domain(cluster, group)`."""
        settings = settings or ClientSettings()
        self.names = settings.names or tuple(f"replica {index}" for index in range(quorum.members))
        """The members' names, by index."""
        self._key = key
        self._domain = domain
        self._quorum = quorum
        self._connector = connector
        self._settings = settings
        self._clock = SystemClock()
        self._sessions = [self._new_session(index) for index in range(settings.sessions)]
        self._by_id: dict[SessionId, ClientSession] = {}
        self._losses: dict[int, int] = {}
        self._turn = 0
        self._connected: set[int] = set()
        self._down: dict[int, str] = {}
        self._given_up: dict[CommandId, tuple[Run, int]] = {}
        self._questions = Questions(quorum, self.names)
        self._reads = ClientReads(OrderedReads(key, domain, quorum, contact=settings.contact), self._send_reads)
        self._outgoing: dict[int, list[bytes]] = {}
        self._running = ""
        self._thread = 0
        self._tasks: TaskGroup | None = None

    @classmethod
    def open(cls, where: str | Path, **options: Any) -> Self:
        """Return the client that a folder written by `testnet new` (or its `client` folder) describes.

        ConfigurationError says what is wrong with its files. Options are fields of `ClientSettings`.
        """
        from bftkit.runtime.client_files import client_parts

        parts = client_parts(Path(where))
        parts["settings"] = msgspec.structs.replace(parts["settings"], **options)
        return cls(**parts)

    def _new_session(self, index: int, opens_at: int = 0) -> ClientSession:
        nonce, policy, contact = secrets.token_bytes(NONCE_BYTES), self._settings.policy, self._settings.contact + index
        return ClientSession(self._key, self._domain, nonce, self._quorum, policy, contact=contact, opens_at=opens_at)

    # -- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._running:
            raise NotReady("a client is opened once")
        self._thread = threading.get_ident()
        self._work = anyio.Event()
        self._busy = anyio.Event()
        self._opened = anyio.Event()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._running = "opening"
            await self._tasks.start(self._run_connector)
            self._tasks.start_soon(self._pump)
            self._tasks.start_soon(self._tick)
            with anyio.move_on_after(self._settings.open_timeout_s):
                await self._opened.wait()
            if not (self._opened.is_set() if self._sessions else self._connected):
                timeout = f"{self._settings.open_timeout_s:g} s"
                raise NotReady(f"the cluster was not reached within {timeout}: {self._why_not_open()}")
        except BaseException:
            await self._stop()
            raise
        self._running = "open"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        self._running = "closed"
        for session in self._sessions:
            for run in session.waiting():
                _ring(run)
        self._questions.close()
        self._reads.close()
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    async def _run_connector(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        await self._connector.run(self, task_status=task_status)

    def _why_not_open(self) -> str:
        refusals = dict.fromkeys(session.opening_refusal for session in self._sessions if session.opening_refusal)
        lines = [*refusals, *(f"{self.names[replica]}: {reason}" for replica, reason in sorted(self._down.items()))]
        return "; ".join(lines) or "no replica answers"

    # -- commands ---------------------------------------------------------------------------------

    async def submit(self, command: bytes, *, timeout: float = 10.0) -> Receipt:
        """Submit one command and wait until enough replicas have told its result.

        Raises:
            Rejected: it was not and will not be executed.
            Overloaded: it was not taken; try again after `retry_after` seconds.
            OutcomeUnknown: no answer within `timeout` seconds; `resubmit` goes on with the same command.
            NotReady: the client is not open.
        """
        self._check_state()
        self._check_command(command)
        run, offset = self._session_for(1).submit_one(command)
        self._work.set()
        return await self._receipt(run, offset, self._deadline(timeout))

    async def submit_many(self, commands: Sequence[bytes], *, timeout: float = 10.0) -> list[Receipt]:
        """Submit commands, in order, and wait for all; several of them share an envelope and its signature.

        Raises as `submit` does, for the first command that failed, after all others have their outcome too.
        """
        places, deadline = self._submit(commands, timeout)
        receipts: list[Receipt] = []
        failure: ClientError | None = None
        for run, offset, number in places:
            outcome = await self._outcome(run, deadline)
            if isinstance(outcome, Executed):
                height, session, first = outcome.height, run.session.id, run.first
                receipts += [
                    Receipt(height, outcome.results[place], None, (session, first + place))
                    for place in range(offset, offset + number)
                ]
                continue
            for place in range(offset, offset + number):
                try:
                    receipts.append(await self._receipt(run, place, deadline))
                except ClientError as error:
                    failure = failure or error
        if failure is not None:
            raise failure
        return receipts

    def _submit(self, commands: Sequence[bytes], timeout: float) -> tuple[list[tuple[Run, int, int]], int]:
        self._check_state()
        if not isinstance(commands, list | tuple):
            raise Rejected(f"commands are a list of bytes, not {type(commands).__name__}")
        if not commands:
            raise Rejected("an empty list has no commands")
        for command in commands:
            self._check_command(command)
        places = self._session_for(len(commands)).submit(commands)
        self._work.set()
        return places, self._deadline(timeout)

    async def resubmit(self, command_id: CommandId, *, timeout: float = 10.0) -> Receipt:
        """Go on waiting for a command that had no answer in time; it is still executed at most once.

        Raises as `submit` does; `Rejected` where this client has no such command.
        """
        self._check_state()
        known = self._given_up.get(command_id)
        if known is None:
            raise Rejected(f"this client waits for no command {command_id}")
        receipt = await self._receipt(*known, self._deadline(timeout))
        self._given_up.pop(command_id, None)
        return receipt

    def _check_state(self) -> None:
        if self._running != "open":
            raise NotReady("the client is closed" if self._running == "closed" else "the client is not open yet")
        if threading.get_ident() != self._thread:
            raise NotReady("this client belongs to the event loop of another thread")

    def _check_command(self, command: bytes) -> None:
        if type(command) is not bytes:
            raise Rejected(f"a command is bytes, not {type(command).__name__}")
        if not 0 < len(command) <= self._settings.max_command_bytes:
            wanted = f"at most {self._settings.max_command_bytes} bytes" if command else "at least one byte"
            raise Rejected(f"a command has {wanted}, not {len(command)}")

    def _deadline(self, timeout: float) -> int:
        return self._clock.now_ms() + max(1, round(timeout * 1000))

    def _session_for(self, commands: int) -> ClientSession:
        """Return the session whose turn it is; all tasks of one turn of the loop get the same."""
        if not self._sessions:
            raise NotReady("this client was opened for questions only")
        session = self._sessions[self._turn % len(self._sessions)]
        wait_ms = session.congested_until - self._clock.now_ms() if session.congested_until else 0
        if wait_ms > 0:
            raise Overloaded("all replicas that can be reached refuse more work", wait_ms / 1000)
        if not session.has_room(commands):
            raise Overloaded(f"{session.queued} commands wait to be sent already")
        return session

    # -- outcomes ---------------------------------------------------------------------------------

    async def _outcome(self, run: Run, deadline: int) -> Any:
        """Wait for a run's outcome; None where it does not come in time."""
        while run.outcome is None:
            if self._running == "closed" or self._clock.now_ms() >= deadline:
                return None
            if run.waiter is None:
                run.waiter = anyio.Event()
                run.patience_until = deadline
            elif deadline < run.patience_until:
                run.patience_until = deadline
            await run.waiter.wait()
        return run.outcome

    async def _receipt(self, run: Run, offset: int, deadline: int) -> Receipt:
        outcome = await self._outcome(run, deadline)
        while isinstance(outcome, Divided):
            run, offset = outcome.parts[offset], 0
            outcome = await self._outcome(run, deadline)
        command_id = run.command_id(offset)
        match outcome:
            case Executed():
                return Receipt(outcome.height, outcome.results[offset], None, command_id)
            case Refused():
                raise Rejected(outcome.reason)
            case NotTaken():
                raise Overloaded(outcome.reason, outcome.retry_after_ms / 1000)
            case Unanswered():
                raise OutcomeUnknown(command_id)
        if self._running == "closed" and not run.data:
            raise NotReady("the client was closed before the command was sent")
        self._given_up[command_id] = (run, offset)
        if len(self._given_up) > GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
        raise OutcomeUnknown(command_id)

    # -- questions --------------------------------------------------------------------------------

    async def query(self, request: bytes, *, timeout: float = 5.0, stale_ok: bool = False) -> bytes:
        """Ask the state machine: its answer reflects everything that was acknowledged to anybody before the call.

        Where the engine knows how recent a replica is and replicas do not lie, one of them answers; elsewhere the read
        goes through the log, and the answer is what enough replicas give in equal bytes. With `stale_ok` it is what
        enough of them give from their states as they are; it may be old, and nobody can say how old.

        Raises:
            Rejected: the replicas refuse the request, or the state machine fails at it.
            Overloaded: this client has too many reads open already.
            NotReady: the client is not open, or there was no answer within `timeout` seconds.
        """
        return (await self.read(request, timeout=timeout, stale_ok=stale_ok)).answer

    async def read(self, request: bytes, *, timeout: float = 5.0, stale_ok: bool = False) -> Reading:
        """Ask the state machine as `query` does; return besides how far it was."""
        self._check_state()
        if type(request) is not bytes:
            raise Rejected(f"a query is bytes, not {type(request).__name__}")
        if len(request) > self._settings.max_command_bytes:
            raise Rejected(f"a query has at most {self._settings.max_command_bytes} bytes, not {len(request)}")
        if stale_ok:
            return Reading(await self._questions.agree("query", request, self._ask, timeout), None)
        if self._settings.one_answer_is_enough:
            answer = await self._questions.first("read", request, self._ask, timeout)
            return Reading(answer.body, answer.height)
        return await self._reads.read(request, timeout)

    async def status(self, *, timeout: float = 2.0) -> list[dict[str, Any]]:
        """Ask every replica about itself; one that does not answer has `id` and `error` only."""
        self._check_state()
        found = await self._questions.ask_each("status", self._ask, timeout)
        return [
            msgspec.json.decode(answer.body, type=dict[str, Any])
            if answer is not None and answer.ok
            else {"id": name, "error": self._error_of(replica, answer)}
            for replica, (name, answer) in enumerate(zip(self.names, found, strict=True))
        ]

    async def explain(self, *, timeout: float = 2.0) -> dict[str, list[str]]:
        """Ask every replica what it waits for, in words."""
        self._check_state()
        found = await self._questions.ask_each("explain", self._ask, timeout)
        return {
            name: msgspec.json.decode(answer.body, type=list[str])
            if answer is not None and answer.ok
            else [f"It does not answer: {self._error_of(replica, answer)}."]
            for replica, (name, answer) in enumerate(zip(self.names, found, strict=True))
        }

    def _error_of(self, replica: int, answer: AdminAnswer | None) -> str:
        if answer is not None:
            return answer.body.decode("utf-8", "replace")
        return "no answer in time" if replica in self._connected else self._down.get(replica, "not connected")

    def _ask(self, replica: int, question: AdminAsk) -> bool:
        return self._connector.ask(replica, msgspec.msgpack.encode(question))

    # -- what the connector tells -----------------------------------------------------------------

    def on_up(self, replica: int) -> None:
        """Learn that a replica can be reached."""
        self._connected.add(replica)
        self._down.pop(replica, None)
        self._note_tried()
        now = self._clock.now_ms()
        for session in self._sessions:
            self._post(session.on_connected(replica, now))
        self._post(self._reads.ordered.on_connected(replica, now))
        self._deliver()
        self._busy.set()

    def on_down(self, replica: int, reason: str) -> None:
        """Learn that a replica cannot be reached."""
        self._connected.discard(replica)
        self._down[replica] = reason
        self._questions.on_down(replica)
        self._note_tried()
        now = self._clock.now_ms()
        for session in self._sessions:
            self._post(session.on_disconnected(replica, now))
        self._post(self._reads.ordered.on_disconnected(replica, now))
        self._deliver()

    def on_replies(self, replica: int, payloads: Sequence[bytes | memoryview]) -> None:
        """Count encoded replies of one replica; MalformedMessage ends the connection to it."""
        now = self._clock.now_ms()
        for payload in payloads:
            reply = decode_reply(payload)
            if isinstance(reply, ReadReply):
                self._reads.ordered.on_reply(replica, reply, payload)
                continue
            if isinstance(reply, Busy) and reply.nonce:
                self._post(self._reads.ordered.on_busy(replica, reply, now))
                continue
            session = self._by_id.get(reply.session)
            if session is not None:
                self._post(session.on_reply(replica, reply, payload, now))
                self._ring_finished(session)
                if session.lost:
                    self._replace(session)
                continue
            for session in self._sessions:
                if not session.is_open and (not isinstance(reply, SessionOpened) or reply.nonce == session.nonce):
                    self._post(session.on_reply(replica, reply, payload, now))
                    self._note_open(session)
        self._deliver()

    def on_answer(self, replica: int, answer: AdminAnswer) -> None:
        """Take the answer to a question."""
        self._questions.on_answer(replica, answer)

    def _note_tried(self) -> None:
        if not self._sessions and len(self._connected) + len(self._down) == self._quorum.members:
            self._opened.set()

    def _note_open(self, session: ClientSession) -> None:
        if session.is_open:
            self._by_id[session.id] = session
            if len(self._by_id) == len(self._sessions):
                self._opened.set()

    def _ring_finished(self, session: ClientSession) -> None:
        for run in session.take_finished():
            _ring(run)

    def _replace(self, lost: ClientSession) -> None:
        """Open another session for what was not sent yet in one that the replicas have forgotten."""
        del self._by_id[lost.id]
        place = self._sessions.index(lost)
        self._losses[place] = 0 if lost.acknowledged else self._losses.get(place, 0) + 1
        now = self._clock.now_ms()
        pause_ms = reopening_pause_ms(self._settings.policy, self._losses[place], secrets.randbelow(1_024) / 1_024)
        self._sessions[place] = session = self._new_session(place, now + pause_ms)
        session.adopt(lost.take_unsigned())
        for replica in sorted(self._connected):
            self._post(session.on_connected(replica, now))

    # -- sending ----------------------------------------------------------------------------------

    def _post(self, sends: Sequence[Transmit]) -> None:
        for send in sends:
            for replica in send.replicas:
                self._outgoing.setdefault(replica, []).append(send.data)

    def _send_reads(self, sends: Sequence[Transmit]) -> None:
        self._post(sends)
        self._deliver()
        self._busy.set()

    def _deliver(self) -> None:
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, {}
            for replica, requests in outgoing.items():
                self._connector.send(replica, requests)

    async def _pump(self) -> None:
        """Once per turn of the loop, sign and send what tasks have submitted in it."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            self._turn += 1
            now = self._clock.now_ms()
            for session in self._sessions:
                self._post(session.flush(now))
            self._deliver()
            self._busy.set()

    async def _tick(self) -> None:
        """Look at deadlines and retries while anything is on its way."""
        while True:
            await anyio.sleep(TICK_S)
            now = self._clock.now_ms()
            for session in self._sessions:
                self._post(session.on_tick(now))
                for run in session.waiting():
                    if run.waiter is not None and run.patience_until <= now:
                        _ring(run)
            self._post(self._reads.ordered.on_tick(now))
            self._deliver()
            if not self._reads.ordered.pending and not any(session.pending for session in self._sessions):
                self._busy = anyio.Event()
                await self._busy.wait()


def _ring(run: Run) -> None:
    """Wake all who wait for a run; those who still want to wait come back."""
    waiter, run.waiter = run.waiter, None
    if waiter is not None:
        waiter.set()
