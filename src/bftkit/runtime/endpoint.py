"""From a fresh stream to a connection with somebody who has proved who it is."""

import secrets
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import anyio
import msgspec

from bftkit.errors import HandshakeRefused, WireError
from bftkit.runtime.clock import Clock, SystemClock
from bftkit.runtime.connection import FramedConnection, NetworkTuning, close_stream, loss_reason
from bftkit.runtime.credentials import CredentialFiles, client_context, peer_identity, server_context, tls_refusal
from bftkit.runtime.tls_stream import LOST, RECEIVE_BYTES, ByteStream, TlsStream, linger
from bftkit.wire.framing import (
    ADMIN_FRAMES,
    CLIENT_FRAMES,
    HANDSHAKE_FRAMES,
    PEER_FRAMES,
    REPLY_FRAMES,
    FrameDecoder,
    FrameType,
)
from bftkit.wire.handshake import NONCE_BYTES, ChannelIdentity, Handshake, LocalIdentity, refuse_frame

HelloFactory = Callable[[], LocalIdentity]
"""Says who this side is *now*, in its present epoch. Nonce and certificate digest are filled in for each handshake."""

_FRAMES_OF_ROLE: Final[Mapping[str, frozenset[FrameType]]] = {
    "peer": PEER_FRAMES,
    "observer": PEER_FRAMES,
    "client": CLIENT_FRAMES,
    "admin": ADMIN_FRAMES,
}
"""What a replica accepts from whom."""
_REPLICAS: Final = frozenset({"peer", "observer"})


class Endpoint:
    """Who this side is and whom it accepts, on one port or for one purpose."""

    def __init__(
        self,
        hello: HelloFactory,
        members: Mapping[str, bytes],
        *,
        credentials: CredentialFiles | None,
        accepted_roles: frozenset[str] = frozenset({"peer"}),
        tuning: NetworkTuning | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; `members` maps names to public keys. Without credentials there is no TLS: for tests only."""
        self.hello = hello
        """Says who this side is now."""
        self.members = members
        """Who may be a peer: name to public key. It may be replaced; the next handshake sees it."""
        self.tuning = tuning or NetworkTuning()
        """Limits and deadlines."""
        self.clock = clock or SystemClock()
        """What deadlines of connections are read from."""
        self._accepted_roles = accepted_roles
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._digest = b""
        if credentials is not None:
            self.use_credentials(credentials)

    @property
    def is_secure(self) -> bool:
        """Whether connections are made over TLS."""
        return self._client is not None

    def use_credentials(self, credentials: CredentialFiles) -> None:
        """Show and demand what these files say, from the next connection on: how certificates are renewed."""
        self._client = client_context(credentials)
        # Only a node's certificate can stand at the listening end.
        self._server = server_context(credentials) if credentials.role == "node" else None
        self._digest = credentials.digest

    async def establish(
        self, stream: ByteStream, address: str, *, initiator: bool, expected_name: str | None = None
    ) -> FramedConnection:
        """Find out who is at the other end.

        Raises:
            HandshakeRefused: one side does not want the other, or it took too long; the stream is closed.
        """
        try:
            with anyio.fail_after(self.tuning.handshake_timeout_ms / 1_000):
                return await self._establish(stream, address, initiator, expected_name)
        except BaseException as error:
            await close_stream(stream)
            if isinstance(error, HandshakeRefused) or not isinstance(error, (WireError, *LOST)):
                raise
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> HandshakeRefused:
        match error:
            case TimeoutError():
                return HandshakeRefused(f"no handshake within {self.tuning.handshake_timeout_ms} ms")
            case ssl.SSLError():
                return tls_refusal(error)
            case WireError():
                return HandshakeRefused(str(error))
        hint = "" if self.is_secure else " (does it demand TLS?)"
        return HandshakeRefused(f"{loss_reason(error)} during the handshake{hint}")

    async def _establish(
        self, stream: ByteStream, address: str, initiator: bool, expected_name: str | None
    ) -> FramedConnection:
        local = self.hello()
        channel: ChannelIdentity | None = None
        if self.is_secure:
            stream, channel = await self._secure(stream, local.cluster, initiator=initiator)
        handshake = Handshake(
            msgspec.structs.replace(local, nonce=secrets.token_bytes(NONCE_BYTES), certificate_digest=self._digest),
            initiator=initiator,
            members=self.members,
            channel=channel,
            accepted_roles=self._accepted_roles,
            expected_name=expected_name,
        )
        decoder = FrameDecoder(HANDSHAKE_FRAMES)
        await _shake_hands(stream, handshake, decoder)
        connection = FramedConnection(stream, decoder, handshake, address, self.tuning, self.clock)
        accepted = _FRAMES_OF_ROLE[handshake.result.role] if local.role in _REPLICAS else REPLY_FRAMES
        connection.hand_over(decoder.accept(accepted))
        return connection

    async def _secure(self, stream: ByteStream, cluster: str, *, initiator: bool) -> tuple[TlsStream, ChannelIdentity]:
        context = self._client if initiator else self._server
        if context is None:
            raise HandshakeRefused("this side has no certificate for this end of a connection")
        tls = TlsStream(stream, context, server_side=not initiator)
        await tls.handshake()
        try:
            return tls, peer_identity(tls, cluster)
        except HandshakeRefused as refusal:
            await _refuse(tls, refusal.reason)
            raise


async def _shake_hands(stream: ByteStream, handshake: Handshake, decoder: FrameDecoder) -> None:
    """Exchange frames until both sides know each other; raise what ended it otherwise."""
    answers = handshake.start()
    while True:
        if answers:
            await stream.send(b"".join(answers))
        if handshake.finished:
            break
        data = await stream.receive(RECEIVE_BYTES)
        try:
            frames = decoder.feed(data)
        except WireError as error:
            await _refuse(stream, str(error))
            raise
        answers = [answer for frame in frames for answer in handshake.receive(frame)]
    if handshake.failure is not None:
        if answers:
            await linger(stream)
        raise handshake.failure


async def _refuse(stream: ByteStream, reason: str) -> None:
    """Say why this side closes, if the other side can still hear it."""
    with suppress(*LOST):
        await stream.send(refuse_frame(reason))
        await linger(stream)
