"""What certified chains decide, and handing it out in order (Jolteon Fig. 2 "Commit"; HotStuff §5)."""

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.log import CommitProof
from bftkit.core.outputs import Commit, EngineOutput
from bftkit_hotstuff.block_tree import Node
from bftkit_hotstuff.check import links_of
from bftkit_hotstuff.fetching import want_block
from bftkit_hotstuff.messages import Header, Past, block_of
from bftkit_hotstuff.state import State
from bftkit_hotstuff.watching import note_decided


def decided_branch(state: State, node: Node) -> list[Node]:
    """Return what would be committed were this block certified, the newest first; nothing where nothing would be."""
    branch = list(state.tree.branch(node.id))
    length = state.rules.chain_length
    for place in range(len(branch) - length + 1):
        if state.rules.decides([one.header for one in branch[place : place + length]]):
            return branch[place + length - 1 :]
    return []


def decide(state: State, out: list[EngineOutput]) -> None:
    """Commit what the newest QC decides, ancestors first, each with the shortest proof that there is for it."""
    branch = list(state.tree.branch(block_of(state.high_qc)))
    if not branch:
        return
    if not state.tree.is_joined(branch[-1]):
        if branch[-1].height > state.committed + 1 and len(branch) < state.longest_branch:
            want_block(state, branch[-1].block.justify, out)
        return
    proofs = _proofs(state, branch)
    if proofs[-1] is None:
        return
    for node, proof in zip(reversed(branch), reversed(proofs), strict=True):
        if proof is None:
            break
        state.tree.commit(node)
        remember(state, node)
        out.append(Commit(node.height, node.block.refs, proof))
        note_decided(state, node)
        state.failures = 0
    state.tree.prune()


def _proofs(state: State, branch: list[Node]) -> list[CommitProof | None]:
    """Return for each block of a branch, the newest first, what proves that it is decided.

    That is the nearest chain above it that decides, with the headers from there down. The newest block of the branch
    is certified by the newest QC, and each other one by the QC in its child.
    """
    headers = [node.header for node in branch]
    length = state.rules.chain_length
    proofs: list[CommitProof | None] = [None] * min(length - 1, len(branch))
    top: int | None = None
    for place in range(length - 1, len(branch)):
        begin = place - length + 1
        if state.rules.decides(headers[begin : place + 1]):
            top = begin
        proofs.append(None if top is None else _proof(state, branch, headers, top, place))
    return proofs


def _proof(state: State, branch: list[Node], headers: list[Header], top: int, place: int) -> CommitProof:
    certificate: QuorumCertificate = state.high_qc if top == 0 else branch[top - 1].block.justify
    return CommitProof(certificate, links_of(headers[top : place + 1]))


# --- What leaders are judged by ---------------------------------------------------------------------------------------


def remembered(state: State) -> int:
    """Return how many committed blocks leaders are judged by: as many as there are members."""
    return state.quorum.members


def past_of(header: Header) -> Past:
    """Return what a block adds to the history."""
    return Past(header.height, header.author, header.voters)


def remember(state: State, node: Node) -> None:
    """Add a block that has just been committed to the history."""
    if state.history and state.history[-1].height != node.height - 1:
        state.history.clear()
    state.history.append(past_of(node.header))
    del state.history[: -remembered(state)]


def recall(state: State, tip: Header | None) -> None:
    """Find the history again below a block that others have proved to be committed, as far down as it is here."""
    found: list[Past] = []
    header = tip
    while header is not None and header.height > 0 and len(found) < remembered(state):
        found.append(past_of(header))
        parent = state.tree.get(header.parent)
        header = parent.header if parent is not None else None
    found.reverse()
    below = [past for past in state.history if found and past.height < found[0].height]
    if below and below[-1].height == found[0].height - 1:
        found = [*below, *found]
    state.history = found[-remembered(state) :]
