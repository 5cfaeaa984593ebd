"""One engine and hand-made messages of the others: for tests that quote the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.inputs import Available, Received, TimerFired
from bftkit.core.outputs import Broadcast, Commit, Persist, Send
from bftkit.core.statement import SignedMessage
from bftkit_hotstuff.engine import SPEC, build
from bftkit_hotstuff.messages import Block, Certificates, TimeoutCertificate, Vote
from tests.plugins.hotstuff.parts import START, context_of, genesis_of, proposal, qc_for, signature_of, signed


class Lone:
    """An engine that hears what the test says; what it says to itself comes back to it at once."""

    def __init__(self, own: int = 0, members: int = 4, *, records: Sequence[Any] = (),
                 checkpoint: CheckpointCertificate = START, **options: Any) -> None:  # fmt: skip
        self.own = own
        self.context = context_of(own, members, **options)
        self.engine = build(self.context, genesis_of(self.context), checkpoint, records)
        self.state = self.engine.state
        self.now = 0
        self.outputs: list[Any] = []
        self.records = list(records)
        self.take(self.engine.start(0))

    def take(self, outputs: Iterable[Any]) -> list[Any]:
        """Note outputs, and send back what is for itself."""
        outputs = list(outputs)
        self.outputs += outputs
        for output in outputs:
            if isinstance(output, Persist):
                self.records = [output.record] if output.replaces_earlier else [*self.records, output.record]
            if isinstance(output, Broadcast) or (isinstance(output, Send) and output.to == self.own):
                message = output.message
                if isinstance(message, SignedMessage) and not message.signature:
                    message = signed(self.own, message)
                outputs = outputs + self.step(Received(self.now, self.own, message))
        return outputs

    def step(self, event: Any) -> list[Any]:
        return self.take(self.engine.step(event))

    def hear(self, sender: int, message: Any) -> list[Any]:
        """Take a message of a member, signed here unless it is signed already."""
        if isinstance(message, SignedMessage) and not getattr(message, "signature", b""):
            message = signed(sender, message)
        assert SPEC.check(self.context, sender, message) is None, SPEC.check(self.context, sender, message)
        for claim in SPEC.claims(sender, message):
            assert claim.signature == signature_of(claim.signer, claim.statement)
        return self.step(Received(self.now, sender, message))

    def see(self, block: Block, tc: TimeoutCertificate | None = None) -> list[Any]:
        """Hear a block proposed by its author."""
        return self.hear(block.author, proposal(block, tc))

    def certify(self, block: Block) -> list[Any]:
        """Hear that a block is certified."""
        return self.hear(
            (self.own + 1) % len(self.context.membership),
            Certificates(qc_for(block, members=len(self.context.membership)), None),
        )

    def votes_of(self, senders: Iterable[int], block: Block) -> list[Any]:
        """Hear votes for a block."""
        return [one for sender in senders for one in self.hear(sender, Vote(block.round, block.header().id))]

    def fire(self, timer: str, after: int = 0) -> list[Any]:
        self.now += after
        return self.step(TimerFired(self.now, timer))

    def have(self, *refs: BatchRef) -> list[Any]:
        return self.step(Available(self.now, refs))

    def again(self) -> Lone:
        """The same replica after a crash."""
        options = {name: getattr(self.context.options, name) for name in self.context.options.__struct_fields__}
        members = len(self.context.membership)
        return Lone(self.own, members, records=self.records, checkpoint=self.state.stable, **options)


def sent(outputs: Iterable[Any], kind: type) -> list[Any]:
    """The messages of a type among outputs, broadcast or sent."""
    return [
        output.message
        for output in outputs
        if isinstance(output, Broadcast | Send) and isinstance(output.message, kind)
    ]


def receivers(outputs: Iterable[Any], kind: type) -> list[int | None]:
    """Whom messages of a type go to; None for everybody."""
    return [
        output.to if isinstance(output, Send) else None
        for output in outputs
        if isinstance(output, Broadcast | Send) and isinstance(output.message, kind)
    ]


def commits(outputs: Iterable[Any]) -> list[int]:
    return [output.position for output in outputs if isinstance(output, Commit)]


def index_of(outputs: Sequence[Any], kind: type, inner: type) -> int:
    """Where the first output of a type with such a content stands."""
    for index, output in enumerate(outputs):
        content = getattr(output, "message", getattr(output, "record", None))
        if isinstance(output, kind) and isinstance(content, inner):
            return index
    raise AssertionError(f"no {kind.__name__} of a {inner.__name__} in {outputs}")
