"""What PBFT promises beyond what all engines do, for simulations to check as they go.

Most of it can be seen in what honest members sign, whatever happened in between: crashes, views, lies.
"""

from collections.abc import Container
from typing import Any

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import Statement
from bftkit_pbft.check import window_length
from bftkit_pbft.messages import (
    COMMIT_KIND,
    NEW_VIEW_KIND,
    PRE_PREPARE_KIND,
    PREPARE_KIND,
    VIEW_CHANGE_KIND,
    ViewChange,
    proposal_digest,
)
from bftkit_pbft.state import State
from bftkit_pbft.view_change import VIEWS_KEPT
from bftkit_pbft.watching import RELAY, RETRANSMIT, VIEW_CHANGE, WATCH

_OF_A_VIEW = frozenset((PRE_PREPARE_KIND, PREPARE_KIND, COMMIT_KIND))


class PbftInvariants:
    """Watches all honest members of one run."""

    def __init__(self, members: int) -> None:
        self._floor = [0] * members
        """For each member, the highest view that it has asked for: it signs no vote below (PBFT §4.4)."""
        self._prepared: dict[tuple[int, int], bytes] = {}
        """What prepared, by view and position: nothing else does (PBFT §4.2)."""
        self._decided: dict[int, tuple[int, bytes]] = {}
        """Lowest view in which a position is known to be decided, and what was (PBFT §4.4)."""
        self._voted: dict[int, dict[tuple[int, bytes], None]] = {}
        """For each position, the views and proposals for which honest members proposed or voted (PBFT §4.4)."""
        self._view = [0] * members
        self._low = [0] * members
        self._recorded = [(0, 0)] * members
        """For each member, its view and its low water mark as they are on its disk."""

    def signs(self, member: ReplicaIndex, statement: Statement) -> str | None:
        """Look at a statement that an honest member is about to sign."""
        kind, view, position = statement.slot
        if kind == VIEW_CHANGE_KIND:
            self._floor[member] = max(self._floor[member], view)
            return None
        if kind in _OF_A_VIEW and view < self._floor[member]:
            return f"it signs a {kind} of view {view} after it has asked for view {self._floor[member]}"
        if kind == NEW_VIEW_KIND and view < self._floor[member]:
            return f"it begins view {view} after it has asked for view {self._floor[member]}"
        if kind == COMMIT_KIND:
            prepared = self._prepared.setdefault((view, position), statement.content)
            if prepared != statement.content:
                return f"two proposals prepared in view {view} at position {position}"
        if kind in _OF_A_VIEW:
            self._voted.setdefault(position, {})[view, statement.content] = None
            decided = self._decided.get(position)
            if decided is not None and view > decided[0] and statement.content != decided[1]:
                does = "proposes" if kind == PRE_PREPARE_KIND else "votes"
                return f"in view {view} it {does} against what view {decided[0]} decided at position {position}"
        return None

    def decided(self, position: int, certificate: QuorumCertificate) -> str | None:
        """Look at the proof of a decision."""
        statement = certificate.statement
        known = self._decided.get(position)
        if known is not None and known[1] != statement.content:
            return f"position {position} is decided twice, differently"
        if known is None or statement.view < known[0]:
            self._decided[position] = (statement.view, statement.content)
        for view, content in self._voted.get(position, {}):
            if view > statement.view and content != statement.content:
                return f"members voted in view {view} against what view {statement.view} decided at position {position}"
        return None

    def landmarks(self, engine: Any) -> Any:
        """Return what differs whenever a view, a mark or what is known of the others' views has moved."""
        state: State = engine.state
        kept = sum(map(len, state.view_changes))
        return state.view, state.active, state.low, state.committed, kept, len(state.candidates)

    def forgotten(self, engine: Any, running: Container[str]) -> str | None:
        """Say which work has no timer of its kind: batches, proposals, view changes (PBFT §4.4, §4.5.2)."""
        state: State = engine.state
        if state.sealed is not None:
            return None
        undecided = state.top > state.committed or state.committed < state.low
        if (undecided or not state.active or state.candidates) and RETRANSMIT not in running:
            return "words to be said again"
        if not state.active:
            left = sum(
                max(max(kept, default=0), spoken) >= state.view
                for kept, spoken in zip(state.view_changes, state.spoken, strict=True)
            )
            return "members for a new view" if left >= state.quorum.quorum and VIEW_CHANGE not in running else None
        if (any(state.watched) or state.top > state.committed) and WATCH not in running:
            return "batches for the primary"
        if state.unoffered and state.primary != state.own and RELAY not in running:
            return "batches to be offered"
        return None

    def stepped(self, member: ReplicaIndex, engine: Any) -> str | None:
        """Look at one member's variables: marks that only rise, and tables within their bounds."""
        state: State = engine.state
        if state.view < self._view[member] or state.low < self._low[member]:
            return f"its view or its low water mark falls: view {state.view}, low {state.low}"
        self._view[member], self._low[member] = state.view, state.low
        if state.slots and not state.low < min(state.slots) <= max(state.slots) <= state.window_end:
            return f"it keeps positions outside ({state.low}, {state.window_end}]"
        if any(len(kept) > VIEWS_KEPT for kept in state.view_changes):
            return "it keeps too many view changes of one member"
        if any(len(early) > 2 * window_length(state.context) + state.options.in_flight for early in state.early):
            return "it keeps too many messages of later views"
        if any(not _proved(state, message) for kept in state.view_changes for message in kept.values()):
            return "it keeps a view change whose certificates are not of a quorum"
        if len(state.candidates) > len(state.view_changes):
            return "it keeps more new views than there are members"
        if any(len(named) > len(state.view_changes) for named in state.named.values()) or set(state.named) - set(
            state.candidates
        ):
            return "it keeps view changes for new views that are settled"
        return None

    def recorded(self, member: ReplicaIndex, engine: Any) -> None:
        """Note that a member's view and its low water mark are on its disk: no restart takes them back (PBFT §4.4)."""
        self._recorded[member] = (engine.state.view, engine.state.low)

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable: its view may have been one that nobody heard of."""
        self._view[member], self._low[member] = self._recorded[member]


def _proved(state: State, message: ViewChange) -> bool:
    """Say whether the certificates in a VIEW-CHANGE, C and P, are what they must be (PBFT §4.4).

    They have a quorum of members as signers, each with a signature, and prove what they stand for.
    """
    checkpoint = message.checkpoint.certificate
    if checkpoint is not None and not _is_of_quorum(state, checkpoint):
        return False
    return all(
        _is_of_quorum(state, proof.certificate)
        and proof.certificate.statement.kind == PREPARE_KIND
        and proof.certificate.statement.view < message.view
        and proof.certificate.statement.content == proposal_digest(proof.refs)
        for proof in message.prepared
    )


def _is_of_quorum(state: State, certificate: QuorumCertificate) -> bool:
    signers, members = certificate.signers, state.quorum.members
    enough = state.quorum.quorum <= len(signers) == len(certificate.signatures)
    return enough and all(signer < members for signer in signers)
