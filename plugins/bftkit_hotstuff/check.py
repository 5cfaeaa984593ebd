"""What can be said about a message before the engine sees it: pure functions, run in the pipeline."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef, refs_problem
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.ids import DIGEST_BYTES, SIGNATURE_BYTES, ReplicaIndex, canonical
from bftkit.core.log import CommitEntry
from bftkit.core.numbers import number_problem
from bftkit.core.statement import Claim
from bftkit_hotstuff.certificates import SCHEMES
from bftkit_hotstuff.messages import (
    GENESIS_QC,
    VOTE_KIND,
    Block,
    Blocks,
    Certificates,
    FetchBlocks,
    Header,
    HotStuffMessage,
    Proposal,
    Timeout,
    TimeoutCertificate,
    Vote,
    refs_digest,
    round_of,
    timeout_statement,
)
from bftkit_hotstuff.rules import RULES, are_consecutive, follows

MAX_BLOCKS = 16
"""Blocks in one answer; whoever needs more asks again, from the last one on."""

MAX_LINKS = 1_024
"""Headers in the proof of one decision: so far may blocks rise above what is committed until a chain decides."""

_links = msgspec.msgpack.Decoder(tuple[Header, ...])


def window_length(context: EngineContext) -> int:
    """Return how many heights above the stable checkpoint may be voted for with batches in them.

    The last blocks of a chain are decided by nobody until more is to be ordered: there is room on top of them.
    """
    factor: int = context.options.window_factor
    interval = context.limits.checkpoint_interval
    return max(factor * interval, interval + RULES[context.options.rules].chain_length - 1)


# --- Form -----------------------------------------------------------------------------------------------------------


def check(context: EngineContext, sender: ReplicaIndex, message: HotStuffMessage) -> str | None:
    """Say what is wrong with a message by itself, or None; signatures are verified besides."""
    return _CHECKS[type(message)](context, sender, message)


def _round_problem(number: int) -> str | None:
    return "rounds begin at 1" if number < 1 else number_problem(number)


def _digest_problem(digest: bytes) -> str | None:
    return None if len(digest) == DIGEST_BYTES else "a digest has the wrong length"


def _refs_problem(context: EngineContext, refs: Sequence[BatchRef]) -> str | None:
    most: int = context.options.batches_per_block
    return refs_problem("a block", refs, most, len(context.membership), context.limits.max_batch_bytes)


def certificate_problem(context: EngineContext, certificate: QuorumCertificate) -> str | None:
    """Say what is wrong with the form of a QC, or None. That of the first block has one form only."""
    statement = certificate.statement
    if statement.view == 0:
        return None if certificate == GENESIS_QC else "a certificate of round 0 is not that of the first block"
    if statement.kind != VOTE_KIND or statement.position:
        return "a certificate is made of something else than votes for a block"
    scheme = SCHEMES[context.options.certificates]
    return (
        number_problem(statement.view)
        or _digest_problem(statement.content)
        or scheme.problem(certificate, context.membership, context.membership.quorum.quorum)
    )


def timeout_certificate_problem(context: EngineContext, tc: TimeoutCertificate) -> str | None:
    """Say what is wrong with the form of a TC, or None: it stands for a quorum, and holds the newest QC of theirs."""
    problem = _round_problem(tc.round)
    if problem is not None:
        return problem
    signers = [vote.signer for vote in tc.votes]
    if signers != sorted(set(signers)) or not all(0 <= signer < len(context.membership) for signer in signers):
        return "the signers of a timeout certificate are not distinct members in order"
    if len(signers) < context.membership.quorum.quorum:
        return "a timeout certificate has too few signers"
    if any(len(vote.signature) != SIGNATURE_BYTES for vote in tc.votes):
        return "a signature has the wrong length"
    if not all(0 <= vote.high_qc_round < tc.round for vote in tc.votes):
        return "a timeout certificate speaks of certificates that are newer than itself"
    if round_of(tc.high_qc) != tc.high_qc_round:
        return "a timeout certificate does not hold the newest certificate that it speaks of"
    return certificate_problem(context, tc.high_qc)


def _entry_problem(context: EngineContext, round_number: int, qc: QuorumCertificate, tc: Any) -> str | None:
    """Say why a round does not begin with these certificates, or None: one of them is of the round before."""
    if round_of(qc) >= round_number:
        return "a certificate is not of an earlier round"
    if are_consecutive(round_number, round_of(qc)):
        return None if tc is None else "a timeout certificate that nothing needs"
    if tc is None or not are_consecutive(round_number, tc.round):
        return "nothing says why the round before was skipped"
    return timeout_certificate_problem(context, tc)


def _block_problem(context: EngineContext, block: Block) -> str | None:
    problem = _round_problem(block.round) or number_problem(block.height)
    if problem is not None:
        return problem
    if round_of(block.justify) >= block.round:
        return "a block is not of a later round than its parent"
    if block.height < 1 or (block.justify == GENESIS_QC and block.height != 1):
        return "a block has an impossible height"
    if not 0 <= block.author < len(context.membership):
        return "a block of somebody who is no member"
    if context.options.leaders == "round_robin" and block.author != context.leaders.leader(block.round):
        return "a block of somebody who does not lead its round"
    return certificate_problem(context, block.justify) or _refs_problem(context, block.refs)


def _check_proposal(context: EngineContext, sender: ReplicaIndex, message: Proposal) -> str | None:
    block = message.block
    if sender != block.author:
        return "a proposal of somebody who is not its author"
    return _block_problem(context, block) or _entry_problem(context, block.round, block.justify, message.tc)


def _check_vote(context: EngineContext, sender: ReplicaIndex, message: Vote) -> str | None:
    return _round_problem(message.round) or _digest_problem(message.block)


def _check_timeout(context: EngineContext, sender: ReplicaIndex, message: Timeout) -> str | None:
    return (
        _round_problem(message.round)
        or certificate_problem(context, message.high_qc)
        or _entry_problem(context, message.round, message.high_qc, message.tc)
    )


def _check_certificates(context: EngineContext, sender: ReplicaIndex, message: Certificates) -> str | None:
    problem = certificate_problem(context, message.high_qc)
    if problem is not None or message.tc is None:
        return problem
    return timeout_certificate_problem(context, message.tc)


def _check_fetch_blocks(context: EngineContext, sender: ReplicaIndex, message: FetchBlocks) -> str | None:
    return _digest_problem(message.block) or number_problem(message.above)


def _check_blocks(context: EngineContext, sender: ReplicaIndex, message: Blocks) -> str | None:
    if len(message.blocks) > MAX_BLOCKS:
        return "too many blocks in one answer"
    expected = message.block
    for block in message.blocks:
        problem = _block_problem(context, block)
        if problem is not None:
            return problem
        if block.header().id != expected:
            return "a block that nobody has asked for"
        expected = block.justify.statement.content
    return _digest_problem(message.block) or number_problem(message.committed)


_CHECKS: dict[type, Callable[[EngineContext, ReplicaIndex, Any], str | None]] = {
    Proposal: _check_proposal,
    Vote: _check_vote,
    Timeout: _check_timeout,
    Certificates: _check_certificates,
    FetchBlocks: _check_fetch_blocks,
    Blocks: _check_blocks,
}


# --- What is inside ---------------------------------------------------------------------------------------------------


def claims(sender: ReplicaIndex, message: HotStuffMessage) -> Iterator[Claim]:
    """List every signed statement inside a message, nested certificates included."""
    match message:
        case Proposal():
            yield Claim(sender, message.statement(), message.signature)
            yield from message.block.justify.claims()
            yield from _timeout_claims(message.tc)
        case Vote():
            yield Claim(sender, message.statement(), message.signature)
        case Timeout():
            yield Claim(sender, message.statement(), message.signature)
            yield from message.high_qc.claims()
            yield from _timeout_claims(message.tc)
        case Certificates():
            yield from message.high_qc.claims()
            yield from _timeout_claims(message.tc)
        case Blocks():
            for block in message.blocks:
                yield from block.justify.claims()


def _timeout_claims(tc: TimeoutCertificate | None) -> Iterator[Claim]:
    if tc is not None:
        for vote in tc.votes:
            yield Claim(vote.signer, timeout_statement(tc.round, vote.high_qc_round), vote.signature)
        yield from tc.high_qc.claims()


def references(message: HotStuffMessage) -> Iterable[BatchRef]:
    """List the batches that a message names."""
    match message:
        case Proposal():
            return message.block.refs
        case Blocks():
            return [ref for block in message.blocks for ref in block.refs]
    return ()


def lane_key(message: HotStuffMessage) -> bytes:
    """Name the proposal that a message is about; everything about rounds and fetching shares one lane."""
    match message:
        case Proposal() | Vote():
            return b"%d" % message.round
    return b"rounds"


# --- Proofs -----------------------------------------------------------------------------------------------------------


def links_of(chain: Sequence[Header]) -> bytes:
    """Encode what leads from a deciding QC to a block: the headers from the certified one down to it."""
    return canonical(tuple(chain))


def headers_of(links: bytes) -> tuple[Header, ...] | None:
    """Decode the links of a proof; None where they are nothing that `links_of` makes."""
    try:
        chain = _links.decode(links)
    except msgspec.DecodeError:
        return None
    return chain if canonical(chain) == links else None


def commit_problem(context: EngineContext, entry: CommitEntry) -> str | None:
    """Say why an entry's proof does not show that it is decided, or None; signatures are verified besides."""
    certificate = entry.proof.certificate
    if certificate is None:
        return "a decision without votes"
    chain = headers_of(entry.proof.links)
    if not chain or len(chain) > MAX_LINKS:
        return "the links of a decision cannot be read"
    rules = RULES[context.options.rules]
    if certificate.statement.view != chain[0].round or certificate.statement.content != chain[0].id:
        return "the votes are about another block"
    if not rules.decides(chain[: rules.chain_length]):
        return "the certified chain does not decide"
    if not all(follows(child, parent) for child, parent in pairwise(chain)):
        return "the blocks of the chain do not follow each other"
    if chain[-1].height != entry.position:
        return "the chain leads to another position"
    if chain[-1].content != refs_digest(entry.refs):
        return "the chain leads to other batches"
    return (
        number_problem(entry.position, *(header.round for header in chain))
        or _refs_problem(context, entry.refs)
        or certificate_problem(context, certificate)
    )
