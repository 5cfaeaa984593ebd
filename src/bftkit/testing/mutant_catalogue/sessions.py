"""What makes commands run once, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.ids import canonical
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.replica.client_messages import SessionOpened
from bftkit.runtime.client_session import ClientSession
from bftkit.testing.mutant_catalogue.schedules import AWAY, CRASHES, CROWDED, LYING, REPEATING
from bftkit.testing.mutants import Check, Mutant, Schedules, agreeing_at_once, doing_nothing
from bftkit.testing.simulation import seeded_world
from bftkit.wire.auth import SigningKey


def _executes_again(original: Any) -> Any:
    def begin(self: Any, session: Any, first: int, count: int, acknowledged: int, height: int) -> None:
        executed = session.executed
        original(self, session, first, count, acknowledged, height)
        session.executed = executed

    return begin


def _unverified(original: Any) -> Any:
    def unverified(self: Any, *arguments: Any) -> Any:
        verify, self._verify = self._verify, lambda public_key, statement, signature: True
        try:
            return original(self, *arguments)
        finally:
            self._verify = verify

    return unverified


def _told_apart_by_content(original: Any) -> Any:
    def admit(self: Any, envelope: Any, commands: list[bytes], turn: Any) -> Any:
        session = self.sessions.get(envelope.session)
        contents = self.__dict__.setdefault("contents", {})
        known = contents.setdefault((envelope.session, envelope.first, envelope.count), tuple(commands))
        if session is not None and known != tuple(commands) and envelope.first > session.low:
            # Another request altogether: whatever was executed under its sequences was another client's business.
            session.executed &= ~(((1 << envelope.count) - 1) << (envelope.first - session.low - 1))
            session.kept.pop(envelope.first, None)
        return original(self, envelope, commands, turn)

    return admit


def _by_the_low_mark(original: Any) -> Any:
    def admit(self: Any, session: Any, first: int, count: int, acknowledged: int) -> Any:
        return original(self, session, first, count, max(acknowledged, session.low))

    return admit


def _no_sessions(original: Any) -> Any:
    return lambda self: b"\x90"


def _own_time(original: Any) -> Any:
    def admit(self: Any, session: Any, first: int, count: int, acknowledged: int) -> Any:
        answer = original(self, session, first, count, acknowledged)
        height = getattr(answer, "height", None)
        return answer if height is None else msgspec.structs.replace(answer, height=height + 1)

    return admit


def _look_at_invented_answers() -> str | None:
    """What one replica of four answers is no result."""
    quorum = Quorum.of(FaultModel.BYZANTINE, 4)
    session = ClientSession(SigningKey(bytes(range(32))), b"domain", bytes(16), quorum)
    session.on_connected(0, 0)
    invented = canonical(SessionOpened(session.nonce, (9, 9)))
    for _ in range(4):
        session.on_reply(3, SessionOpened(session.nonce, (9, 9)), invented, 0)
    return f"one replica has opened session {session.id}" if session.is_open else None


def _look_at_a_crowd() -> str | None:
    """More clients than there are sessions are all served within half a minute."""
    world = seeded_world(1, profile=CROWDED)
    world.start()
    world.events.run(30_000_000)
    waiting = sum(not client.done for client in world.clients)
    return f"{waiting} of {len(world.clients)} clients wait" if waiting else None


MUTANTS = (
    Mutant(
        "sessions: everything is admitted",
        "A repeated request is executed once more.",
        "bftkit.replica.sessions:SessionTable.admit",
        doing_nothing,
        (Schedules(profile=REPEATING),),
    ),
    Mutant(
        "sessions: what was executed is not marked",
        "A sequence executes twice where it stands in two envelopes.",
        "bftkit.replica.sessions:SessionTable.begin",
        _executes_again,
        (Schedules(profile=REPEATING),),
    ),
    Mutant(
        "sessions: told apart by content",
        "Of two requests with the same sequences both execute where their commands differ.",
        "bftkit.replica.execution:Executor._admit",
        _told_apart_by_content,
        (Schedules(profile=REPEATING),),
    ),
    Mutant(
        "sessions: requests are not verified",
        "Whoever makes a batch may put requests of any client into it.",
        "bftkit.replica.execution:Executor._admit",
        _unverified,
        (Schedules(profile=REPEATING, liar="inventing requests"),),
    ),
    Mutant(
        "sessions: anybody may open them",
        "Whoever makes a batch may open sessions in the name of any client.",
        "bftkit.replica.execution:Executor._open_session",
        _unverified,
        (Schedules(profile=REPEATING, liar="inventing requests"),),
    ),
    Mutant(
        "sessions: the window moves under an envelope",
        "An envelope that was refused for good executes once the low mark of its session has risen.",
        "bftkit.replica.sessions:SessionTable.admit",
        _by_the_low_mark,
        (Schedules(profile=msgspec.structs.replace(REPEATING, session_window=5)),),
    ),
    Mutant(
        "sessions: none is ever closed",
        "There may be more sessions than the limits of the group allow.",
        "bftkit.replica.sessions:SessionTable._evict",
        doing_nothing,
        (Schedules(profile=msgspec.structs.replace(REPEATING, max_sessions=2)),),
    ),
    Mutant(
        "sessions: results are never let go",
        "Of a session that acknowledges nothing all results are kept, whatever the budget.",
        "bftkit.replica.sessions:SessionTable._shed",
        doing_nothing,
        (Schedules(profile=msgspec.structs.replace(REPEATING, session_reply_bytes=40)),),
    ),
    Mutant(
        "sessions: not in the snapshot",
        "A restored state knows no sessions, so that commands execute twice.",
        "bftkit.replica.sessions:SessionTable.dump",
        _no_sessions,
        (Schedules(profile=CRASHES), Schedules(profile=AWAY)),
    ),
    Mutant(
        "sessions: another answer for a repeated request",
        "The answer to a repeated request is not the one that was given.",
        "bftkit.replica.sessions:SessionTable.admit",
        _own_time,
        (Schedules(profile=REPEATING),),
    ),
    Mutant(
        "client: one answer is enough",
        "A client takes the first answer for the result, whoever gives it.",
        "bftkit.runtime.client_session:ClientSession._agreed",
        agreeing_at_once,
        (Schedules(profile=LYING), Check(_look_at_invented_answers)),
    ),
    Mutant(
        "client: a lost session is replaced at once",
        "Clients that outnumber the sessions take them from each other for ever, and none gets to use one.",
        "bftkit.runtime.session_policy:reopening_pause_ms",
        lambda original: lambda policy, losses, share: 0,
        (Check(_look_at_a_crowd),),
    ),
)
"""All of them."""
