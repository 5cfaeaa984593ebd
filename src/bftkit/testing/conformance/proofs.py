"""Proofs of decisions convince those who did not see the votes, and nobody of anything else."""

from collections.abc import Iterator

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.quorum import FaultModel
from bftkit.testing.checkers import Violation
from bftkit.testing.conformance.alterations import alterations
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import eventful
from bftkit.testing.engine_group import EngineGroup


def proofs(trial: Trial) -> None:
    """Show each decision of a run to every member, as it is and with one thing changed."""
    group = trial.play()
    log = max((one.log for one in group.instances), key=len)
    for entry in log:
        for instance in group.instances:
            problem = trial.spec.commit_problem(instance.context, entry)
            expect(problem is None, f"{instance.name} does not believe position {entry.position}: {problem}")
        expect(_is_proved(trial, group, entry), f"the proof of position {entry.position} has a bad signature")
    if trial.spec.fault_model is FaultModel.BYZANTINE:
        for entry in log[:: max(1, len(log) // 6)]:
            for other in _forgeries(entry, log):
                if _is_proved(trial, group, other):
                    raise Violation(f"the proof of {entry} is believed for {other}")


def _is_proved(trial: Trial, group: EngineGroup, entry: CommitEntry) -> bool:
    if trial.spec.commit_problem(group.instances[0].context, entry) is not None:
        return False
    certificate = entry.proof.certificate
    return certificate is None or all(group.signing.is_signed(claim) for claim in certificate.claims())


def _forgeries(entry: CommitEntry, log: list[CommitEntry]) -> Iterator[CommitEntry]:
    yield from alterations(entry)
    yield CommitEntry(entry.position, entry.refs, CommitProof(None, entry.proof.links))
    for other in log:
        if other.position != entry.position:
            yield CommitEntry(entry.position, entry.refs, other.proof)
    certificate = entry.proof.certificate
    if certificate is not None:
        signatures = dict(zip(certificate.signers, certificate.signatures, strict=True))
        for left_out in certificate.signers:
            rest = {signer: signature for signer, signature in signatures.items() if signer != left_out}
            fewer = QuorumCertificate.of(certificate.statement, rest, len(certificate.bitmap) * 8)
            yield CommitEntry(entry.position, entry.refs, CommitProof(fewer, entry.proof.links))


PROPERTIES = (
    Property(
        "proofs",
        "proofs",
        "The proof of a decision convinces every member, and none of anything that differs from it.",
        proofs,
        eventful,
    ),
)
