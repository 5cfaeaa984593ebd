"""Quorum certificates: one statement, many signatures."""

from collections.abc import Iterator, Mapping

import msgspec

from bftkit.core.ids import SIGNATURE_BYTES, ReplicaIndex
from bftkit.core.membership import Membership
from bftkit.core.statement import Claim, Statement


class QuorumCertificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Proof that enough members signed one statement."""

    statement: Statement
    bitmap: bytes
    """Bit i of byte i // 8 (lowest first) is set where member i signed; ceil(n / 8) bytes."""
    signatures: tuple[bytes, ...]
    """One for each set bit, in the order of the members."""

    @classmethod
    def of(cls, statement: Statement, signatures: Mapping[ReplicaIndex, bytes], members: int) -> "QuorumCertificate":
        """Assemble a certificate from verified signatures."""
        signers = sorted(signatures)
        mask = 0
        for signer in signers:
            mask |= 1 << signer
        bitmap = mask.to_bytes((members + 7) // 8, "little")
        return cls(statement, bitmap, tuple(signatures[signer] for signer in signers))

    @property
    def signers(self) -> tuple[ReplicaIndex, ...]:
        """List who signed, by index."""
        mask = int.from_bytes(self.bitmap, "little")
        return tuple(index for index in range(mask.bit_length()) if mask >> index & 1)

    def claims(self) -> Iterator[Claim]:
        """List every signature inside, to be verified."""
        for signer, signature in zip(self.signers, self.signatures, strict=True):
            yield Claim(signer, self.statement, signature)


def certificate_problem(certificate: QuorumCertificate, membership: Membership, threshold: int) -> str | None:
    """Say what is wrong with the form of a certificate, or None; signatures are the pipeline's to verify."""
    members = len(membership)
    if len(certificate.bitmap) != (members + 7) // 8:
        return "the bit map of signers has the wrong length"
    mask = int.from_bytes(certificate.bitmap, "little")
    if mask >> members:
        return "a signer is not a member"
    if len(certificate.signatures) != mask.bit_count():
        return "signers and signatures differ in number"
    if mask.bit_count() < threshold:
        return f"{mask.bit_count()} signatures where {threshold} are needed"
    if any(len(signature) != SIGNATURE_BYTES for signature in certificate.signatures):
        return "a signature has the wrong length"
    return None
