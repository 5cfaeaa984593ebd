"""Callers that wait for reads through the log."""

import secrets
from collections.abc import Callable, Sequence

import anyio
import msgspec

from bftkit.errors import NotReady, Overloaded, Rejected
from bftkit.replica.client_messages import Busy, ReadReply
from bftkit.replica.log_reads import CROWDED
from bftkit.replica.sessions import NONCE_BYTES
from bftkit.runtime.client_session import Transmit
from bftkit.runtime.clock import SystemClock
from bftkit.runtime.ordered_reads import OrderedReads


class Reading(msgspec.Struct, frozen=True):
    """What came of a read."""

    answer: bytes
    """What the state machine answered."""
    height: int | None
    """Height that was executed before; None where a stale answer was good enough, which may be of any height."""
    ordered: bool = False
    """Whether the read stood in the log, in the batch of that height."""


class ClientReads:
    """The reads of a client: `ordered` says what to send, `send` sends it."""

    def __init__(self, ordered: OrderedReads, send: Callable[[Sequence[Transmit]], None]) -> None:
        self.ordered = ordered
        """What is on its way; the client tells it of connections, answers and time."""
        self._send = send
        self._clock = SystemClock()
        self._closed = False

    def close(self) -> None:
        """Let everybody who waits know that nothing more will come."""
        self._closed = True
        self.ordered.close()

    async def read(self, request: bytes, timeout: float) -> Reading:
        """Put a read into the log, once more where its batch had no room for the answer; raises as `Client.query`."""
        reason = "no answer in time: no replica answers"
        with anyio.move_on_after(timeout):
            while not self._closed:
                if self.ordered.is_full:
                    raise Overloaded("too many reads are open already")
                answered = anyio.Event()
                nonce = secrets.token_bytes(NONCE_BYTES)
                read, sends = self.ordered.start(nonce, request, answered.set, self._clock.now_ms())
                try:
                    self._send(sends)
                    await answered.wait()
                finally:
                    self.ordered.drop(read)
                    if read.refusals:
                        reason = f"no answer in time: {next(iter(read.refusals.values())).reason}"
                match read.outcome:
                    case ReadReply(nonce=_, height=height, answer=answer, problem=""):
                        return Reading(answer, height, ordered=True)
                    case ReadReply(problem=problem) if problem != CROWDED:
                        raise Rejected(problem)
                    case Busy(reason=refusal):
                        raise Rejected(refusal)
        raise NotReady("the client was closed" if self._closed else reason)
