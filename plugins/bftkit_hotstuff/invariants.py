"""What HotStuff promises beyond what all engines do, for simulations to check as they go.

Most of it can be seen in what honest members sign, whatever happened in between: crashes, rounds, lies.
"""

from typing import Any

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.statement import Statement
from bftkit_hotstuff.block_tree import MAX_ASIDE
from bftkit_hotstuff.check import MAX_BLOCKS
from bftkit_hotstuff.fetching import MAX_WANTED
from bftkit_hotstuff.messages import PROPOSAL_KIND, TIMEOUT_KIND, VOTE_KIND, block_of, round_of
from bftkit_hotstuff.state import State
from bftkit_hotstuff.voting import ROUNDS_AHEAD


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
        self._round = [0] * members
        self._voted_round = [0] * members
        self._high_qc = [0] * members

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

    def stepped(self, member: ReplicaIndex, engine: Any) -> str | None:
        """Look at one member's variables: marks that only rise, one committed branch, tables within their bounds."""
        state: State = engine.state
        high = round_of(state.high_qc)
        fallen = state.round < self._round[member] or state.voted_round < self._voted_round[member]
        if fallen or high < self._high_qc[member]:
            return f"its marks fall: round {state.round}, voted in {state.voted_round}, newest certificate of {high}"
        self._round[member], self._voted_round[member], self._high_qc[member] = state.round, state.voted_round, high
        newest = max(high, state.tc.round if state.tc is not None else 0)
        if state.round != newest + 1:
            return f"it is in round {state.round}, and its newest certificate is of round {newest}"
        problem = self._note_certified(state.high_qc)
        if problem is not None:
            return problem
        tip = state.tree.tip
        if tip is not None:
            known = self._decided.setdefault(tip.height, tip.id)
            if known != tip.id:
                return f"it has committed another block at height {tip.height} than another member"
        return _size_problem(state)

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable: its round may be one that nobody heard of."""
        self._round[member] = self._voted_round[member] = self._high_qc[member] = 0


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
