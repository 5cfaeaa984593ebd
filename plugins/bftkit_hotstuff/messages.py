"""What HotStuff replicas say to each other, and what they write down.

A *block* is an ordered list of batches on top of a parent. Its id is the digest of its header, which says everything
that must be agreed on: round, height, parent, who certified the parent, author and batches; never a signature. A vote
names the id, so a *quorum certificate* (QC) is a quorum's votes for one block: its statement's view is the round, its
content the id. A *timeout certificate* (TC) is a quorum's word to have given up a round, each with the round of the
newest QC that its signer knew (Jolteon, FC'22, §3).
"""

from collections.abc import Sequence

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ZERO_DIGEST, ReplicaIndex, digest_of
from bftkit.core.statement import SignedMessage, Statement

PROPOSAL_KIND = "proposal"
VOTE_KIND = "vote"
TIMEOUT_KIND = "timeout"


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Root of everything here that is not signed by itself: an array without names, nothing added."""


def refs_digest(refs: Sequence[BatchRef]) -> bytes:
    """Return the digest of a block's batches."""
    return digest_of("hotstuff batches", refs)


# --- Blocks, HotStuff §4.1 and Jolteon §3 ---------------------------------------------------------------------------


class Header(Part, frozen=True):
    """What a block says, in so few bytes that a chain of headers can prove a decision."""

    round: int
    height: int
    """The block's position: that of its parent and one."""
    parent: bytes
    """Id of the parent."""
    parent_round: int
    voters: bytes
    """Bit map of those who certified the parent: all that hold this block judge leaders by the same history."""
    author: ReplicaIndex
    content: bytes
    """Digest of the batches, see `refs_digest`."""

    @property
    def id(self) -> bytes:
        """Return the block's id, which votes name."""
        return digest_of("hotstuff block", self)


class Block(Part, frozen=True):
    """Batches on top of a certified parent."""

    round: int
    height: int
    author: ReplicaIndex
    refs: tuple[BatchRef, ...]
    justify: QuorumCertificate
    """A quorum's votes for the parent."""

    def header(self) -> Header:
        """Return what the block's id is the digest of."""
        parent = self.justify.statement
        return Header(
            self.round,
            self.height,
            parent.content,
            parent.view,
            self.justify.bitmap,
            self.author,
            refs_digest(self.refs),
        )


GENESIS = Header(0, 0, ZERO_DIGEST, 0, b"", 0, refs_digest(()))
"""The block that every epoch begins with. It is the same in all of them: the domain of each vote names the epoch."""

GENESIS_QC = QuorumCertificate(Statement(VOTE_KIND, 0, 0, GENESIS.id), b"", ())
"""Certifies the first block: the statement that the epoch starts from vouches for it, nobody has to sign."""


def round_of(certificate: QuorumCertificate) -> int:
    """Return the round of the block that a QC certifies."""
    return certificate.statement.view


def block_of(certificate: QuorumCertificate) -> bytes:
    """Return the id of the block that a QC certifies."""
    return certificate.statement.content


def timeout_statement(round_number: int, high_qc_round: int) -> Statement:
    """Return what a member signs that gives up a round: the round of its newest QC is signed too (Jolteon Fig. 2)."""
    return Statement(TIMEOUT_KIND, round_number, 0, digest_of("hotstuff timeout", high_qc_round))


class TimeoutVote(Part, frozen=True):
    """One member's part of a TC."""

    signer: ReplicaIndex
    high_qc_round: int
    """Round of the newest QC that it knew."""
    signature: bytes


class TimeoutCertificate(Part, frozen=True):
    """A quorum has given up a round; the highest of the rounds that they name is that of the QC inside."""

    round: int
    votes: tuple[TimeoutVote, ...]
    """By signer."""
    high_qc: QuorumCertificate

    @property
    def high_qc_round(self) -> int:
        """Return the highest round that a signer's newest QC had."""
        return max(vote.high_qc_round for vote in self.votes)


# --- Messages -------------------------------------------------------------------------------------------------------


class Proposal(SignedMessage, tag="proposal", frozen=True):
    """The leader's block for a round; it carries references, never bodies."""

    block: Block
    tc: TimeoutCertificate | None
    """Where the parent is not of the round before: why that round was skipped."""
    signature: bytes = b""

    @property
    def round(self) -> int:
        """Return the round that the block is for."""
        return self.block.round

    def statement(self) -> Statement:
        """Return what the leader vouches for."""
        return Statement(PROPOSAL_KIND, self.block.round, 0, self.block.header().id)


class Vote(SignedMessage, tag="vote", frozen=True):
    """The word to hold a block and its bodies, and to vote for no other in its round; it goes to the next leader."""

    round: int
    block: bytes
    """Its id."""
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the sender vouches for; of all votes in one round a correct member gives one."""
        return Statement(VOTE_KIND, self.round, 0, self.block)


class Timeout(SignedMessage, tag="timeout", frozen=True):
    """The sender gives up a round: it will never vote in it."""

    round: int
    high_qc: QuorumCertificate
    tc: TimeoutCertificate | None
    """Where the newest QC is not of the round before: how the sender came into this round."""
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the sender vouches for."""
        return timeout_statement(self.round, round_of(self.high_qc))


class Certificates(Part, tag="certificates", frozen=True):
    """What the sender's round rests on, for whoever is in an earlier one."""

    high_qc: QuorumCertificate
    tc: TimeoutCertificate | None

    @property
    def round(self) -> int:
        """Return the round that they lead to."""
        return max(round_of(self.high_qc), self.tc.round if self.tc is not None else 0) + 1


class FetchBlocks(Part, tag="fetch-blocks", frozen=True):
    """Ask for a certified block, and for its ancestors above a height."""

    block: bytes
    above: int


class Blocks(Part, tag="blocks", frozen=True):
    """A block and ancestors of it, each behind its child; none where the block is not here any more."""

    block: bytes
    """Id of the block that was asked for."""
    committed: int
    """Height up to which the sender has committed."""
    blocks: tuple[Block, ...]


HotStuffMessage = Proposal | Vote | Timeout | Certificates | FetchBlocks | Blocks
"""Everything that one replica sends another."""


# --- Records --------------------------------------------------------------------------------------------------------


class Voted(Part, tag="voted", frozen=True):
    """This block was voted for; durable before the vote for it, and its author's proposal, leave."""

    block: Block
    tc: TimeoutCertificate | None
    """What came with it."""
    high_qc: QuorumCertificate | None
    """The newest QC, where it is not the one in the block."""
    lock: QuorumCertificate | None
    """The QC of the block that is locked, where the rules know a lock."""


class GaveUp(Part, tag="gave-up", frozen=True):
    """This round was given up, with these words; durable before the TIMEOUT for it leaves."""

    round: int
    high_qc: QuorumCertificate
    tc: TimeoutCertificate | None
    lock: QuorumCertificate | None


class Past(Part, frozen=True):
    """What leaders are judged by: of a committed block, its author and who certified its parent."""

    height: int
    author: ReplicaIndex
    voters: bytes


class Snapshot(Part, tag="snapshot", frozen=True):
    """All that earlier records said about heights above a stable checkpoint."""

    voted_round: int
    """No vote in this round or below."""
    voted_block: bytes
    """Id of the block that was voted for last."""
    voted_tc: TimeoutCertificate | None
    """What came with it: its author may have to say it again, when the newest certificates are others."""
    gave_up: GaveUp | None
    """The last round that was given up."""
    high_qc: QuorumCertificate
    tc: TimeoutCertificate | None
    lock: QuorumCertificate | None
    anchor: Header | None
    """The block at the checkpoint, where it is known."""
    blocks: tuple[Block, ...]
    """Those above it, parents first."""
    history: tuple[Past, ...]
    """Of the committed blocks up to the checkpoint, the latest."""


HotStuffRecord = Voted | GaveUp | Snapshot
"""Everything that a replica writes down."""
