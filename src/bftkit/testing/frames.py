"""Messages of simulated members as real frames, so that runs keep the codecs and the verify stage honest."""

from collections.abc import Callable
from typing import Any

from bftkit.core.batch import BatchBody, open_body
from bftkit.core.ids import ReplicaIndex
from bftkit.errors import WireError
from bftkit.replica.messages import AnyReplicaMessage
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.peer_codec import ENGINE_KIND, PeerCodec
from bftkit.runtime.pipeline import open_frame
from bftkit.wire.envelope import decode_body, decode_envelope
from bftkit.wire.framing import FrameDecoder, FrameType


class FrameCodec:
    """From a message to the bytes of its frame, and back through framing, decoding and every check."""

    def __init__(self, settings: ReplicaSettings, verify: Callable[[bytes, bytes, bytes], bool]) -> None:
        self._settings = settings
        self._codec = PeerCodec(settings)
        self._verify = verify

    def frame(self, message: Any) -> bytes:
        """Return a message as one frame."""
        return b"".join(self._codec.encode(message).buffers)

    def peek(self, data: bytes) -> Any:
        """Return the message of a frame, checking its form only; the bytes themselves where there is none."""
        try:
            (frame,) = FrameDecoder().feed(data)
            if frame.type is FrameType.BODY:
                return open_body(*decode_body(frame.payload))
            envelope = decode_envelope(frame.payload)
            codec = self._codec.engine if envelope.kind == ENGINE_KIND else self._codec.replica
            return codec.decode(memoryview(envelope.body))
        except (WireError, ValueError):
            return data

    def can_say(self, message: Any) -> bool:
        """Say whether a message that somebody made up can be encoded and decoded: no other one reaches a member."""
        if isinstance(message, BatchBody):
            return True
        codec = self._codec.replica if isinstance(message, AnyReplicaMessage) else self._codec.engine
        try:
            codec.decode(codec.encode(message))
        except (WireError, TypeError, OverflowError, ValueError):
            return False
        return True

    def open(self, sender: ReplicaIndex, data: bytes) -> Any:
        """Return the verified message of one frame; WireError says what is wrong."""
        frames = FrameDecoder().feed(data)
        if len(frames) != 1:
            raise WireError(f"{len(frames)} frames where one was sent")
        return open_frame(self._settings, self._codec, self._verify, sender, frames[0])
