"""What HotStuff promises beyond what all engines do, for simulations to check as they go.

Most of it can be seen in what honest members sign, whatever happened in between: crashes, rounds, lies.
"""

from collections.abc import Container
from itertools import pairwise
from typing import Any, NamedTuple

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import CommitEntry
from bftkit.core.statement import Statement
from bftkit_hotstuff.block_tree import MAX_ASIDE
from bftkit_hotstuff.check import MAX_BLOCKS, headers_of
from bftkit_hotstuff.fetching import MAX_WANTED
from bftkit_hotstuff.messages import PROPOSAL_KIND, TIMEOUT_KIND, VOTE_KIND, block_of, round_of
from bftkit_hotstuff.state import State
from bftkit_hotstuff.voting import ROUNDS_AHEAD
from bftkit_hotstuff.watching import RELAY, RETRANSMIT, ROUND

CHAINS = {"jolteon": 2, "three_chain": 3}
"""For each rule set, how many certified blocks in successive rounds decide the lowest of them."""


class HotStuffInvariants:
    """Watches all honest members of one run."""

    def __init__(self, members: int) -> None:
        self._voted: list[dict[int, bytes]] = [{} for _ in range(members)]
        """For each member, what it has voted for in each round."""
        self._gave_up = [0] * members
        """For each member, the highest round that it has given up."""
        self._certified: dict[int, bytes] = {}
        """The block that is known to be certified in each round: there is no other."""
        self._decided: dict[int, bytes] = {}
        """Ids of committed blocks by height."""
        self._marks = [Marks()] * members
        """For each member in this life, the marks that it had when it was looked at last."""
        self._recorded = [Marks()] * members
        """For each member, its marks as they are on its disk."""

    def signs(self, member: ReplicaIndex, statement: Statement) -> str | None:
        """Look at a statement that an honest member is about to sign."""
        kind, number, _ = statement.slot
        if kind == TIMEOUT_KIND:
            self._gave_up[member] = max(self._gave_up[member], number)
        elif kind == VOTE_KIND:
            return self._votes_for(member, number, statement.content)
        elif kind == PROPOSAL_KIND and number <= self._gave_up[member] and number not in self._voted[member]:
            return f"it proposes in round {number} after it has given up round {self._gave_up[member]}"
        return None

    def _votes_for(self, member: ReplicaIndex, number: int, block: bytes) -> str | None:
        if number <= self._gave_up[member]:
            return f"it votes in round {number} after it has given up round {self._gave_up[member]}"
        known = self._voted[member].setdefault(number, block)
        return None if known == block else f"it votes twice in round {number}"

    def decided(self, position: int, certificate: QuorumCertificate) -> str | None:
        """Look at the proof of a decision."""
        return self._note_certified(certificate)

    def _note_certified(self, certificate: QuorumCertificate) -> str | None:
        number, block = round_of(certificate), block_of(certificate)
        first = self._certified.setdefault(number, block)
        return None if first == block else f"two blocks are certified in round {number}"

    def landmarks(self, engine: Any) -> Any:
        """Return what differs whenever a mark, a certificate or the committed branch has moved."""
        state: State = engine.state
        certificates = id(state.high_qc), id(state.tc), id(state.lock)
        return state.round, state.voted_round, certificates, state.tree.committed, state.tree.low

    def forgotten(self, engine: Any, running: Container[str]) -> str | None:
        """Say which work has no timer of its kind: batches, blocks that wait for others, missing blocks, a round."""
        state: State = engine.state
        if state.sealed is not None:
            return None
        if RETRANSMIT not in running and (state.wanted or _has_work(state)):
            return "words to be said again"
        if state.has_given_up:
            return None
        if ROUND not in running and _has_work(state):
            return "blocks"
        return "batches for the leader" if state.watched and RELAY not in running else None

    def stepped(self, member: ReplicaIndex, engine: Any) -> str | None:
        """Look at one member's variables: marks that only rise, one committed branch, tables within their bounds."""
        state: State = engine.state
        marks = marks_of(state)
        if not marks.are_not_below(self._marks[member]):
            return f"its marks fall: {marks} after {self._marks[member]}"
        self._marks[member] = marks
        newest = max(marks.high_qc, state.tc.round if state.tc is not None else 0)
        if state.round != newest + 1:
            return f"it is in round {state.round}, and its newest certificate is of round {newest}"
        return (
            self._note_certified(state.high_qc)
            or _tc_problem(state)
            or self._committed(state)
            or _branch_problem(state, state.high_qc, "newest certificate")
            or _branch_problem(state, state.lock, "lock")
            or _size_problem(state)
        )

    def _committed(self, state: State) -> str | None:
        tip = state.tree.tip
        if tip is not None and self._decided.setdefault(tip.height, tip.id) != tip.id:
            return f"it has committed another block at height {tip.height} than another member"
        return None

    def proved(self, member: ReplicaIndex, engine: Any, entry: CommitEntry) -> str | None:
        """See that a certified chain in successive rounds leads to a decided block (Jolteon Fig. 2; HotStuff §5)."""
        certificate = entry.proof.certificate
        chain = headers_of(entry.proof.links)
        if certificate is None or not chain:
            return f"it takes height {entry.position} for decided without a chain"
        if (round_of(certificate), block_of(certificate)) != (chain[0].round, chain[0].id):
            return f"it takes height {entry.position} for decided by votes for another block"
        length = CHAINS[engine.state.options.rules]
        rounds = [header.round for header in chain[:length]]
        if rounds != list(range(chain[0].round, chain[0].round - length, -1)):
            return f"it takes height {entry.position} for decided by blocks of the rounds {rounds}"
        if any(child.parent != parent.id for child, parent in pairwise(chain)):
            return f"it takes height {entry.position} for decided by blocks that do not stand on each other"
        return None

    def recorded(self, member: ReplicaIndex, engine: Any) -> None:
        """Note what of a member's marks is on its disk for certain: no restart takes it back (Jolteon Fig. 2).

        Of its newest certificates those are, that the last vote or the last TIMEOUT was cast with.
        """
        state: State = engine.state
        voted = state.tree.get(state.voted_block)
        high = max(
            round_of(state.gave_up.high_qc) if state.gave_up is not None else 0,
            round_of(voted.block.justify) if voted is not None else 0,
        )
        self._recorded[member] = marks_of(state)._replace(round=high + 1, high_qc=high)

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable: its round may be one that nobody heard of."""
        self._marks[member] = self._recorded[member]


class Marks(NamedTuple):
    """What of a member's variables only rises."""

    round: int = 1
    voted_round: int = 0
    high_qc: int = 0
    lock: int = 0

    def are_not_below(self, others: "Marks") -> bool:
        """Say whether none of these marks is below another one."""
        return all(own >= other for own, other in zip(self, others, strict=True))


def marks_of(state: State) -> Marks:
    """Return the marks of a member, certificates by their rounds."""
    lock = round_of(state.lock) if state.lock is not None else 0
    return Marks(state.round, state.voted_round, round_of(state.high_qc), lock)


def _has_work(state: State) -> bool:
    """Say whether batches wait to be proposed, or in certified blocks to be committed."""
    return bool(state.watched) or any(node.block.refs for node in state.tree.branch(block_of(state.high_qc)))


def _tc_problem(state: State) -> str | None:
    """Say why a quorum's TIMEOUTs do not make a member's TC, with the newest QC that any of them names, or None."""
    tc = state.tc
    if tc is None:
        return None
    signers = {vote.signer for vote in tc.votes}
    if len(signers) < state.quorum.quorum or not all(0 <= signer < state.quorum.members for signer in signers):
        return f"its certificate for the end of round {tc.round} is of the members {sorted(signers)}"
    newest = max(vote.high_qc_round for vote in tc.votes)
    if round_of(tc.high_qc) < newest:
        return f"its certificate for the end of round {tc.round} hides one of round {newest}"
    return None


def _branch_problem(state: State, certificate: QuorumCertificate | None, what: str) -> str | None:
    """Say that a certified block, no older than the newest committed one, is not built on it, or None.

    An older one may be on a branch that was left behind, and of some the ancestors are not known.
    """
    tip = state.tree.tip
    if certificate is None or tip is None or round_of(certificate) < tip.round:
        return None
    lowest = None
    for node in state.tree.branch(block_of(certificate)):
        lowest = node.header
    joined = lowest is None or lowest.height != tip.height + 1 or lowest.parent == tip.id
    if not joined or (round_of(certificate) == tip.round and block_of(certificate) != tip.id):
        return f"its {what}, of round {round_of(certificate)}, is on another branch than what it has committed"
    return None


def _size_problem(state: State) -> str | None:
    """Say which table has outgrown its bound, or None."""
    if state.tree.uncommitted > state.longest_branch + MAX_BLOCKS + MAX_ASIDE:
        return f"it keeps {state.tree.uncommitted} blocks that are not committed"
    tree = state.tree
    for node in tree.nodes.values():
        if node.height <= tree.low:
            return f"it keeps a block at height {node.height}, and {tree.low} is stable"
        if tree.is_orphan(node.header):
            return f"it keeps a block at height {node.height} where another one is committed, or on another one"
    if len(state.votes) > ROUNDS_AHEAD + 2:
        return f"it counts votes in {len(state.votes)} rounds"
    if len(state.wanted) > MAX_WANTED:
        return f"it asks for {len(state.wanted)} blocks"
    return None
