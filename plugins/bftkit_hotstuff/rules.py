"""The rules of the family, behind a small interface: when to vote, what is committed, and what a leader builds on.

Both rule sets here count a chain only where parents are linked *and* rounds follow each other without a gap. Chains of
parents alone are not enough: between them, in a round that was skipped, another branch may have been certified.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from bftkit.core.certificate import QuorumCertificate
from bftkit_hotstuff.messages import Block, Header, TimeoutCertificate, round_of


class Rules(Protocol):
    """What differs between members of the family."""

    chain_length: int
    """Blocks, each certified and in successive rounds, that decide the lowest of them."""

    def may_vote(self, block: Block, tc: TimeoutCertificate | None, lock: QuorumCertificate | None) -> bool:
        """Say whether a block of the current round, for which no vote was cast yet, may be voted for."""
        ...

    def lock_of(self, block: Block, parent: Block | None) -> QuorumCertificate | None:
        """Return the QC of the block that a vote for this one locks, or None where these rules lock nothing."""
        ...

    def decides(self, chain: Sequence[Header]) -> bool:
        """Say whether a certified chain of `chain_length` blocks, the newest first, commits its last with all below."""
        ...

    def extend(
        self, round_number: int, high_qc: QuorumCertificate, tc: TimeoutCertificate | None
    ) -> tuple[QuorumCertificate, TimeoutCertificate | None]:
        """Return the QC of what a leader proposes to build on, and the TC that shows why its round has begun.

        So that every correct member may vote for it, whatever the newest QC is that it knows or is locked on.
        """
        ...


def follows(child: Header, parent: Header) -> bool:
    """Say whether one block is built on the other."""
    return child.parent == parent.id and child.parent_round == parent.round and child.height == parent.height + 1


def is_unbroken(chain: Sequence[Header]) -> bool:
    """Say whether blocks, the newest first, are built on each other in successive rounds."""
    return all(
        are_consecutive(child.round, parent.round) and follows(child, parent) for child, parent in pairwise(chain)
    )


def are_consecutive(later: int, earlier: int) -> bool:
    """Say whether no round lies between two others."""
    return later == earlier + 1


def on_the_newest(
    round_number: int, high_qc: QuorumCertificate, tc: TimeoutCertificate | None
) -> tuple[QuorumCertificate, TimeoutCertificate | None]:
    """Return the newest QC and, where it is not of the round before, the TC that is.

    Whoever is in a round has taken the QC inside its TC, so none is older than those that the TC speaks of.
    """
    return high_qc, None if are_consecutive(round_number, round_of(high_qc)) else tc


class Jolteon:
    """Two chains (Gelashvili et al., FC'22, Fig. 2). A timeout certificate is the proof that unlocks."""

    chain_length = 2

    def may_vote(self, block: Block, tc: TimeoutCertificate | None, lock: QuorumCertificate | None) -> bool:
        """Vote if "r = qc.r + 1", or "r = tc.r + 1 and qc.r >= max {qc_high.r | qc_high in tc}" (Fig. 2, Vote)."""
        justified = round_of(block.justify)
        if are_consecutive(block.round, justified):
            return True
        return tc is not None and are_consecutive(block.round, tc.round) and justified >= tc.high_qc_round

    def lock_of(self, block: Block, parent: Block | None) -> QuorumCertificate | None:
        """Lock nothing: what a vote binds its signer to is in the TIMEOUTs that follow, through the newest QC."""
        return None

    def decides(self, chain: Sequence[Header]) -> bool:
        """Commit with "two adjacent certified blocks", with "consecutive round numbers" (Fig. 2, Commit)."""
        return len(chain) == self.chain_length and is_unbroken(chain)

    def extend(
        self, round_number: int, high_qc: QuorumCertificate, tc: TimeoutCertificate | None
    ) -> tuple[QuorumCertificate, TimeoutCertificate | None]:
        """Extend qc_high, with the TC of the round before if there is no QC of it (Fig. 2, Propose)."""
        return on_the_newest(round_number, high_qc, tc)


class ThreeChain:
    """Three chains (Yin et al., PODC'19, §5 and Algorithm 4). A member is locked on the grandparent's QC."""

    chain_length = 3

    def may_vote(self, block: Block, tc: TimeoutCertificate | None, lock: QuorumCertificate | None) -> bool:
        """Vote if the block "extends from lockedQC.node" (safety) or "qc.viewNumber > lockedQC.viewNumber" (liveness).

        Rounds rise along a branch, and a round has one certified block at most. So a block whose QC is of the lock's
        round or of a later one does either, and no other block does. The round must have begun with a QC or a TC, as
        everywhere.
        """
        justified = round_of(block.justify)
        began = are_consecutive(block.round, justified) or (tc is not None and are_consecutive(block.round, tc.round))
        return began and (lock is None or justified >= round_of(lock))

    def lock_of(self, block: Block, parent: Block | None) -> QuorumCertificate | None:
        """Lock the block two below: the certified parent of a certified parent (Algorithm 5, "precommit")."""
        return parent.justify if parent is not None else None

    def decides(self, chain: Sequence[Header]) -> bool:
        """Commit with three blocks in successive rounds, in place of three direct parents (§5, Algorithm 5)."""
        return len(chain) == self.chain_length and is_unbroken(chain)

    def extend(
        self, round_number: int, high_qc: QuorumCertificate, tc: TimeoutCertificate | None
    ) -> tuple[QuorumCertificate, TimeoutCertificate | None]:
        """Extend the block of "the highest generic QC" (Algorithm 4, createLeaf); newer than any lock of a quorum."""
        return on_the_newest(round_number, high_qc, tc)


RULES: Mapping[str, Rules] = {"jolteon": Jolteon(), "three_chain": ThreeChain()}
"""Every rule set by the name that the option `rules` has for it."""
