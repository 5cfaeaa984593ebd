"""What is looked at before a message is believed, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.engine import EngineContext
from bftkit.core.ids import SIGNATURE_BYTES
from bftkit.core.log import CommitEntry
from bftkit.testing.mutants import Mutant
from bftkit_hotstuff.check import certificate_problem
from bftkit_hotstuff.messages import Certificates, Proposal, TimeoutCertificate, TimeoutVote
from bftkit_hotstuff.mutants.schedules import calm, rough


def _no_claims(original: Any) -> Any:
    return lambda sender, message: iter(())


def _no_timeout_claims(original: Any) -> Any:
    return lambda tc: iter(())


def _thin_decision(original: Any) -> Any:
    def commit_problem(context: EngineContext, entry: CommitEntry) -> str | None:
        problem: str | None = original(context, entry)
        certificate = entry.proof.certificate
        return None if certificate is not None and problem == certificate_problem(context, certificate) else problem

    return commit_problem


def _one_vote(original: Any) -> Any:
    def on_vote(state: Any, event: Any) -> Any:
        real = state.quorum
        state.quorum = msgspec.structs.replace(real, quorum=1)
        try:
            return original(state, event)
        finally:
            state.quorum = real

    return on_vote


def _make_up_a_certificate(to: int, message: Any) -> list[tuple[int, Any]]:
    """Show with each proposal a TC that nobody has signed."""
    if not isinstance(message, Proposal):
        return [(to, message)]
    newest = message.block.justify
    votes = tuple(TimeoutVote(who, newest.statement.view, bytes(SIGNATURE_BYTES)) for who in range(3))
    return [(to, message), (to, Certificates(newest, TimeoutCertificate(message.round + 700, votes, newest)))]


MUTANTS = (
    Mutant(
        "hotstuff: signatures are not looked at",
        "A message's signatures are not verified.",
        "bftkit_hotstuff.check:claims",
        _no_claims,
        (calm(liar="wrong signatures"), rough(liar="wrong signatures")),
    ),
    Mutant(
        "hotstuff: signatures of timeout certificates are not looked at",
        "A TC is believed though nobody has signed it.",
        "bftkit_hotstuff.check:_timeout_claims",
        _no_timeout_claims,
        (calm(liar="making up timeouts", speak=_make_up_a_certificate),),
    ),
    Mutant(
        "hotstuff: any decision is good",
        "A decided position is taken from a peer without a look at the votes of its proof.",
        "bftkit_hotstuff.check:commit_problem",
        _thin_decision,
        (rough(liar="thin certificates"),),
    ),
    Mutant(
        "hotstuff: one signer is enough",
        "A single vote makes a QC.",
        "bftkit_hotstuff.voting:on_vote",
        _one_vote,
        (calm(),),
    ),
)
"""All of them."""
