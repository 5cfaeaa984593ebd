"""Checkpoint votes, and what becomes stable.

A replica votes when its application has executed exactly a checkpoint position. A quorum of equal
votes is the certificate that lets everybody forget what lies below, and that proves a transferred
state (Castro & Liskov, OSDI'99 §4.3).
"""

from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.outputs import Accuse
from bftkit.core.votes import VoteTally
from bftkit.replica.messages import CheckpointVote
from bftkit.replica.settings import ReplicaSettings

_WINDOW_CHECKPOINTS = 8
"""Checkpoints above the stable one that votes are kept for; beyond it only the certificate counts."""


class Checkpoints:
    """Votes by position, and the newest certificate."""

    def __init__(self, settings: ReplicaSettings, stable: CheckpointCertificate) -> None:
        self._members = len(settings.membership)
        self._quorum = settings.membership.quorum.quorum
        self._interval = settings.limits.checkpoint_interval
        self.stable = stable
        """Newest certificate for a position that this replica has executed."""
        self.ahead: CheckpointCertificate | None = None
        """Newest certificate for a position that it has not."""
        self._tallies: dict[int, VoteTally] = {}
        self._checkpoints: dict[int, dict[bytes, Checkpoint]] = {}
        self._own: dict[int, CheckpointVote] = {}

    def own_vote(self, vote: CheckpointVote) -> None:
        """Remember what this replica says, to be repeated until it is stable."""
        self._own[vote.checkpoint.position] = vote

    def own_checkpoint(self, position: int) -> Checkpoint | None:
        """Return this replica's own roots at a position, where it still has them."""
        vote = self._own.get(position)
        return vote.checkpoint if vote else None

    @property
    def own_count(self) -> int:
        """Count one's own votes that are remembered."""
        return len(self._own)

    @property
    def counted(self) -> int:
        """Count the positions whose votes are being counted."""
        return len(self._tallies)

    def unstable_votes(self) -> tuple[CheckpointVote, ...]:
        """List one's own votes above the stable checkpoint."""
        return tuple(vote for position, vote in self._own.items() if position > self.stable.position)

    def votes_above(self, position: int) -> tuple[CheckpointVote, ...]:
        """List one's own remembered votes above a position."""
        return tuple(vote for known, vote in self._own.items() if known > position)

    def on_vote(self, sender: ReplicaIndex, vote: CheckpointVote) -> tuple[CheckpointCertificate | None, Accuse | None]:
        """Count one vote; return the certificate that it completes, or the evidence that it gives."""
        position = vote.checkpoint.position
        if not self.stable.position < position <= self.stable.position + _WINDOW_CHECKPOINTS * self._interval:
            return None, None
        tally = self._tallies.get(position)
        if tally is None:
            tally = self._tallies[position] = VoteTally(self._members)
            self._checkpoints[position] = {}
        statement = vote.statement()
        already = tally.has(sender)
        evidence = tally.add(sender, statement, vote.signature)
        if evidence is not None:
            return None, Accuse(evidence)
        if already:
            return None, None
        self._checkpoints[position].setdefault(statement.content, vote.checkpoint)
        certificate = tally.certificate(statement.content, self._quorum)
        if certificate is None:
            return None, None
        return CheckpointCertificate(self._checkpoints[position][statement.content], certificate), None

    def now_stable(self, certificate: CheckpointCertificate) -> None:
        """Forget everything that a certificate for an executed position makes obsolete."""
        self.stable = certificate
        for position in [known for known in self._tallies if known <= certificate.position]:
            del self._tallies[position]
            del self._checkpoints[position]
        for position in [known for known in self._own if known < certificate.position]:
            del self._own[position]
        if self.ahead is not None and self.ahead.position <= certificate.position:
            self.ahead = None

    def note_ahead(self, certificate: CheckpointCertificate) -> None:
        """Remember a certificate for a position that is still to be reached."""
        if self.ahead is None or certificate.position > self.ahead.position:
            self.ahead = certificate

    def waiting_on(self) -> tuple[int, tuple[ReplicaIndex, ...]] | None:
        """Return the lowest position that waits for votes, and whose are missing."""
        for position in sorted(self._own):
            if position > self.stable.position:
                tally = self._tallies.get(position)
                content = self._own[position].checkpoint.content
                return position, tally.missing(content) if tally else tuple(range(self._members))
        return None
