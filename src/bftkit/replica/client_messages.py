"""What clients sign and what replicas answer.

A session is opened by an ordered request; its id is that request's place in the log (height, index).
Inside a session commands have sequence numbers from 1; an envelope carries a run of them, signed once.
Whatever happens to messages, each sequence executes at most once (exactly-once as long as the client
repeats a request until it is answered).

A read changes nothing, so it may happen as often as it likes, and needs no session.
"""

from hashlib import sha256

import msgspec

from bftkit.core.ids import canonical

SessionId = tuple[int, int]
"""Height of the batch that opened the session, and the request's index in it."""


class ClientRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of what stands in a batch."""


class OpenSession(ClientRequest, frozen=True, tag=0):
    """Ask for a session. The same key and nonce always lead to the same session."""

    public_key: bytes
    """The client's Ed25519 key: its identity."""
    nonce: bytes
    """16 bytes; a new nonce asks for another session."""
    signature: bytes


class Envelope(ClientRequest, frozen=True, tag=1):
    """A run of commands of one session, signed once."""

    session: SessionId
    first: int
    """Sequence of the first command, from 1; the others follow."""
    count: int
    acknowledged: int
    """The client has the results of every sequence up to here and will not ask for them again."""
    commands: msgspec.Raw
    """Msgpack array of byte strings; not decoded before execution."""
    signature: bytes


class ReadRequest(ClientRequest, frozen=True, tag=2):
    """Ask the state machine, once everything up to here in the log has been executed."""

    public_key: bytes
    """The client's Ed25519 key: who is answered."""
    nonce: bytes
    """16 bytes, new for each read: its name."""
    request: bytes
    """What the state machine's `query` is given."""
    signature: bytes


AnyRequest = OpenSession | Envelope | ReadRequest
"""Union for the codec: one entry of a batch."""


class ReplyMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of what a replica tells a client. Replies of correct replicas to one request are equal."""


class SessionOpened(ReplyMessage, frozen=True, tag=0):
    """Say which session a request opened."""

    nonce: bytes
    session: SessionId


class Reply(ReplyMessage, frozen=True, tag=1):
    """The results of an envelope, one for each command, and where in the log it was executed."""

    session: SessionId
    first: int
    count: int
    height: int
    results: tuple[bytes, ...]


class Refusal(ReplyMessage, frozen=True, tag=2):
    """A definite no from the replicated state: not executed now, and never because of this request."""

    session: SessionId
    first: int
    count: int
    reason: str
    executed: bool = False
    """True where the commands were executed and only their results are gone, or too large for a reply."""


class Busy(ReplyMessage, frozen=True, tag=3):
    """One replica did not take a request; another may, or the same one later."""

    session: SessionId
    first: int
    reason: str
    retry_after_ms: int = 0
    nonce: bytes = b""
    """The read that was not taken; empty where it is another request."""


class ReadReply(ReplyMessage, frozen=True, tag=4):
    """What the state machine says to a `ReadRequest`."""

    nonce: bytes
    height: int
    """Height of the batch that the read stood in: all of it, and nothing later, was executed before."""
    answer: bytes
    problem: str = ""
    """Why there is no answer, in the same words on every replica; empty where there is one."""


UNKNOWN_SESSION = "the session is not known"
"""Reason of a `Busy` by a replica that does not know the session: it lags, or the session has expired."""

AnyReply = SessionOpened | Reply | Refusal | Busy | ReadReply
"""Union for the codec."""

_requests = msgspec.msgpack.Decoder(list[AnyRequest])
_request: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_commands = msgspec.msgpack.Decoder(list[bytes])


def client_domain(cluster: str, group: int) -> bytes:
    """Return what binds a client's signature to one cluster and group, whatever the epoch."""
    return sha256(b"bftkit/client\x00" + canonical((cluster, group))).digest()


def open_session_statement(domain: bytes, public_key: bytes, nonce: bytes) -> bytes:
    """Return the bytes that a client signs to open a session."""
    return b"bftkit/open\x00" + domain + canonical((public_key, nonce))


def envelope_statement(
    domain: bytes, session: SessionId, first: int, count: int, acknowledged: int, commands: bytes | memoryview
) -> bytes:
    """Return the bytes that a client signs for a run of commands, given in their encoded form."""
    digest = sha256(commands).digest()
    return b"bftkit/envelope\x00" + domain + canonical((session, first, count, acknowledged, digest))


def read_statement(domain: bytes, public_key: bytes, nonce: bytes, request: bytes) -> bytes:
    """Return the bytes that a client signs for a read: they tie its name to what it asks."""
    return b"bftkit/read\x00" + domain + canonical((public_key, nonce, sha256(request).digest()))


def request_statement(domain: bytes, request: AnyRequest) -> bytes:
    """Return the bytes under a request's signature."""
    if isinstance(request, OpenSession):
        return open_session_statement(domain, request.public_key, request.nonce)
    if isinstance(request, ReadRequest):
        return read_statement(domain, request.public_key, request.nonce, request.request)
    return envelope_statement(
        domain, request.session, request.first, request.count, request.acknowledged, memoryview(request.commands)
    )


def request_key(request: AnyRequest) -> bytes:
    """Name a request, so that the same one is not put on its way twice."""
    if isinstance(request, OpenSession):
        return b"o" + request.public_key + request.nonce
    if isinstance(request, ReadRequest):
        return b"r" + request.public_key + request.nonce
    return canonical((request.session, request.first, request.count))


def decode_request(data: bytes | memoryview) -> AnyRequest:
    """Decode one request as a client sends it; msgspec.DecodeError where it is none."""
    return _request.decode(data)


def decode_batch(blob: bytes | memoryview) -> list[AnyRequest]:
    """Decode the blob of a batch; msgspec.DecodeError where it is none."""
    return _requests.decode(blob)


def decode_commands(commands: msgspec.Raw | bytes) -> list[bytes]:
    """Decode the commands of an envelope; msgspec.DecodeError where they are none."""
    return _commands.decode(commands)
