"""One engine and hand-made messages of the others: for tests that quote the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.inputs import Available, Received, TimerFired
from bftkit.core.outputs import Broadcast, Commit, Persist, Send
from bftkit.core.statement import SignedMessage, Statement
from bftkit_pbft.engine import SPEC, build
from bftkit_pbft.messages import (
    CommitVote,
    NewView,
    Prepare,
    PreparedProof,
    PrePrepare,
    ViewChange,
    ViewChangeName,
    proposal_digest,
)
from bftkit_pbft.new_view import starting_point
from tests.plugins.pbft.parts import START, batch, context_of, genesis_of, signature_of, signed


def prepared_at(view: int, position: int, refs: Sequence[BatchRef], members: int = 4, quorum: int = 3) -> PreparedProof:
    """A prepared certificate, signed by the lowest indices."""
    statement = Statement("prepare", view, position, proposal_digest(tuple(refs)))
    votes = {signer: signature_of(signer, statement) for signer in range(quorum)}
    return PreparedProof(QuorumCertificate.of(statement, votes, members), tuple(refs))


def view_change(
    signer: int, view: int, *prepared: PreparedProof, checkpoint: CheckpointCertificate = START
) -> ViewChange:
    message: ViewChange = signed(signer, ViewChange(view, checkpoint, prepared))
    return message


def new_view(view: int, votes: dict[int, ViewChange], members: int = 4, **fields: Any) -> NewView:
    """The NEW-VIEW that a correct primary makes of these votes, with some fields changed."""
    _, proposals = starting_point(tuple(votes.values()))
    names = tuple(ViewChangeName(signer, votes[signer].statement().content) for signer in sorted(votes))
    values = {"votes": names, "proposals": proposals, **fields}
    message: NewView = signed(view % members, NewView(view, **values))
    return message


class Lone:
    """An engine that hears what the test says; its own broadcasts come back to it at once."""

    def __init__(self, own: int = 1, members: int = 4, *, records: Sequence[Any] = (), echo: bool = True,
                 checkpoint: CheckpointCertificate = START, **options: Any) -> None:  # fmt: skip
        self.own = own
        self.context = context_of(own, members, **options)
        self.engine = build(self.context, genesis_of(self.context), checkpoint, records)
        self.state = self.engine.state
        self.now = 0
        self.echo = echo
        self.outputs: list[Any] = []
        self.records = list(records)
        self.take(self.engine.start(0))

    def take(self, outputs: Iterable[Any]) -> list[Any]:
        """Note outputs, and send own broadcasts back."""
        outputs = list(outputs)
        self.outputs += outputs
        for output in outputs:
            if isinstance(output, Persist):
                self.records = [output.record] if output.replaces_earlier else [*self.records, output.record]
            if isinstance(output, Broadcast) and self.echo:
                message = output.message
                if isinstance(message, SignedMessage):
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

    def fire(self, timer: str, after: int = 0) -> list[Any]:
        self.now += after
        return self.step(TimerFired(self.now, timer))

    def have(self, *refs: BatchRef) -> list[Any]:
        return self.step(Available(self.now, refs))

    def order(self, position: int, *refs: BatchRef, view: int = 0) -> list[Any]:
        """Let everybody vote for a proposal until it is decided."""
        members = len(self.context.membership)
        digest = proposal_digest(refs)
        out = self.have(*refs)
        if view % members != self.own:
            out += self.hear(view % members, PrePrepare(view, position, refs))
        others = [index for index in range(members) if index != self.own]
        for index in others:
            out += self.hear(index, Prepare(view, position, digest))
        for index in others:
            out += self.hear(index, CommitVote(view, position, digest))
        return out


def sent(outputs: Iterable[Any], kind: type) -> list[Any]:
    """The messages of a type among outputs, broadcast or sent."""
    return [
        output.message
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


__all__ = ["Lone", "batch", "commits", "index_of", "new_view", "prepared_at", "sent", "signed", "view_change"]
