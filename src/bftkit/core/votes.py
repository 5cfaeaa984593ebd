"""Counting votes and keeping the proof when somebody votes twice."""

import msgspec

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import Claim, Statement


class Evidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Two statements for one slot under one key: proof of equivocation that anybody can check."""

    signer: ReplicaIndex
    first: Statement
    first_signature: bytes
    second: Statement
    second_signature: bytes

    def claims(self) -> tuple[Claim, Claim]:
        """List the two signatures, to be verified."""
        return (
            Claim(self.signer, self.first, self.first_signature),
            Claim(self.signer, self.second, self.second_signature),
        )

    @property
    def proves_equivocation(self) -> bool:
        """Say whether the statements contradict each other; their signatures must be verified besides."""
        return self.first.slot == self.second.slot and self.first.content != self.second.content


class VoteTally:
    """Count the votes for one slot: by content, one for each signer, whatever the order of arrival.

    The first verified vote of a signer counts; a second one for another content is evidence and
    counts for nothing. Memory is at most one vote for each member.
    """

    __slots__ = ("_masks", "_members", "_votes")

    def __init__(self, members: int) -> None:
        self._members = members
        self._votes: dict[ReplicaIndex, tuple[Statement, bytes]] = {}
        self._masks: dict[bytes, int] = {}

    def add(self, signer: ReplicaIndex, statement: Statement, signature: bytes) -> Evidence | None:
        """Count one verified vote; return evidence where the signer had said something else."""
        earlier = self._votes.get(signer)
        if earlier is None:
            self._votes[signer] = (statement, signature)
            self._masks[statement.content] = self._masks.get(statement.content, 0) | 1 << signer
            return None
        if earlier[0] == statement:
            return None
        return Evidence(signer, earlier[0], earlier[1], statement, signature)

    def has(self, signer: ReplicaIndex) -> bool:
        """Say whether a vote of this signer is counted."""
        return signer in self._votes

    def count(self, content: bytes) -> int:
        """Count the signers that agree on a content."""
        return self._masks.get(content, 0).bit_count()

    def certificate(self, content: bytes, threshold: int) -> QuorumCertificate | None:
        """Return the certificate for a content once enough have voted for it, else None.

        It holds exactly `threshold` signatures, those of the lowest indices.
        """
        if self.count(content) < threshold:
            return None
        chosen: dict[ReplicaIndex, bytes] = {}
        statement: Statement | None = None
        for signer in sorted(self._votes):
            vote, signature = self._votes[signer]
            if vote.content == content:
                chosen[signer] = signature
                statement = vote
                if len(chosen) == threshold:
                    break
        if statement is None:
            return None
        return QuorumCertificate.of(statement, chosen, self._members)

    def missing(self, content: bytes) -> tuple[ReplicaIndex, ...]:
        """List the members that have not voted for a content."""
        mask = self._masks.get(content, 0)
        return tuple(index for index in range(self._members) if not mask >> index & 1)
