"""How a simulated member speaks: what it says is signed and framed, and changed where the member lies."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import SignedMessage, statement_bytes
from bftkit.testing.frames import FrameCodec

if TYPE_CHECKING:
    from bftkit.testing.byzantine import Behaviour
    from bftkit.testing.node import SimulatedNode


class Voice:
    """The voice of one member, through all its lives. `codec` frames what it says, where frames are simulated."""

    def __init__(self, node: "SimulatedNode", codec: FrameCodec | None) -> None:
        settings = node.settings
        self._node = node
        self._codec = codec
        self._public_key = settings.membership.public_key(settings.own)
        self._domain = settings.domain

    @cached_property
    def _frames(self) -> FrameCodec:
        """Know what a frame can hold, also where none is made."""
        return self._codec or FrameCodec(self._node.settings, self._node.world.signatures.verify)

    def signed(self, message: Any) -> Any:
        """Sign a message that is one to be signed, and is not."""
        if not isinstance(message, SignedMessage) or getattr(message, "signature", None):
            return message
        node, statement = self._node, message.statement()
        if node.honest and not node.forgetful:
            node.world.checkers.signs(node.index, statement)
        signature = node.world.signatures.sign(self._public_key, statement_bytes(self._domain, statement))
        return msgspec.structs.replace(message, signature=signature)

    def say(self, receivers: tuple[ReplicaIndex, ...], message: Any) -> None:
        """Send a message that is signed, or what the member makes of it instead."""
        node = self._node
        node.plan.reached("shard.before_send")
        if node.speak is not None:
            self._lie(node.speak, receivers, message)
            return
        if self._codec is not None:
            message = self._codec.frame(message)
        node.world.post(node.instance, receivers, message)

    def _lie(self, speak: "Behaviour", receivers: tuple[ReplicaIndex, ...], message: Any) -> None:
        node = self._node
        if isinstance(message, SignedMessage):
            message = msgspec.structs.replace(message, signature=b"")
        for receiver in receivers:
            for to, said in speak(receiver, message):
                if self._frames.can_say(said):
                    signed = self.signed(said)
                    framed = signed if self._codec is None else self._codec.frame(signed)
                    node.world.post(node.instance, (to,), framed)
