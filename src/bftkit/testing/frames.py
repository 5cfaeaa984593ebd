"""Messages of simulated members as real frames, so that runs keep the codecs and the verify stage honest."""

from collections.abc import Callable
from typing import Any

from bftkit.core.ids import ReplicaIndex
from bftkit.errors import WireError
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.peer_codec import PeerCodec
from bftkit.runtime.pipeline import open_frame
from bftkit.wire.framing import FrameDecoder


class FrameCodec:
    """From a message to the bytes of its frame, and back through framing, decoding and every check."""

    def __init__(self, settings: ReplicaSettings, verify: Callable[[bytes, bytes, bytes], bool]) -> None:
        self._settings = settings
        self._codec = PeerCodec(settings)
        self._verify = verify

    def frame(self, message: Any) -> bytes:
        """Return a message as one frame."""
        return b"".join(self._codec.encode(message).buffers)

    def open(self, sender: ReplicaIndex, data: bytes) -> Any:
        """Return the verified message of one frame; WireError says what is wrong."""
        frames = FrameDecoder().feed(data)
        if len(frames) != 1:
            raise WireError(f"{len(frames)} frames where one was sent")
        return open_frame(self._settings, self._codec, self._verify, sender, frames[0])
