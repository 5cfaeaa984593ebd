"""What PBFT replicas say to each other, and what they write down.

A *proposal* is an ordered list of batches for one position. Its digest does not name the view, so that
a proposal that moves to a later view keeps it (PBFT §4.4). The null proposal has no batches.
"""

from collections.abc import Sequence

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import ReplicaIndex, digest_of
from bftkit.core.statement import SignedMessage, Statement

PRE_PREPARE_KIND = "pre-prepare"
PREPARE_KIND = "prepare"
COMMIT_KIND = "commit"
VIEW_CHANGE_KIND = "view-change"
NEW_VIEW_KIND = "new-view"


def proposal_digest(refs: Sequence[BatchRef]) -> bytes:
    """Return the digest that PREPARE and COMMIT name: of the batches alone, whatever the view."""
    return digest_of("pbft proposal", refs)


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Root of everything here that is not signed by itself: an array without names, nothing added."""


# --- Normal case, PBFT §4.2 ----------------------------------------------------------------------------------------


class PrePrepare(SignedMessage, tag="pre-prepare", frozen=True):
    """The primary's proposal for a position; it carries references, never bodies."""

    view: int
    position: int
    refs: tuple[BatchRef, ...]
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the primary vouches for."""
        return Statement(PRE_PREPARE_KIND, self.view, self.position, proposal_digest(self.refs))


class Prepare(SignedMessage, tag="prepare", frozen=True):
    """The word to hold a proposal and to accept no other for its view and position; the primary gives it too."""

    view: int
    position: int
    digest: bytes
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the sender vouches for."""
        return Statement(PREPARE_KIND, self.view, self.position, self.digest)


class CommitVote(SignedMessage, tag="commit", frozen=True):
    """COMMIT of the paper: the sender has a prepared certificate for the proposal."""

    view: int
    position: int
    digest: bytes
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the sender vouches for."""
        return Statement(COMMIT_KIND, self.view, self.position, self.digest)


# --- View changes, PBFT §4.4 ---------------------------------------------------------------------------------------


class Suspect(Part, tag="suspect", frozen=True):
    """The sender has waited too long for the primary of this view, but still takes part in the view."""

    view: int


class PreparedProof(Part, frozen=True):
    """An element of the set P: a quorum's PREPAREs for a proposal, and the proposal."""

    certificate: QuorumCertificate
    """Over the "prepare" statement."""
    refs: tuple[BatchRef, ...]

    @property
    def view(self) -> int:
        """Return the view in which it prepared."""
        return self.certificate.statement.view

    @property
    def position(self) -> int:
        """Return the position that it is for."""
        return self.certificate.statement.position


class ViewChange(SignedMessage, tag="view-change", frozen=True):
    """VIEW-CHANGE: the sender gives up all views below this one and says what it knows."""

    view: int
    """The view to move to."""
    checkpoint: CheckpointCertificate
    """The sender's stable checkpoint, h and C of the paper."""
    prepared: tuple[PreparedProof, ...]
    """P: for each position in (h, h + L] the prepared certificate of the highest view, by position."""
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the sender vouches for.

        The digest covers what the certificates say, not their signatures: two copies with different
        certificates for the same facts are one VIEW-CHANGE.
        """
        facts = (self.checkpoint.checkpoint.statement(), [proof.certificate.statement for proof in self.prepared])
        return Statement(VIEW_CHANGE_KIND, self.view, 0, digest_of("pbft view change", facts))


class ViewChangeName(Part, frozen=True):
    """How a NEW-VIEW names a VIEW-CHANGE."""

    signer: ReplicaIndex
    digest: bytes
    """Content of its statement."""


class Reproposal(Part, frozen=True):
    """An element of the set O: the proposal that a new view begins with at a position."""

    position: int
    refs: tuple[BatchRef, ...]


class NewView(SignedMessage, tag="new-view", frozen=True):
    """NEW-VIEW: the VIEW-CHANGEs that the new primary starts from, by name, and the set O.

    It stands for the pre-prepares in O: there are no separate ones.
    """

    view: int
    votes: tuple[ViewChangeName, ...]
    """V, by signer."""
    proposals: tuple[Reproposal, ...]
    """O, by position, without gaps; a null proposal where nothing prepared."""
    signature: bytes = b""

    def statement(self) -> Statement:
        """Return what the primary of the view vouches for."""
        return Statement(NEW_VIEW_KIND, self.view, 0, digest_of("pbft new view", (self.votes, self.proposals)))


# --- Asking again -------------------------------------------------------------------------------------------------


class FetchViewChange(Part, tag="fetch-view-change", frozen=True):
    """Ask for a VIEW-CHANGE that a NEW-VIEW names."""

    view: int
    signer: ReplicaIndex
    digest: bytes


class ViewChangeCopy(Part, tag="view-change-copy", frozen=True):
    """Somebody's VIEW-CHANGE, handed on."""

    signer: ReplicaIndex
    view_change: ViewChange


class FetchNewView(Part, tag="fetch-new-view", frozen=True):
    """Ask for the NEW-VIEW that began this view, or a later one."""

    view: int


class NewViewCopy(Part, tag="new-view-copy", frozen=True):
    """A primary's NEW-VIEW, handed on."""

    signer: ReplicaIndex
    new_view: NewView


class FetchProposal(Part, tag="fetch-proposal", frozen=True):
    """Ask for a proposal that others vote for."""

    view: int
    position: int


class PrePrepareCopy(Part, tag="pre-prepare-copy", frozen=True):
    """A primary's PRE-PREPARE, handed on."""

    signer: ReplicaIndex
    pre_prepare: PrePrepare


PbftMessage = (
    PrePrepare
    | Prepare
    | CommitVote
    | Suspect
    | ViewChange
    | NewView
    | FetchViewChange
    | ViewChangeCopy
    | FetchNewView
    | NewViewCopy
    | FetchProposal
    | PrePrepareCopy
)
"""Everything that one replica sends another."""


# --- Records ------------------------------------------------------------------------------------------------------


class Accepted(Part, tag="accepted", frozen=True):
    """This proposal was accepted; durable before the PREPARE for it, and a primary's PRE-PREPARE, leave."""

    view: int
    position: int
    refs: tuple[BatchRef, ...]


class Prepared(Part, tag="prepared", frozen=True):
    """An element of P; durable before the COMMIT for it leaves."""

    proof: PreparedProof


class ViewLeft(Part, tag="view-left", frozen=True):
    """All views below that of the VIEW-CHANGE are given up; durable before it leaves."""

    view_change: ViewChange


class ViewEntered(Part, tag="view-entered", frozen=True):
    """A NEW-VIEW was valid: its proposals are accepted."""

    new_view: NewView
    checkpoint: CheckpointCertificate
    """The highest checkpoint in V: the window begins there."""


class Snapshot(Part, tag="snapshot", frozen=True):
    """All that earlier records said about positions above a stable checkpoint."""

    view: int
    active: bool
    stable: CheckpointCertificate
    view_change: ViewChange | None
    """The own VIEW-CHANGE for `view`, while its NEW-VIEW is missing."""
    new_view: NewView | None
    """What began the last view that was entered, if it was not view 0."""
    prepared: tuple[PreparedProof, ...]
    accepted: tuple[Accepted, ...]


PbftRecord = Accepted | Prepared | ViewLeft | ViewEntered | Snapshot
"""Everything that a replica writes down."""
