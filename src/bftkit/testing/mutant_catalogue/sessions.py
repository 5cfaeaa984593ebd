"""What makes commands run once, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.ids import canonical
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.replica.client_messages import SessionOpened
from bftkit.runtime.client_session import ClientSession
from bftkit.testing.mutant_catalogue.schedules import AWAY, CRASHES, REPEATING
from bftkit.testing.mutants import Check, Mutant, Schedules, agreeing_at_once, doing_nothing
from bftkit.wire.auth import SigningKey


def _executes_again(original: Any) -> Any:
    def begin(self: Any, session: Any, first: int, count: int, acknowledged: int, height: int) -> None:
        executed = session.executed
        original(self, session, first, count, acknowledged, height)
        session.executed = executed

    return begin


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
        (Check(_look_at_invented_answers),),
    ),
)
"""All of them."""
