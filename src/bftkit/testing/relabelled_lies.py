"""What a liar makes of the signatures of others: they stand under another statement than the one that was signed.

A signature says kind, view and position of what it is about. Were one of them not covered, votes for one thing would
prove another: a PREPARE a decision, a vote of one round the next one. Nothing of it is forged but the label.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.engine import EngineSpec
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.statement import Statement
from bftkit.replica.messages import Commits
from bftkit.testing.message_mutation import leaves, with_value

if TYPE_CHECKING:
    from bftkit.testing.byzantine import Liar, Said

FORGED_AT_ONCE = 24
"""Decisions that one message is made the occasion of, at most."""


def relabel(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Say it, say it once more with one certificate about something else, and hand out decisions that it would prove.

    Each message is the occasion of that once for each receiver.
    """
    if liar.count(to, message) > 1:
        return [(to, message)]
    said: list[Any] = [message]
    certificates = [(path, value) for path, value in leaves(message) if isinstance(value, QuorumCertificate)]
    if certificates:
        path, certificate = liar.random.choice(certificates)
        said.append(with_value(message, path, liar.random.choice(list(_labels(liar.spec, certificate)))))
    said += list(_decisions(liar.spec, message))[:FORGED_AT_ONCE]
    return [(to, one) for one in said]


def _labels(spec: EngineSpec, certificate: QuorumCertificate) -> Iterator[QuorumCertificate]:
    """Put a certificate's signatures under each statement that differs in one field from what was signed."""
    signed = certificate.statement
    changes: list[dict[str, Any]] = [{"kind": kind} for kind in spec.signing if kind != signed.kind]
    changes += [{"view": signed.view + 1}, {"view": max(0, signed.view - 1)}, {"position": signed.position + 1}]
    for change in changes:
        yield msgspec.structs.replace(certificate, statement=msgspec.structs.replace(signed, **change))


def _decisions(spec: EngineSpec, message: Any) -> Iterator[Commits]:
    """Make decisions of all certificates in a message that stand beside the batches that they are about."""
    for _, part in leaves(message):
        refs, certificate, links = _proof_in(part)
        if certificate is None or refs is None:
            continue
        for label in _labels(spec, certificate):
            statement: Statement = label.statement
            entry = CommitEntry(statement.position, refs, CommitProof(label, links))
            yield Commits((entry,), statement.position)


def _proof_in(part: Any) -> tuple[tuple[BatchRef, ...] | None, QuorumCertificate | None, bytes]:
    """Find the batches and the certificate that a part of a message consists of."""
    if isinstance(part, CommitEntry):
        return part.refs, part.proof.certificate, part.proof.links
    refs = certificate = None
    for name in getattr(part, "__struct_fields__", ()):
        value = getattr(part, name)
        if isinstance(value, QuorumCertificate):
            certificate = value
        elif isinstance(value, tuple) and all(isinstance(one, BatchRef) for one in value):
            refs = value
    return refs, certificate, b""
