"""Executing decided batches: decode, check, apply, remember what was answered.

The executor belongs to the application stage, beside the consensus loop. What it does depends on the
log alone, so all correct replicas give the same results and reach the same roots.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef, CommittedBatch
from bftkit.core.epoch import Genesis
from bftkit.core.ids import DIGEST_BYTES, PUBLIC_KEY_BYTES, canonical
from bftkit.errors import ApplicationError, StorageError
from bftkit.replica.client_messages import (
    AnyReply,
    AnyRequest,
    Envelope,
    OpenSession,
    ReadRequest,
    Refusal,
    SessionId,
    SessionOpened,
    client_domain,
    decode_batch,
    decode_commands,
    request_statement,
)
from bftkit.replica.log_reads import NO_QUERIES, BatchReads, is_well_formed
from bftkit.replica.sessions import NONCE_BYTES, Session, SessionTable
from bftkit.replica.state_machine import StateMachine

VerifySignature = Callable[[bytes, bytes, bytes], bool]
"""Takes public key, statement, signature; must give the same verdict on every replica."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply and whom it is for."""

    public_key: bytes
    reply: AnyReply


class _SnapshotState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What a snapshot holds."""

    height: int
    sessions: bytes
    application: bytes


class _Accepted(msgspec.Struct, gc=False):
    """An envelope of the batch at hand that is going to be executed."""

    session: Session
    envelope: Envelope
    start: int
    """Index of its first command among those of the batch."""


class _Turn(msgspec.Struct):
    """What one batch has brought together so far."""

    height: int
    commands: list[bytes] = []
    taken: dict[SessionId, list[tuple[int, int]]] = {}
    """Runs of sequences, first and last, that are executed in this batch: disjoint and ascending."""


_snapshots = msgspec.msgpack.Decoder(_SnapshotState)


class Executor:
    """The replicated state: the user's state machine and the client sessions."""

    def __init__(self, application: StateMachine, genesis: Genesis, verify: VerifySignature) -> None:
        self._application = application
        self._epoch = genesis.config.epoch
        self._limits = genesis.config.limits
        self._domain = client_domain(genesis.config.cluster, genesis.config.group)
        self._verify = verify
        self.sessions = SessionTable(self._limits)
        self.height = genesis.start.height
        """Height of the last batch that was executed."""

    def execute(self, ref: BatchRef, blob: bytes | memoryview, height: int) -> list[Answer]:
        """Execute one batch at its height; return what to tell which clients.

        ApplicationError where the state machine raises or does not give one result for each command.
        """
        if height != self.height + 1:
            raise ApplicationError(f"height {height} does not follow {self.height}")
        self.height = height
        requests = self._open(ref, blob)
        answers: list[Answer | None] = [None] * len(requests)
        accepted: list[tuple[int, _Accepted]] = []
        reads: list[tuple[int, ReadRequest]] = []
        turn = _Turn(height)
        for index, (request, own) in enumerate(requests):
            if isinstance(request, OpenSession):
                answers[index] = self._open_session(request, height, index)
                continue
            if isinstance(request, ReadRequest):
                reads.append((index, request))
                continue
            outcome = self._admit(request, own, turn)
            if isinstance(outcome, _Accepted):
                accepted.append((index, outcome))
            else:
                answers[index] = outcome
        results = self._apply(height, turn.commands) if turn.commands else []
        for index, entry in accepted:
            envelope = entry.envelope
            part = tuple(results[entry.start : entry.start + envelope.count])
            reply = self.sessions.finish(entry.session, envelope.first, height, part)
            answers[index] = Answer(entry.session.public_key, reply)
        for index, answer in self._read(height, reads):
            answers[index] = answer
        return [each for each in answers if each is not None]

    def _read(self, height: int, reads: list[tuple[int, ReadRequest]]) -> Iterator[tuple[int, Answer]]:
        """Answer the reads of a batch, each once, from the state after its commands; nothing changes by that."""
        batch = BatchReads(self._application, height, self._limits.max_command_bytes)
        answered: set[tuple[bytes, bytes]] = set()
        for index, request in reads:
            name = request.public_key, request.nonce
            if name not in answered and is_well_formed(request) and self._is_signed(request):
                answered.add(name)
                yield index, Answer(request.public_key, batch.answer(request))

    def _is_signed(self, request: OpenSession | ReadRequest) -> bool:
        return self._verify(request.public_key, request_statement(self._domain, request), request.signature)

    def _open(self, ref: BatchRef, blob: bytes | memoryview) -> list[tuple[AnyRequest, list[bytes]]]:
        """Decode a batch; one that is malformed or lies about its count holds nothing, for everybody alike.

        Commands that are no list of byte strings void the batch too. What is nested too deeply may be refused
        here or there, depending on the interpreter; so both places must have the same effect.
        """
        try:
            requests = decode_batch(blob)
            commands = [
                decode_commands(request.commands) if isinstance(request, Envelope) else [] for request in requests
            ]
        except (msgspec.DecodeError, RecursionError):
            return []
        count = sum(request.count if isinstance(request, Envelope) else 1 for request in requests)
        return list(zip(requests, commands, strict=True)) if count == ref.count else []

    def _open_session(self, request: OpenSession, height: int, index: int) -> Answer | None:
        if len(request.public_key) != PUBLIC_KEY_BYTES or len(request.nonce) != NONCE_BYTES:
            return None
        if not self._is_signed(request):
            return None
        session = self.sessions.open(request.public_key, request.nonce, height, index)
        return Answer(request.public_key, SessionOpened(request.nonce, session.id))

    def _admit(self, envelope: Envelope, commands: list[bytes], turn: _Turn) -> _Accepted | Answer | None:
        session = self.sessions.get(envelope.session)
        if session is None:
            return None
        if not self._verify(session.public_key, request_statement(self._domain, envelope), envelope.signature):
            return None
        first, count = envelope.first, envelope.count
        taken = turn.taken.setdefault(session.id, [])
        if _overlaps(taken, first, first + count - 1):
            # The envelope that took them is answered at the end of this batch.
            return None
        known = self.sessions.admit(session, first, count, envelope.acknowledged)
        if known is not None:
            return Answer(session.public_key, known)
        problem = self._commands_problem(commands, count)
        if problem is not None:
            return Answer(session.public_key, Refusal(session.id, first, count, problem))
        insort(taken, (first, first + count - 1))
        self.sessions.begin(session, first, count, envelope.acknowledged, turn.height)
        start = len(turn.commands)
        turn.commands.extend(commands)
        return _Accepted(session, envelope, start)

    def _commands_problem(self, commands: list[bytes], count: int) -> str | None:
        if len(commands) != count:
            return "the envelope does not hold as many commands as it says"
        longest = self._limits.max_command_bytes
        if any(len(command) > longest for command in commands):
            return f"a command is longer than {longest} bytes"
        return None

    def _apply(self, height: int, commands: list[bytes]) -> list[bytes]:
        try:
            results: Any = self._application.apply(CommittedBatch(self._epoch, height, commands))
        except Exception as error:
            raise ApplicationError(f"the state machine raised at height {height}: {error!r}") from error
        if not isinstance(results, list | tuple) or not set(map(type, results)) <= {bytes}:
            raise ApplicationError(f"apply() must return a list of bytes, as it did not at height {height}")
        if len(results) != len(commands):
            raise ApplicationError(
                f"the state machine gave {len(results)} results for {len(commands)} commands at height {height}"
            )
        return list(results)

    def roots(self) -> tuple[bytes, bytes]:
        """Return the state root and the sessions root at the current height."""
        return state_root_of(self._application, self.height), self.sessions.root()

    def snapshot(self) -> bytes:
        """Encode sessions and application state at the current height."""
        data = _snapshot_of(self._application, self.height)
        return canonical(_SnapshotState(self.height, self.sessions.dump(), data))

    def restore(self, data: bytes | memoryview) -> None:
        """Take over an encoded state; StorageError where it is none."""
        try:
            state = _snapshots.decode(data)
            self.sessions.load(state.sessions)
        except msgspec.DecodeError as error:
            raise StorageError(f"the snapshot cannot be decoded: {error}") from error
        try:
            self._application.restore(state.application)
        except Exception as error:
            raise ApplicationError(f"the state machine cannot restore a snapshot: {error!r}") from error
        self.height = state.height

    def query(self, request: bytes) -> bytes:
        """Ask the application about its current state; ApplicationError where it has no `query`, or that raises."""
        query = getattr(self._application, "query", None)
        if query is None:
            raise ApplicationError(NO_QUERIES)
        try:
            answer = query(request)
        except Exception as error:
            raise ApplicationError(f"query() raised: {error!r}") from error
        if not isinstance(answer, bytes):
            raise ApplicationError("query() must return bytes")
        return answer


def state_root_of(application: StateMachine, height: int) -> bytes:
    """Return the digest of a state machine's state: its own, or that of its snapshot.

    ApplicationError, which names the height, where it raises or gives something else.
    """
    own_root = getattr(application, "state_root", None)
    if own_root is None:
        return sha256(b"bftkit/state\x00" + _snapshot_of(application, height)).digest()
    try:
        root = own_root()
    except Exception as error:
        raise ApplicationError(f"state_root() raised at height {height}: {error!r}") from error
    if not isinstance(root, bytes) or len(root) != DIGEST_BYTES:
        raise ApplicationError("state_root() must return 32 bytes")
    return root


def _snapshot_of(application: StateMachine, height: int) -> bytes:
    try:
        data = application.snapshot()
    except Exception as error:
        raise ApplicationError(f"snapshot() raised at height {height}: {error!r}") from error
    if not isinstance(data, bytes):
        raise ApplicationError("snapshot() must return bytes")
    return data


def _overlaps(taken: list[tuple[int, int]], first: int, last: int) -> bool:
    """Say whether a run meets one of those taken: only its two neighbours can."""
    place = bisect_right(taken, (first, last))
    return (place > 0 and taken[place - 1][1] >= first) or (place < len(taken) and taken[place][0] <= last)
