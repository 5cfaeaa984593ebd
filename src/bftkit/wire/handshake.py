"""The mutual handshake by which two endpoints learn who the other is, sans-I/O.

It runs over a channel that is already established: mutual TLS, or (in tests, or by an explicit insecure setting)
nothing. TLS proves possession of a certificate; the handshake binds the consensus key to that very channel, since
each side signs both hellos and each hello names the digest of the certificate that its sender showed::

    initiator                     responder
        HELLO  ─────────────────────▶
               ◀───────────────────── HELLO, PROOF
        PROOF  ─────────────────────▶
    REFUSE, from either side at any time, ends it with a reason

The pattern is SIGMA's without the key exchange, which TLS has done (Krawczyk, "SIGMA", CRYPTO 2003): sign both
nonces and both identities. Nonces are passed in; nothing here is random.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Final, Literal

import msgspec

from bftkit.core.ids import PROTOCOL_VERSION
from bftkit.errors import ConfigurationError, HandshakeRefused, MalformedMessage, WireError
from bftkit.wire.auth import SigningKey, public_key_fault, verify
from bftkit.wire.codec import Codec
from bftkit.wire.framing import Frame, FrameType, frame_header

NONCE_BYTES: Final = 32
"""The length of a nonce; each handshake needs a fresh one."""
CONFIG_DIGEST_BYTES: Final = 8
"""The length of one setting's digest: enough to tell honest mistakes, which is all it is for."""
MAX_CONFIG_KEYS: Final = 128
"""How many settings a hello may list."""
REASON_CHARACTERS: Final = 400
"""How much of a refusal's reason is sent, and shown."""
_KEYS_NAMED: Final = 8

Role = Literal["peer", "observer", "client", "admin"]
"""What an endpoint is to the other: a voting replica, one that only learns, a client, an operator."""
CertificateRole = Literal["node", "client", "admin"]
"""What a TLS certificate lets its owner be."""

CERTIFICATE_ROLES: Final[Mapping[str, CertificateRole]] = {
    "peer": "node",
    "observer": "node",
    "client": "client",
    "admin": "admin",
}
"""Which certificate each role needs."""
_REPLICAS: Final = frozenset({"peer", "observer"})

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_OptionalDigest = Annotated[bytes, msgspec.Meta(max_length=32)]
_Setting = tuple[
    Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
    Annotated[bytes, msgspec.Meta(min_length=CONFIG_DIGEST_BYTES, max_length=CONFIG_DIGEST_BYTES)],
]


class ChannelIdentity(msgspec.Struct, frozen=True):
    """Who the channel itself says is at the other end."""

    role: str
    """What the peer's certificate lets it be: "node", "client" or "admin"."""
    name: str
    """The name in the peer's certificate."""
    certificate_digest: bytes
    """SHA-256 of the peer's certificate (DER)."""


class PeerIdentity(msgspec.Struct, frozen=True):
    """Who the other side has proved to be."""

    role: str
    """What it is to us."""
    name: str
    """Its name."""
    public_key: bytes
    """The key that it signs with."""
    epoch: int
    """The epoch it was in when it connected."""


class HelloMessage(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The first word of each side."""

    cluster: _Name
    """The cluster that the sender belongs to."""
    genesis: _OptionalDigest
    """The digest of the cluster's first epoch; empty from a client that does not know it."""
    role: Role
    """What the sender wants to be to the receiver."""
    name: _Name
    """Who it is."""
    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """The epoch that it is in."""
    config_digest: _OptionalDigest
    """The digest of its consensus-critical settings in that epoch."""
    config: Annotated[tuple[_Setting, ...], msgspec.Meta(max_length=MAX_CONFIG_KEYS)]
    """(setting, digest of its value) for each of them, sorted by setting."""
    nonce: _Digest
    """Fresh randomness."""
    certificate_digest: _OptionalDigest
    """SHA-256 of the certificate that the sender showed; empty on an insecure channel."""
    public_key: _Digest
    """The key that its proof will be made with."""


class ProofMessage(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The signature over both hellos."""

    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    """Ed25519, by the key in the sender's hello."""


class RefuseMessage(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Why the sender closes."""

    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS)]
    """In words."""
    key: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS)] = ""
    """The settings that differ, where that is the reason."""


class LocalIdentity(msgspec.Struct, frozen=True):
    """What an endpoint says of itself."""

    cluster: str
    """The cluster that it belongs to."""
    role: Role
    """What it wants to be to the other side."""
    name: str
    """Who it is."""
    key: SigningKey
    """The key that it proves itself with."""
    nonce: bytes
    """Fresh randomness, `NONCE_BYTES` of it, for this handshake alone."""
    genesis: bytes = b""
    """The digest of the cluster's first epoch; a client that does not know it leaves it empty."""
    epoch: int = 0
    """The epoch that it is in."""
    config_digest: bytes = b""
    """The digest of its consensus-critical settings."""
    config: tuple[tuple[str, bytes], ...] = ()
    """What `digest_settings` returns of those settings."""
    certificate_digest: bytes = b""
    """SHA-256 of its own certificate (DER); empty on an insecure channel."""


_HELLO: Codec[HelloMessage] = Codec(HelloMessage)
_PROOF: Codec[ProofMessage] = Codec(ProofMessage)
_REFUSE: Codec[RefuseMessage] = Codec(RefuseMessage)
_DOMAIN: Final = b"bftkit/handshake"
_VERSION_BYTES: Final = 2


def digest_settings(settings: Mapping[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Return a hello's `config` for consensus-critical settings, given as name and encoded value."""
    return tuple((key, sha256(value).digest()[:CONFIG_DIGEST_BYTES]) for key, value in sorted(settings.items()))


def refuse_frame(reason: str, key: str = "") -> bytes:
    """Return the frame that tells the other side why this one closes."""
    return _frame(FrameType.REFUSE, _REFUSE.encode(RefuseMessage(reason[:REASON_CHARACTERS], key[:REASON_CHARACTERS])))


class Handshake:
    """One side of one handshake.

    Write what `start` and each `receive` return, in order, until `finished`; then `result` is the other's identity,
    or raises `HandshakeRefused`. Whoever refuses has one last frame to write, which says why.
    """

    def __init__(
        self,
        local: LocalIdentity,
        *,
        initiator: bool,
        members: Mapping[str, bytes],
        channel: ChannelIdentity | None,
        accepted_roles: frozenset[str] = frozenset({"peer"}),
        expected_name: str | None = None,
    ) -> None:
        """Prepare; `members` maps the names that may be peers to their public keys.

        That is the present epoch's members, and while a change of members is under way the next epoch's too.
        `channel` is what TLS says of the other side, None on an insecure channel. `accepted_roles` are what the
        other side may be here; `expected_name` is whom an initiator has dialled.
        """
        self._local = local
        self._initiator = initiator
        self._members = members
        self._channel = channel
        self._accepted_roles = accepted_roles
        self._expected_name = expected_name
        self._own_hello = _encode_hello(local)
        self._remote: HelloMessage | None = None
        self._transcript = b""
        self._result: PeerIdentity | None = None
        self.failure: WireError | None = None
        """Why the handshake ended without an identity."""

    @property
    def finished(self) -> bool:
        """Whether the handshake has ended, either way."""
        return self._result is not None or self.failure is not None

    @property
    def result(self) -> PeerIdentity:
        """The other side's proven identity; raises the failure if there is none."""
        if self.failure is not None:
            raise self.failure
        if self._result is None:
            raise WireError("the handshake has not finished")
        return self._result

    def start(self) -> list[bytes]:
        """Return the frames to write first."""
        return [_frame(FrameType.HELLO, self._own_hello)] if self._initiator else []

    def receive(self, frame: Frame) -> list[bytes]:
        """Take one frame of the other side and return the frames to write."""
        if frame.type is FrameType.REFUSE:
            self._result = None
            self.failure = self.failure or _remote_refusal(frame)
            return []
        if self.finished:
            return []
        try:
            if frame.type is FrameType.HELLO and self._remote is None:
                return self._on_hello(bytes(frame.payload))
            if frame.type is FrameType.PROOF and self._remote is not None:
                return self._on_proof(self._remote, bytes(frame.payload))
        except HandshakeRefused as refusal:
            return self._fail(refusal)
        except MalformedMessage as error:
            return self._fail(HandshakeRefused(f"malformed {frame.type.name}: {error}"))
        return self._fail(HandshakeRefused(f"unexpected {frame.type.name} frame during the handshake"))

    def _fail(self, refusal: HandshakeRefused) -> list[bytes]:
        self.failure = refusal
        return [refuse_frame(refusal.reason, refusal.key)]

    def _on_hello(self, payload: bytes) -> list[bytes]:
        remote = _decode_hello(payload)
        self._check(remote)
        self._remote = remote
        pair = (self._own_hello, payload) if self._initiator else (payload, self._own_hello)
        self._transcript = b"".join(sha256(hello).digest() for hello in pair)
        if self._initiator:
            return []
        return [_frame(FrameType.HELLO, self._own_hello), self._proof()]

    def _on_proof(self, remote: HelloMessage, payload: bytes) -> list[bytes]:
        proof = _PROOF.decode(payload)
        if not verify(remote.public_key, self._statement(initiator=not self._initiator), proof.signature):
            raise HandshakeRefused(f"the proof of {remote.name!r} is not signed by its key")
        self._result = PeerIdentity(remote.role, remote.name, remote.public_key, remote.epoch)
        return [self._proof()] if self._initiator else []

    def _proof(self) -> bytes:
        signature = self._local.key.sign(self._statement(initiator=self._initiator))
        return _frame(FrameType.PROOF, _PROOF.encode(ProofMessage(signature)))

    def _statement(self, *, initiator: bool) -> bytes:
        """Return what the named side signs; the side is in it, so that a proof cannot be sent back to its maker."""
        side = b"initiator" if initiator else b"responder"
        parts = (_DOMAIN, PROTOCOL_VERSION.to_bytes(_VERSION_BYTES), side, self._transcript)
        return b"".join(len(part).to_bytes(2) + part for part in parts)

    def _check(self, remote: HelloMessage) -> None:
        """Raise `HandshakeRefused` with the first reason not to talk to the sender of this hello."""
        local = self._local
        if remote.cluster != local.cluster:
            raise HandshakeRefused(f"cluster {remote.cluster!r}; this is cluster {local.cluster!r}")
        self._check_genesis(remote)
        if remote.role not in self._accepted_roles:
            raise HandshakeRefused(f"role {remote.role!r} is not accepted on this connection")
        self._check_channel(remote)
        if self._expected_name is not None and remote.name != self._expected_name:
            raise HandshakeRefused(f"{remote.name!r} answers at the address of {self._expected_name!r}")
        fault = public_key_fault(remote.public_key)
        if fault is not None:
            raise HandshakeRefused(fault)
        if remote.public_key == local.key.public_key:
            raise HandshakeRefused("the other side uses this side's own key")
        if remote.role == "peer" or (remote.role == "observer" and remote.name in self._members):
            self._check_member(remote)
        if remote.role in _REPLICAS and local.role in _REPLICAS:
            self._check_config(remote)

    def _check_genesis(self, remote: HelloMessage) -> None:
        optional = remote.role not in _REPLICAS or self._local.role not in _REPLICAS
        if optional and not (remote.genesis and self._local.genesis):
            return
        if remote.genesis != self._local.genesis:
            raise HandshakeRefused(
                f"another genesis: {remote.genesis.hex()[:16] or 'none'}, here {self._local.genesis.hex()[:16]}"
            )

    def _check_channel(self, remote: HelloMessage) -> None:
        """Hold the hello against what TLS says: the sender is who the channel shows, whatever it claims."""
        channel = self._channel
        if channel is None:
            if remote.certificate_digest:
                raise HandshakeRefused("a certificate is claimed on a connection without TLS")
            return
        if remote.certificate_digest != channel.certificate_digest:
            raise HandshakeRefused("the certificate of the hello is not the certificate of the connection")
        if channel.role != CERTIFICATE_ROLES[remote.role]:
            raise HandshakeRefused(f"a certificate for role {channel.role!r} cannot be used as {remote.role!r}")
        if channel.name != remote.name:
            raise HandshakeRefused(f"the certificate of {channel.name!r} cannot be used as {remote.name!r}")

    def _check_member(self, remote: HelloMessage) -> None:
        registered = self._members.get(remote.name)
        if registered is None:
            raise HandshakeRefused(f"{remote.name!r} is not a member of epoch {self._local.epoch}")
        if registered != remote.public_key:
            raise HandshakeRefused(f"the key of {remote.name!r} is not the registered one")

    def _check_config(self, remote: HelloMessage) -> None:
        """Compare settings of equal epochs; replicas of different epochs will learn the newer one's from its log."""
        local = self._local
        if remote.epoch != local.epoch or (remote.config_digest, remote.config) == (local.config_digest, local.config):
            return
        ours, theirs = dict(local.config), dict(remote.config)
        keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
        named = ", ".join(keys[:_KEYS_NAMED]) + (", ..." if len(keys) > _KEYS_NAMED else "")
        raise HandshakeRefused(f"the settings of epoch {local.epoch} differ", named or "config_digest")


def _frame(frame_type: FrameType, payload: bytes) -> bytes:
    return frame_header(frame_type, len(payload)) + payload


def _encode_hello(local: LocalIdentity) -> bytes:
    """Return version and hello; the version comes first so that it is understood whatever follows it."""
    hello = HelloMessage(
        cluster=local.cluster,
        genesis=local.genesis,
        role=local.role,
        name=local.name,
        epoch=local.epoch,
        config_digest=local.config_digest,
        config=local.config,
        nonce=local.nonce,
        certificate_digest=local.certificate_digest,
        public_key=local.key.public_key,
    )
    payload = PROTOCOL_VERSION.to_bytes(_VERSION_BYTES) + _HELLO.encode(hello)
    try:
        _decode_hello(payload)
    except MalformedMessage as error:
        raise ConfigurationError(f"this side's own hello would be refused: {error}") from error
    return payload


def _decode_hello(payload: bytes) -> HelloMessage:
    version = int.from_bytes(payload[:_VERSION_BYTES])
    if len(payload) < _VERSION_BYTES or version != PROTOCOL_VERSION:
        raise HandshakeRefused(f"protocol version {version}; this side speaks {PROTOCOL_VERSION}")
    return _HELLO.decode(payload[_VERSION_BYTES:])


def _remote_refusal(frame: Frame) -> WireError:
    try:
        message = _REFUSE.decode(frame.payload)
    except MalformedMessage:
        return HandshakeRefused("the other side refused, without a readable reason")
    return HandshakeRefused(f"the other side refused: {_printable(message.reason)}", _printable(message.key))


def _printable(text: str) -> str:
    """Return a peer's words fit for a log: no control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)
