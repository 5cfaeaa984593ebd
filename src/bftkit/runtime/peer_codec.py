"""Messages between replicas as frames, and back."""

from functools import lru_cache
from typing import Any, NamedTuple

from bftkit.core.batch import BatchBody
from bftkit.replica.messages import BULK_MESSAGES, AnyReplicaMessage
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.channel import BULK, CONTROL, PROPOSALS
from bftkit.wire.codec import Codec
from bftkit.wire.envelope import encode_body, encode_envelope
from bftkit.wire.framing import FrameType, frame_header

ENGINE_KIND = 0
"""Envelope kind of an engine's message."""

REPLICA_KIND = 1
"""Envelope kind of a replica's own message."""

_LARGE_BYTES = 60_000
"""Longest encoding that still travels as a vote."""


class Encoded(NamedTuple):
    """One frame, ready to be sent."""

    priority: int
    buffers: tuple[bytes | memoryview, ...]


@lru_cache
def _codec_of(messages: Any) -> Codec[Any]:
    """Return the codec of a union: looking at its types takes a thousand times as long as encoding a message."""
    return Codec(messages)


class PeerCodec:
    """Encode and decode what the members of one epoch say to each other."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self._group = settings.genesis.config.group
        self._epoch = settings.epoch
        self._lane_key = settings.spec.lane_key
        self.engine = _codec_of(settings.spec.messages)
        self.replica = _codec_of(AnyReplicaMessage)
        self._replica_types = AnyReplicaMessage.__args__

    def encode(self, message: Any) -> Encoded:
        """Encode one message to one frame."""
        if type(message) is BatchBody:
            return self.encode_body(message.header, message.blob)
        if type(message) in self._replica_types:
            payload = encode_envelope(self._group, self._epoch, b"", REPLICA_KIND, self.replica.encode(message))
            bulk = isinstance(message, BULK_MESSAGES)
            kind, priority = (FrameType.BULK, BULK) if bulk else (FrameType.CONTROL, CONTROL)
        else:
            body = self.engine.encode(message)
            payload = encode_envelope(self._group, self._epoch, self._lane_key(message), ENGINE_KIND, body)
            large = len(payload) > _LARGE_BYTES
            kind, priority = (FrameType.PROPOSAL, PROPOSALS) if large else (FrameType.VOTE, CONTROL)
        return Encoded(priority, (frame_header(kind, len(payload)) + payload,))

    def encode_body(self, header: bytes, blob: bytes | memoryview) -> Encoded:
        """Frame a batch body without copying its blob."""
        buffers = [memoryview(buffer) for buffer in encode_body(header, blob)]
        size = sum(len(buffer) for buffer in buffers)
        return Encoded(PROPOSALS, (frame_header(FrameType.BODY, size), *buffers))
