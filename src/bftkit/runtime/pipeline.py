"""The verify stage: from frames of a peer to inputs of the replica.

A frame's envelope is read without its body, so that what nobody wants is dropped before it costs
anything: a stranger, another epoch, another group. The router sends each proposal's messages to one
lane; the lane decodes them to their canonical form, lets the engine check them, verifies every
signature inside, and only then hands them over. Lanes are tasks on the event loop; only this file
knows that.
"""

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from bftkit.core.batch import BatchHeader, open_body, ref_problem
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Received
from bftkit.core.statement import statement_bytes
from bftkit.errors import MalformedMessage, WireError
from bftkit.replica.execution import VerifySignature
from bftkit.replica.messages import message_claims, message_problem
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.channel import BULK, CONTROL, PROPOSALS, PriorityChannel
from bftkit.runtime.clock import Clock
from bftkit.runtime.peer_codec import ENGINE_KIND, REPLICA_KIND, PeerCodec
from bftkit.runtime.router import ShardRouter
from bftkit.wire.auth import SignatureVerifier
from bftkit.wire.envelope import decode_body, decode_envelope
from bftkit.wire.framing import Frame, FrameType

LANE_CAPACITY = (8192, 2048, 16, 512)
"""Frames that may wait in one lane: control, proposals, clients (none come this way), bulk."""


_PRIORITIES = {FrameType.BULK: BULK, FrameType.BODY: PROPOSALS, FrameType.PROPOSAL: PROPOSALS}
"""Where the inbox takes what is large; everything else is control."""


_headers = msgspec.msgpack.Decoder(BatchHeader)


class PipelineCounters(msgspec.Struct):
    """What went through, and what did not."""

    received: int = 0
    rejected: int = 0
    """Malformed, refused by a check, or with a bad signature."""
    foreign: int = 0
    """Of another group or epoch."""
    verified: int = 0
    """Signatures looked at, the cached ones included."""
    last_rejection: str = ""
    """The newest reason, with its sender."""


class VerifyPipeline:
    """Router, lanes and workers of one replica."""

    def __init__(
        self,
        settings: ReplicaSettings,
        codec: PeerCodec,
        verifier: SignatureVerifier,
        clock: Clock,
        inbox: PriorityChannel[Any],
        lanes: int = 1,
    ) -> None:
        self._settings = settings
        self._codec = codec
        self._verifier = verifier
        self._clock = clock
        self._inbox = inbox
        self._router = ShardRouter(lanes)
        self._lanes: list[PriorityChannel[tuple[ReplicaIndex, Frame]]] = [
            PriorityChannel(LANE_CAPACITY) for _ in range(lanes)
        ]
        self.rejections = [0] * len(settings.membership)
        """Rejected messages by sender."""
        self.counters = PipelineCounters()

    def start(self, tasks: TaskGroup) -> None:
        """Start one worker for each lane."""
        for lane in self._lanes:
            tasks.start_soon(self._work, lane)

    async def submit(self, sender: ReplicaIndex, frames: Sequence[Frame]) -> None:
        """Take frames of one member; waits while their lanes are full."""
        for frame in frames:
            lane, priority = self._route(frame)
            if not lane.send_nowait(priority, (sender, frame)):
                await lane.send(priority, (sender, frame))

    def _route(self, frame: Frame) -> tuple[PriorityChannel[tuple[ReplicaIndex, Frame]], int]:
        if frame.type == FrameType.BULK:
            return self._lanes[0], BULK
        if frame.type == FrameType.BODY:
            # The tail of a body differs from batch to batch; the same body takes the same lane.
            return self._lanes[self._router.lane(bytes(frame.payload[-16:]))], PROPOSALS
        priority = PROPOSALS if frame.type == FrameType.PROPOSAL else CONTROL
        if len(self._lanes) == 1:
            return self._lanes[0], priority
        try:
            key = decode_envelope(frame.payload).lane_key
        except WireError:
            key = b""
        return self._lanes[self._router.lane(key)], priority

    async def _work(self, lane: PriorityChannel[tuple[ReplicaIndex, Frame]]) -> None:
        while True:
            try:
                waiting = await lane.receive()
            except anyio.EndOfStream:
                return
            for sender, frame in waiting:
                self.counters.received += 1
                try:
                    message = self._open(sender, frame)
                except WireError as error:
                    self._reject(sender, str(error))
                    continue
                if message is not None:
                    priority = _PRIORITIES.get(frame.type, CONTROL)
                    event = Received(self._clock.now_ms(), sender, message)
                    if not self._inbox.send_nowait(priority, event):
                        await self._inbox.send(priority, event)

    def _reject(self, sender: ReplicaIndex, reason: str) -> None:
        self.counters.rejected += 1
        self.rejections[sender] += 1
        self.counters.last_rejection = f"{self._settings.membership.name(sender)}: {reason}"

    def _open(self, sender: ReplicaIndex, frame: Frame) -> Any:
        message = open_frame(self._settings, self._codec, self._verify, sender, frame)
        if message is None:
            self.counters.foreign += 1
        return message

    def _verify(self, public_key: bytes, statement: bytes, signature: bytes) -> bool:
        self.counters.verified += 1
        return self._verifier.verify(public_key, statement, signature)

    def statistics(self) -> list[Any]:
        """Return the statistics of each lane."""
        return [lane.statistics() for lane in self._lanes]


def open_frame(
    settings: ReplicaSettings, codec: PeerCodec, verify: VerifySignature, sender: ReplicaIndex, frame: Frame
) -> Any:
    """Return a verified message, or None for one of another group or epoch; WireError says what is wrong."""
    membership = settings.membership
    if frame.type == FrameType.BODY:
        header, blob = decode_body(frame.payload)
        try:
            body = open_body(header, blob)
        except ValueError as error:
            raise MalformedMessage(str(error)) from error
        problem = _header_problem(settings, header) or ref_problem(
            body.ref, len(membership), settings.limits.max_batch_bytes
        )
        if problem is not None:
            raise MalformedMessage(problem)
        return body
    envelope = decode_envelope(frame.payload)
    if envelope.group != settings.genesis.config.group or envelope.epoch != settings.epoch:
        return None
    if envelope.kind == ENGINE_KIND:
        message = codec.engine.decode(memoryview(envelope.body))
        problem = settings.spec.check(settings.context, sender, message)
        claims = settings.spec.claims
    elif envelope.kind == REPLICA_KIND:
        message = codec.replica.decode(memoryview(envelope.body))
        problem = message_problem(settings.context, settings.spec, message)
        claims = message_claims
    else:
        raise MalformedMessage(f"an envelope of unknown kind {envelope.kind}")
    if problem is not None:
        raise MalformedMessage(problem)
    for signer, statement, signature in claims(sender, message):
        if not 0 <= signer < len(membership):
            raise MalformedMessage("a signer is not a member")
        if not verify(membership.public_key(signer), statement_bytes(settings.domain, statement), signature):
            raise MalformedMessage(f"a signature of {membership.name(signer)} is not valid")
    return message


def _header_problem(settings: ReplicaSettings, header: bytes) -> str | None:
    """Say why a body with a sound header is not for this epoch, or None.

    A body has no envelope that could name group and epoch; its origin is an index into one epoch's membership.
    """
    parsed = _headers.decode(header)
    if parsed.epoch != settings.epoch:
        return f"a batch of epoch {parsed.epoch} in epoch {settings.epoch}"
    if parsed.control:
        return "a batch claims to be a control command, which nobody makes"
    return None
