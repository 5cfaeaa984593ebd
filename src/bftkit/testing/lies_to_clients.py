"""What a lying member tells clients: results of what nobody executed, sessions that nobody opened, untrue refusals.

All liars of a group tell the same lies, so that a client which believes one answer too few believes them.
"""

from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    AnyReply,
    AnyRequest,
    Busy,
    Envelope,
    OpenSession,
    ReadReply,
    ReadRequest,
    Refusal,
    Reply,
    SessionId,
    SessionOpened,
)

INVENTED = b"invented"
"""A result that no state machine gave."""

UNTRUE = "this was invented"
"""Reason of a refusal that is a lie."""

UNTIMELY = 1
"""A height at which the first session was opened, and nothing that is asked for later was executed."""


NOBODY_S = 10_000
"""No batch holds so many requests: a session of this index does not exist."""


def lies_about(message: AnyRequest | AnyReply) -> tuple[AnyReply, ...]:
    """Return the answers that a liar may give to a request, or in place of a true answer to it."""
    match message:
        case OpenSession() | SessionOpened():
            return SessionOpened(message.nonce, (UNTIMELY, NOBODY_S)), Busy((0, 0), 0, UNTRUE)
        case ReadRequest() | ReadReply():
            nonce = message.nonce
            return (
                ReadReply(nonce, UNTIMELY, INVENTED),
                ReadReply(nonce, UNTIMELY, b"", UNTRUE),
                Busy((0, 0), 0, UNTRUE, nonce=nonce),
            )
        case Envelope() | Reply() | Refusal():
            return _about_commands(message.session, message.first, message.count)
    return ()


def _about_commands(session: SessionId, first: int, count: int) -> tuple[AnyReply, ...]:
    return (
        Reply(session, first, count, UNTIMELY, (INVENTED,) * count),
        Reply(session, first, count, UNTIMELY, ()),
        Refusal(session, first, count, UNTRUE),
        Refusal(session, first, count, UNTRUE, executed=True),
        Busy(session, first, UNTRUE),
        Busy(session, first, UNKNOWN_SESSION),
    )
