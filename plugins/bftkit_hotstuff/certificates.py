"""What quorum certificates are made of, behind a small interface.

A certificate is always the library's `QuorumCertificate`: one statement, a bit map of signers, signatures. A scheme
says how votes become one, and when one is well-formed. Which signatures are in it does not depend on the scheme: the
pipeline asks for them where it knows no options, see `EngineSpec.claims`.
"""

from collections.abc import Mapping
from typing import Protocol

from bftkit.core.certificate import QuorumCertificate, certificate_problem
from bftkit.core.membership import Membership
from bftkit.core.votes import VoteTally


class CertificateScheme(Protocol):
    """How a quorum's votes for one block are shown to others."""

    def tally(self, members: int) -> VoteTally:
        """Return an empty count of the votes in one round."""
        ...

    def problem(self, certificate: QuorumCertificate, membership: Membership, threshold: int) -> str | None:
        """Say what is wrong with the form of a certificate, or None."""
        ...


class Ed25519Certificates:
    """One signature for each signer: what verified votes hold already."""

    def tally(self, members: int) -> VoteTally:
        """Return an empty count of the votes in one round."""
        return VoteTally(members)

    def problem(self, certificate: QuorumCertificate, membership: Membership, threshold: int) -> str | None:
        """Say what is wrong with the form of a certificate, or None."""
        return certificate_problem(certificate, membership, threshold)


SCHEMES: Mapping[str, CertificateScheme] = {"ed25519": Ed25519Certificates()}
"""Every scheme by the name that the option `certificates` has for it."""
