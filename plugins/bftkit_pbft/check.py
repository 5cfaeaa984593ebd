"""What can be said about a message before the engine sees it: pure functions, run in the pipeline."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bftkit.core.batch import BatchRef, refs_problem
from bftkit.core.certificate import certificate_problem
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.ids import DIGEST_BYTES, ReplicaIndex
from bftkit.core.log import CommitEntry
from bftkit.core.numbers import number_problem
from bftkit.core.statement import Claim
from bftkit_pbft.messages import (
    COMMIT_KIND,
    PREPARE_KIND,
    CommitVote,
    FetchNewView,
    FetchProposal,
    FetchViewChange,
    NewView,
    NewViewCopy,
    PbftMessage,
    Prepare,
    PreparedProof,
    PrePrepare,
    PrePrepareCopy,
    Suspect,
    ViewChange,
    ViewChangeCopy,
    proposal_digest,
)


def window_length(context: EngineContext) -> int:
    """Return L, how many positions above the stable checkpoint may be voted on (PBFT §4.3)."""
    factor: int = context.options.window_factor
    return factor * context.limits.checkpoint_interval


# --- Form -----------------------------------------------------------------------------------------------------------


def check(context: EngineContext, sender: ReplicaIndex, message: PbftMessage) -> str | None:
    """Say what is wrong with a message by itself, or None; signatures are verified besides."""
    return _CHECKS[type(message)](context, sender, message)


def _place_problem(view: int, position: int) -> str | None:
    return "positions begin at 1" if position < 1 else number_problem(view, position)


def _digest_problem(digest: bytes) -> str | None:
    return None if len(digest) == DIGEST_BYTES else "a digest has the wrong length"


def _refs_problem(context: EngineContext, refs: Sequence[BatchRef]) -> str | None:
    most: int = context.options.batches_per_proposal
    return refs_problem("a proposal", refs, most, len(context.membership), context.limits.max_batch_bytes)


def _check_pre_prepare(context: EngineContext, sender: ReplicaIndex, message: PrePrepare) -> str | None:
    problem = _place_problem(message.view, message.position)
    if problem is not None:
        return problem
    if sender != context.leaders.leader(message.view):
        return "a pre-prepare of somebody who is not the primary of its view"
    if not message.refs:
        return "a pre-prepare names no batch; null proposals stand in new views only"
    return _refs_problem(context, message.refs)


def _check_vote(context: EngineContext, sender: ReplicaIndex, message: Prepare | CommitVote) -> str | None:
    return _place_problem(message.view, message.position) or _digest_problem(message.digest)


def _checkpoint_problem(context: EngineContext, checkpoint: CheckpointCertificate) -> str | None:
    if not checkpoint.is_about_its_checkpoint():
        return "a certificate is about another checkpoint"
    if checkpoint.certificate is None:
        return None
    if checkpoint.position < 1:
        return "the start of an epoch has no certificate"
    quorum = context.membership.quorum.quorum
    return number_problem(checkpoint.position) or certificate_problem(
        checkpoint.certificate, context.membership, quorum
    )


def _prepared_problem(context: EngineContext, view: int, proof: PreparedProof) -> str | None:
    statement = proof.certificate.statement
    if statement.kind != PREPARE_KIND:
        return "a prepared certificate is made of other votes"
    if statement.view >= view:
        return "a prepared certificate is not of an earlier view"
    if statement.content != proposal_digest(proof.refs):
        return "a prepared certificate is for another proposal"
    quorum = context.membership.quorum.quorum
    return (
        _place_problem(statement.view, statement.position)
        or certificate_problem(proof.certificate, context.membership, quorum)
        or _refs_problem(context, proof.refs)
    )


def _check_view_change(context: EngineContext, sender: ReplicaIndex, message: ViewChange) -> str | None:
    if message.view < 1 or number_problem(message.view):
        return "no view change leads to this view"
    problem = _checkpoint_problem(context, message.checkpoint)
    if problem is not None:
        return problem
    last = message.checkpoint.position
    highest = last + window_length(context)
    for proof in message.prepared:
        if not last < proof.position <= highest:
            return "prepared certificates are out of order or out of the window"
        last = proof.position
        problem = _prepared_problem(context, message.view, proof)
        if problem is not None:
            return problem
    return None


def _check_new_view(context: EngineContext, sender: ReplicaIndex, message: NewView) -> str | None:
    members = len(context.membership)
    if message.view < 1 or number_problem(message.view):
        return "no view change leads to this view"
    if sender != context.leaders.leader(message.view):
        return "a new view of somebody who is not its primary"
    signers = [name.signer for name in message.votes]
    if signers != sorted(set(signers)) or not all(0 <= signer < members for signer in signers):
        return "the view changes of a new view are not of distinct members in order"
    if len(signers) < context.membership.quorum.quorum:
        return "a new view names too few view changes"
    if any(len(name.digest) != DIGEST_BYTES for name in message.votes):
        return "a digest has the wrong length"
    if len(message.proposals) > window_length(context):
        return "a new view begins with more proposals than the window holds"
    for index, proposal in enumerate(message.proposals):
        if proposal.position != message.proposals[0].position + index:
            return "the proposals of a new view have a gap"
        problem = _place_problem(message.view, proposal.position) or _refs_problem(context, proposal.refs)
        if problem is not None:
            return problem
    return None


def _check_signer(context: EngineContext, signer: ReplicaIndex) -> str | None:
    return None if 0 <= signer < len(context.membership) else "a copy names a signer who is no member"


def _check_fetch_view_change(context: EngineContext, sender: ReplicaIndex, message: FetchViewChange) -> str | None:
    return number_problem(message.view) or _check_signer(context, message.signer) or _digest_problem(message.digest)


def _check_view(context: EngineContext, sender: ReplicaIndex, message: FetchNewView | Suspect) -> str | None:
    return number_problem(message.view)


def _check_fetch_proposal(context: EngineContext, sender: ReplicaIndex, message: FetchProposal) -> str | None:
    return _place_problem(message.view, message.position)


def _check_view_change_copy(context: EngineContext, sender: ReplicaIndex, message: ViewChangeCopy) -> str | None:
    return _check_signer(context, message.signer) or _check_view_change(context, message.signer, message.view_change)


def _check_new_view_copy(context: EngineContext, sender: ReplicaIndex, message: NewViewCopy) -> str | None:
    return _check_signer(context, message.signer) or _check_new_view(context, message.signer, message.new_view)


def _check_pre_prepare_copy(context: EngineContext, sender: ReplicaIndex, message: PrePrepareCopy) -> str | None:
    return _check_signer(context, message.signer) or _check_pre_prepare(context, message.signer, message.pre_prepare)


_CHECKS: dict[type, Callable[[EngineContext, ReplicaIndex, Any], str | None]] = {
    PrePrepare: _check_pre_prepare,
    Prepare: _check_vote,
    CommitVote: _check_vote,
    ViewChange: _check_view_change,
    NewView: _check_new_view,
    FetchViewChange: _check_fetch_view_change,
    ViewChangeCopy: _check_view_change_copy,
    Suspect: _check_view,
    FetchNewView: _check_view,
    NewViewCopy: _check_new_view_copy,
    FetchProposal: _check_fetch_proposal,
    PrePrepareCopy: _check_pre_prepare_copy,
}


# --- What is inside ---------------------------------------------------------------------------------------------------


def claims(sender: ReplicaIndex, message: PbftMessage) -> Iterator[Claim]:
    """List every signed statement inside a message, nested certificates included."""
    match message:
        case ViewChangeCopy(signer, view_change):
            yield from claims(signer, view_change)
        case NewViewCopy(signer, new_view):
            yield from claims(signer, new_view)
        case PrePrepareCopy(signer, pre_prepare):
            yield from claims(signer, pre_prepare)
        case PrePrepare() | Prepare() | CommitVote() | NewView():
            yield Claim(sender, message.statement(), message.signature)
        case ViewChange():
            yield Claim(sender, message.statement(), message.signature)
            if message.checkpoint.certificate is not None:
                yield from message.checkpoint.certificate.claims()
            for proof in message.prepared:
                yield from proof.certificate.claims()


def references(message: PbftMessage) -> Iterable[BatchRef]:
    """List the batches that a message names."""
    match message:
        case PrePrepare():
            return message.refs
        case PrePrepareCopy():
            return message.pre_prepare.refs
        case NewView():
            return [ref for proposal in message.proposals for ref in proposal.refs]
        case ViewChange():
            return [ref for proof in message.prepared for ref in proof.refs]
        case NewViewCopy():
            return references(message.new_view)
        case ViewChangeCopy():
            return references(message.view_change)
    return ()


def lane_key(message: PbftMessage) -> bytes:
    """Name the proposal that a message is about; everything about view changes shares one lane."""
    match message:
        case PrePrepare() | Prepare() | CommitVote() | FetchProposal():
            return b"%d" % message.position
        case PrePrepareCopy():
            return b"%d" % message.pre_prepare.position
    return b"view change"


def commit_problem(context: EngineContext, entry: CommitEntry) -> str | None:
    """Say why an entry's proof does not show that it is decided, or None; signatures are verified besides."""
    certificate = entry.proof.certificate
    if certificate is None:
        return "a decision without votes"
    statement = certificate.statement
    if statement.kind != COMMIT_KIND:
        return "a decision is proved by other votes than commits"
    if statement.position != entry.position:
        return "the votes are about another position"
    if statement.content != proposal_digest(entry.refs):
        return "the votes are about other batches"
    if entry.proof.links:
        return "a decision of PBFT has no links"
    return (
        _place_problem(statement.view, statement.position)
        or _refs_problem(context, entry.refs)
        or certificate_problem(certificate, context.membership, context.membership.quorum.quorum)
    )
