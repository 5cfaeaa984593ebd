"""What is looked at before a message is believed, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.certificate import QuorumCertificate, certificate_problem
from bftkit.core.engine import EngineContext
from bftkit.core.ids import SIGNATURE_BYTES
from bftkit.core.log import CommitEntry
from bftkit.testing.mutants import Mutant, Schedules
from bftkit_pbft.messages import (
    PreparedProof,
    ViewChange,
    ViewChangeCopy,
)
from bftkit_pbft.mutants.schedules import CALM, VIEWS


def _no_claims(original: Any) -> Any:
    return lambda sender, message: iter(())


def _thin_proof(original: Any) -> Any:
    def problem_of(context: EngineContext, view: int, proof: PreparedProof) -> str | None:
        problem: str | None = original(context, view, proof)
        return None if problem == _thinness(context, proof.certificate) else problem

    return problem_of


def _thin_decision(original: Any) -> Any:
    def commit_problem(context: EngineContext, entry: CommitEntry) -> str | None:
        problem: str | None = original(context, entry)
        certificate = entry.proof.certificate
        return None if certificate is not None and problem == _thinness(context, certificate) else problem

    return commit_problem


def _thinness(context: EngineContext, certificate: QuorumCertificate) -> str | None:
    return certificate_problem(certificate, context.membership, context.membership.quorum.quorum)


def _copies_unclaimed(original: Any) -> Any:
    def claims(sender: int, message: Any) -> Any:
        return iter(()) if isinstance(message, ViewChangeCopy) else original(sender, message)

    return claims


def _make_up_copies(to: int, message: Any) -> list[tuple[int, Any]]:
    """Hand on VIEW-CHANGEs that the others have never said."""
    if not isinstance(message, ViewChange):
        return [(to, message)]
    made_up = msgspec.structs.replace(message, prepared=(), signature=bytes(SIGNATURE_BYTES))
    return [(to, message), *((to, ViewChangeCopy(signer, made_up)) for signer in range(4))]


MUTANTS = (
    Mutant(
        "pbft: signatures are not looked at",
        "A message's signatures are not verified (PBFT §3).",
        "bftkit_pbft.check:claims",
        _no_claims,
        (Schedules(profile=CALM, liar="wrong signatures"), Schedules(profile=VIEWS, liar="wrong signatures")),
    ),
    Mutant(
        "pbft: any proof is good",
        "A prepared certificate is taken without a look at its votes (PBFT §4.4).",
        "bftkit_pbft.check:_prepared_problem",
        _thin_proof,
        (Schedules(profile=VIEWS, liar="thin certificates"),),
    ),
    Mutant(
        "pbft: any decision is good",
        "A decided position is taken from a peer without a look at its proof.",
        "bftkit_pbft.check:commit_problem",
        _thin_decision,
        (Schedules(profile=VIEWS, liar="thin certificates"),),
    ),
    Mutant(
        "pbft: signatures inside copies are not looked at",
        "Whoever hands on a VIEW-CHANGE is believed to have it from its signer.",
        "bftkit_pbft.check:claims",
        _copies_unclaimed,
        (Schedules(profile=VIEWS, liar="making up copies", speak=_make_up_copies),),
    ),
)
"""All of them."""
