"""Client sessions: each sequence of a session executes at most once, in any order.

An envelope passes through three calls: `admit` says whether it is to be executed, `begin` takes its
sequences before any command runs, `finish` keeps the results.

Part of the replicated state: every rule here depends on the log alone. Memory is bounded by the
number of sessions, a window of sequences above each one's low mark, and a budget for kept results.
"""

from collections import deque
from collections.abc import Iterator
from hashlib import sha256

import msgspec

from bftkit.core.epoch import Limits
from bftkit.core.ids import canonical
from bftkit.replica.client_messages import Refusal, Reply, SessionId

NONCE_BYTES = 16
"""Length of the nonce in a request for a session."""

MAX_RESULTS_BYTES = 900 * 1024
"""How long the results of one envelope may be together, encoded: a reply is one frame, of at most 1 MiB."""

TOO_LARGE = "executed, but the results are larger than a reply may be"
"""Reason of a refusal for an envelope whose results cannot be sent."""

_RESULT_OVERHEAD_BYTES = 5
"""The most that msgpack puts in front of one result."""

_KEPT_AFTER_SHEDDING = 3, 4
"""Share of the budget that is left after results were let go, so that it is not done for each envelope."""


class _Kept(msgspec.Struct, array_like=True, gc=False):
    """An executed envelope whose client has not acknowledged it."""

    count: int
    height: int
    results: tuple[bytes, ...] | None
    """None where the budget did not allow to keep them."""
    too_large: bool = False
    """Whether they were never kept, as no reply could have held them."""


class Session(msgspec.Struct, array_like=True):
    """One client's session.

    `executed` has bit i set where sequence `low + 1 + i` was executed.
    """

    id: SessionId
    public_key: bytes
    nonce: bytes
    last_height: int
    low: int = 0
    executed: int = 0
    kept: dict[int, _Kept] = {}
    kept_bytes: int = 0


class _StoredSession(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A session as a snapshot holds it."""

    id: SessionId
    public_key: bytes
    nonce: bytes
    last_height: int
    low: int
    executed: bytes
    kept: list[tuple[int, _Kept]]
    kept_bytes: int


_stored = msgspec.msgpack.Decoder(list[_StoredSession])


class SessionTable:
    """All open sessions."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: dict[SessionId, Session] = {}
        self._by_key: dict[tuple[bytes, bytes], SessionId] = {}
        self._digests: dict[SessionId, bytes] = {}
        self._idle: deque[tuple[int, SessionId]] = deque()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, session: SessionId) -> Session | None:
        """Return an open session."""
        return self._sessions.get(session)

    def owner_of(self, session: SessionId) -> bytes | None:
        """Return the key that opened a session; None where it is not open here."""
        known = self._sessions.get(session)
        return None if known is None else known.public_key

    def open(self, public_key: bytes, nonce: bytes, height: int, index: int) -> Session:
        """Open a session at a place in the log, or return the one that this key and nonce opened before."""
        known = self._by_key.get((public_key, nonce))
        if known is not None:
            return self._sessions[known]
        if len(self._sessions) >= self._limits.max_sessions:
            self._evict(height)
        session = Session((height, index), public_key, nonce, height)
        self._sessions[session.id] = session
        self._by_key[(public_key, nonce)] = session.id
        return session

    def _evict(self, height: int) -> None:
        oldest = self._least_recently_used(height)
        del self._sessions[oldest.id]
        del self._by_key[(oldest.public_key, oldest.nonce)]
        self._digests.pop(oldest.id, None)

    def _least_recently_used(self, height: int) -> Session:
        """Return the session with the lowest last height, then the lowest id.

        The order of all that were idle before this height is computed once and used up from its front:
        whatever was used since stands behind all of them.
        """
        for _ in range(2):
            while self._idle:
                last_height, session_id = self._idle.popleft()
                session = self._sessions.get(session_id)
                if session is not None and session.last_height == last_height:
                    return session
            self._idle.extend(
                sorted((known.last_height, known.id) for known in self._sessions.values() if known.last_height < height)
            )
        return min(self._sessions.values(), key=lambda known: (known.last_height, known.id))

    def admit(self, session: Session, first: int, count: int, acknowledged: int) -> Reply | Refusal | None:
        """Say what to answer instead of executing, or None where a run of sequences is to be executed now."""

        def refuse(reason: str, *, executed: bool = False) -> Refusal:
            return Refusal(session.id, first, count, reason, executed)

        if first < 1 or count < 1 or count > self._limits.session_window:
            return refuse("the sequences are out of range")
        kept = session.kept.get(first)
        if kept is not None and kept.count == count:
            if kept.too_large:
                return refuse(TOO_LARGE, executed=True)
            if kept.results is None:
                return refuse("executed earlier; the results are no longer kept", executed=True)
            return Reply(session.id, first, count, kept.height, kept.results)
        if first <= session.low:
            return refuse("executed and acknowledged earlier, or below the window", executed=True)
        # By what this envelope acknowledges, not by the low mark: that may rise, and the answer is to hold for ever.
        if first + count - 1 > min(acknowledged, first - 1) + self._limits.session_window:
            return refuse("the sequences are beyond the session's window")
        if session.executed >> (first - session.low - 1) & ((1 << count) - 1):
            return refuse("some of the sequences were executed in another envelope")
        return None

    def begin(self, session: Session, first: int, count: int, acknowledged: int, height: int) -> None:
        """Take an admitted run of sequences: from here on they count as executed.

        The low mark rises first, so that the bits above it never span more than the window.
        """
        self._acknowledge(session, min(acknowledged, first - 1))
        session.last_height = height
        session.executed |= ((1 << count) - 1) << (first - session.low - 1)
        self._digests.pop(session.id, None)

    def finish(self, session: Session, first: int, height: int, results: tuple[bytes, ...]) -> Reply | Refusal:
        """Keep the results of a run that was begun, unless its client has acknowledged it; return the reply.

        Results that no reply can hold are refused, now and whenever the request comes again.
        """
        count = len(results)
        too_large = sum(map(len, results)) + _RESULT_OVERHEAD_BYTES * count > MAX_RESULTS_BYTES
        if first + count - 1 > session.low:
            kept = session.kept[first] = _Kept(count, height, None if too_large else results, too_large)
            session.kept_bytes += _size(kept)
            self._shed(session)
        self._digests.pop(session.id, None)
        if too_large:
            return Refusal(session.id, first, count, TOO_LARGE, executed=True)
        return Reply(session.id, first, count, height, results)

    def _acknowledge(self, session: Session, acknowledged: int) -> None:
        """Raise the low mark to what the client says it has; a gap below it is given up by its client."""
        if acknowledged <= session.low:
            return
        session.executed >>= acknowledged - session.low
        session.low = acknowledged
        for first in [first for first, kept in session.kept.items() if first + kept.count - 1 <= acknowledged]:
            session.kept_bytes -= _size(session.kept.pop(first))

    def _shed(self, session: Session) -> None:
        """Let go of the results of the lowest sequences beyond the budget; that they were executed stays known."""
        budget = self._limits.session_reply_bytes
        if session.kept_bytes <= budget:
            return
        share, whole = _KEPT_AFTER_SHEDDING
        for first in sorted(session.kept):
            kept = session.kept[first]
            session.kept_bytes -= _size(kept)
            kept.results = None
            if session.kept_bytes * whole <= budget * share:
                return

    def root(self) -> bytes:
        """Return the digest of all sessions; only those that changed are hashed again."""
        state = sha256(b"bftkit/sessions\x00")
        for session_id in sorted(self._sessions):
            digest = self._digests.get(session_id)
            if digest is None:
                digest = sha256(canonical(_store(self._sessions[session_id]))).digest()
                self._digests[session_id] = digest
            state.update(digest)
        return state.digest()

    def dump(self) -> bytes:
        """Encode the table for a snapshot."""
        return canonical([_store(self._sessions[session_id]) for session_id in sorted(self._sessions)])

    def load(self, data: bytes | memoryview) -> None:
        """Replace the table by a dumped one; msgspec.DecodeError where it is none."""
        stored = _stored.decode(data)
        self._digests.clear()
        self._idle.clear()
        self._sessions = {}
        self._by_key = {}
        for entry in stored:
            session = Session(
                entry.id,
                entry.public_key,
                entry.nonce,
                entry.last_height,
                entry.low,
                int.from_bytes(entry.executed, "little"),
                dict(entry.kept),
                entry.kept_bytes,
            )
            self._sessions[entry.id] = session
            self._by_key[(entry.public_key, entry.nonce)] = entry.id


def _size(kept: _Kept) -> int:
    return 0 if kept.results is None else sum(map(len, kept.results)) + 8 * kept.count


def _store(session: Session) -> _StoredSession:
    executed = session.executed
    return _StoredSession(
        session.id,
        session.public_key,
        session.nonce,
        session.last_height,
        session.low,
        executed.to_bytes((executed.bit_length() + 7) // 8, "little"),
        sorted(session.kept.items()),
        session.kept_bytes,
    )
