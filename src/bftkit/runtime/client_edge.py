"""The client edge: from requests of clients to submissions, and from answers back to connections.

A request is checked here before it costs the cluster anything: its form, its size, its signature. A
client that sends what cannot be used is told why, once, and nobody else notices.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from bftkit.core.epoch import Genesis
from bftkit.errors import FrameTooLarge, MalformedMessage, Rejected, WireError
from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    AnyReply,
    AnyRequest,
    Busy,
    Envelope,
    OpenSession,
    ReadReply,
    ReadRequest,
    SessionId,
    SessionOpened,
    client_domain,
    decode_commands,
    decode_request,
    request_key,
    request_statement,
)
from bftkit.replica.execution import Answer
from bftkit.replica.inputs import Submission
from bftkit.replica.log_reads import is_well_formed
from bftkit.replica.outputs import Refuse
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.wire.auth import SignatureVerifier
from bftkit.wire.codec import Codec
from bftkit.wire.framing import Frame, FrameType, frame_header

MAX_TOKENS = 65_536
"""Submissions whose refusal could still be told to somebody."""

LAGGING_RETRY_MS = 100
"""When to try again a request whose session this node does not know: it may only lag."""

CLOSED_RETRY_MS = 1000
"""When to try again a request that this node does not take because it stops."""


UNCHECKABLE = "the command cannot be checked"
"""How a refusal begins where a state machine's `check` raises something else than `Rejected`."""


def check_problem(check: Callable[[bytes], None] | None, commands: Sequence[bytes]) -> str:
    """Return why a state machine's `check` refuses one of these commands; empty where it takes all or has none."""
    if check is None:
        return ""
    for command in commands:
        try:
            check(command)
        except Rejected as refusal:
            return refusal.reason
        except Exception as error:
            return f"{UNCHECKABLE}: {error!r}"
    return ""


class ReplyChannel(Protocol):
    """Where answers of one client go: a connection, or a caller in this process."""

    public_key: bytes

    def send(self, buffers: Sequence[bytes | memoryview]) -> bool:
        """Send whole frames without waiting; False where they were dropped."""
        ...


class EdgeCounters(msgspec.Struct):
    """What clients sent."""

    requests: int = 0
    commands: int = 0
    refused: int = 0
    last_refusal: str = ""
    oversized: int = 0
    """Answers that were not sent because no frame could hold them."""


class ClientEdge:
    """All clients of one node."""

    def __init__(
        self,
        genesis: Genesis,
        verifier: SignatureVerifier,
        submit: Callable[[tuple[Submission, ...]], Awaitable[None]],
        owner_of: Callable[[tuple[int, int]], bytes | None],
        check: Callable[[bytes], None] | None,
    ) -> None:
        self._limits = genesis.config.limits
        self._domain = client_domain(genesis.config.cluster, genesis.config.group)
        self._verifier = verifier
        self._submit = submit
        self._owner_of = owner_of
        self._check = check
        self._channels: dict[bytes, list[ReplyChannel]] = {}
        self._tokens: OrderedDict[int, tuple[ReplyChannel, RequestPlace]] = OrderedDict()
        self._next_token = 0
        self._replies: Codec[Any] = Codec(AnyReply)
        self._asks: Codec[AdminAsk] = Codec(AdminAsk)
        self._answers: Codec[AdminAnswer] = Codec(AdminAnswer)
        self.counters = EdgeCounters()
        self.closed = ""
        """Why requests are refused altogether; empty while they are welcome."""

    def connect(self, channel: ReplyChannel) -> None:
        """Note where a client's answers go."""
        self._channels.setdefault(channel.public_key, []).append(channel)

    def disconnect(self, channel: ReplyChannel) -> None:
        """Forget a client's channel."""
        left = [known for known in self._channels.get(channel.public_key, []) if known is not channel]
        if left:
            self._channels[channel.public_key] = left
        else:
            self._channels.pop(channel.public_key, None)

    @property
    def clients(self) -> int:
        """Count the clients that are connected."""
        return len(self._channels)

    async def take(self, channel: ReplyChannel, requests: Sequence[bytes | memoryview]) -> None:
        """Check encoded requests of one client and submit the good ones, all that came in one turn."""
        accepted: list[Submission] = []
        for data in requests:
            request = self._decode(data)
            self.counters.requests += 1
            problem = self.closed or self._problem(channel, request)
            if problem:
                retry_ms = LAGGING_RETRY_MS if problem == UNKNOWN_SESSION else 0
                self._refuse(channel, place_of(request), problem, CLOSED_RETRY_MS if self.closed else retry_ms)
                continue
            count = request.count if isinstance(request, Envelope) else 1
            self.counters.commands += count
            accepted.append(Submission(self._token(channel, request), request_key(request), bytes(data), count))
        if accepted:
            await self._submit(tuple(accepted))

    def _decode(self, data: bytes | memoryview) -> AnyRequest:
        try:
            return decode_request(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedMessage(f"not a request: {error}") from error

    def _problem(self, channel: ReplyChannel, request: AnyRequest) -> str:
        if isinstance(request, Envelope):
            problem = self._envelope_problem(channel, request)
            if problem:
                return problem
        elif request.public_key != channel.public_key:
            return "the request is signed with another key than the connection"
        elif isinstance(request, ReadRequest):
            if not is_well_formed(request):
                return "the name of a read has another length"
            if len(request.request) > self._limits.max_command_bytes:
                return f"a query is longer than {self._limits.max_command_bytes} bytes"
        statement = request_statement(self._domain, request)
        if not self._verifier.verify(channel.public_key, statement, request.signature):
            return "the signature is not valid"
        return ""

    def _envelope_problem(self, channel: ReplyChannel, envelope: Envelope) -> str:
        if envelope.first < 1 or not 1 <= envelope.count <= self._limits.session_window or envelope.acknowledged < 0:
            return "the sequences are out of range"
        try:
            commands = decode_commands(envelope.commands)
        except (msgspec.DecodeError, RecursionError):
            return "the commands are not a list of byte strings"
        if len(commands) != envelope.count:
            return "the envelope does not hold as many commands as it says"
        longest = self._limits.max_command_bytes
        if max(map(len, commands)) > longest:
            return f"a command is longer than {longest} bytes"
        problem = check_problem(self._check, commands)
        if problem:
            return problem
        owner = self._owner_of(envelope.session)
        if owner is None:
            return UNKNOWN_SESSION
        # Two clients must not be able to put requests of one name on their way: the second would be swallowed.
        return "" if owner == channel.public_key else "the session belongs to another client"

    def _token(self, channel: ReplyChannel, request: AnyRequest) -> int:
        self._next_token += 1
        self._tokens[self._next_token] = (channel, place_of(request))
        if len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return self._next_token

    def _refuse(self, channel: ReplyChannel, place: "RequestPlace", reason: str, retry_after_ms: int = 0) -> None:
        self.counters.refused += 1
        self.counters.last_refusal = reason
        self._send(channel, FrameType.REPLY, self._replies.encode(place.busy(reason, retry_after_ms)))

    def on_refuse(self, refuse: Refuse) -> None:
        """Tell a client that the replica did not take its request."""
        known = self._tokens.pop(refuse.token, None)
        if known is not None:
            self._refuse(*known, refuse.reason, refuse.retry_after_ms)

    def answer(self, answers: Sequence[Answer]) -> None:
        """Send the results of executed batches, one write for each client."""
        frames: dict[bytes, list[bytes]] = {}
        for answer in answers:
            if answer.public_key in self._channels:
                frames.setdefault(answer.public_key, []).append(self._reply_frame(answer.reply))
        for public_key, buffers in frames.items():
            for channel in self._channels[public_key]:
                channel.send(buffers)

    def _reply_frame(self, reply: AnyReply) -> bytes:
        """Frame a reply; where it fits no frame, its client is told so and nobody else notices."""
        payload = self._replies.encode(reply)
        try:
            return frame_header(FrameType.REPLY, len(payload)) + payload
        except FrameTooLarge as error:
            self.counters.oversized += 1
            payload = self._replies.encode(place_of(reply).busy(str(error), 0))
            return frame_header(FrameType.REPLY, len(payload)) + payload

    def _send(self, channel: ReplyChannel, kind: FrameType, payload: bytes) -> None:
        channel.send([frame_header(kind, len(payload)) + payload])

    async def take_frames(
        self,
        channel: ReplyChannel,
        frames: Sequence[Frame],
        ask: Callable[[AdminAsk, Callable[[AdminAnswer], None]], Awaitable[None]],
    ) -> None:
        """Take frames of a connection: requests, and questions; WireError closes it.

        `ask` takes a question and where the answer goes, which it may call later.
        """

        def reply(answer: AdminAnswer) -> None:
            self._send(channel, FrameType.ADMIN_REPLY, self._answers.encode(answer))

        requests = [frame.payload for frame in frames if frame.type == FrameType.REQUEST]
        if requests:
            await self.take(channel, requests)
        for frame in frames:
            if frame.type == FrameType.ADMIN:
                await ask(self._asks.decode(frame.payload), reply)
            elif frame.type != FrameType.REQUEST:
                raise WireError(f"a client does not send frames of type {frame.type}")


class RequestPlace(msgspec.Struct, frozen=True, gc=False):
    """What a client knows a request by: session and first sequence, or a read's name; zeros for a session's opening."""

    session: SessionId = (0, 0)
    first: int = 0
    nonce: bytes = b""

    def busy(self, reason: str, retry_after_ms: int) -> Busy:
        """Return the answer that the request was not taken."""
        return Busy(self.session, self.first, reason[:200], retry_after_ms, self.nonce)


_OPENING = RequestPlace()


def place_of(message: AnyRequest | AnyReply) -> RequestPlace:
    """Return what a client knows a request by, from the request or from an answer to it."""
    match message:
        case OpenSession() | SessionOpened():
            return _OPENING
        case ReadRequest() | ReadReply():
            return RequestPlace(nonce=message.nonce)
    return RequestPlace(message.session, message.first)
