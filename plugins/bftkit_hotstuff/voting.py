"""Proposals, and votes for them (Jolteon Fig. 2 "Vote"; HotStuff Algorithm 4)."""

from bftkit.core.inputs import Available, Received
from bftkit.core.outputs import Broadcast, EngineOutput, Persist, Reject, Send, Want
from bftkit.core.votes import Evidence
from bftkit_hotstuff.block_tree import Node
from bftkit_hotstuff.evidence import accuse
from bftkit_hotstuff.fetching import note_height, want_block
from bftkit_hotstuff.leaders import may_lead, next_leader
from bftkit_hotstuff.messages import Block, Proposal, Vote, Voted, block_of, round_of
from bftkit_hotstuff.state import State
from bftkit_hotstuff.synchronizer import take_qc, take_tc
from bftkit_hotstuff.watching import is_certified, watch

ROUNDS_AHEAD = 16
"""Rounds beyond the own one whose votes are kept: their proposal may be on its way."""


# --- Proposals ------------------------------------------------------------------------------------------------------


def on_proposal(state: State, event: Received) -> list[EngineOutput]:
    """Take a leader's block; first the certificates in it, which may begin its round here (Jolteon Fig. 2)."""
    out: list[EngineOutput] = []
    message: Proposal = event.message
    if state.sealed is not None:
        return out
    take_qc(state, message.block.justify, out)
    take_tc(state, message.tc, out)
    if message.round == state.round:
        if state.proposal is None:
            accept(state, message, out)
        elif state.proposal.block.author == message.block.author:
            _compare(state, state.proposal, message, out)
    return out


def accept(state: State, message: Proposal, out: list[EngineOutput]) -> None:
    """Take the first block that is proposed in this round by who leads it, and fetch what is missing of it."""
    block = message.block
    if not may_lead(state, block):
        return
    if has_wrong_height(state, block):
        out.append(Reject(block.author, "a block is not one higher than its parent"))
        return
    if not note_height(state, block, out):
        return
    if block.height <= state.committed or state.tree.is_orphan(block.header()):
        return
    node = state.tree.add(block)
    node.proposal = message
    state.proposal = node
    node.missing = {ref.digest: ref for ref in block.refs if not state.pending.holds(ref)}
    if node.missing:
        sources = (block.author, *(peer for peer in state.others if peer != block.author))
        out.append(Want(tuple(node.missing.values()), sources))
    want_block(state, block.justify, out)
    state.tree.shrink(block_of(state.high_qc), node.id)


def has_wrong_height(state: State, block: Block) -> bool:
    """Say whether a block is known not to be one higher than its parent: then no correct leader has made it."""
    parent = state.tree.header(block_of(block.justify))
    return parent is not None and block.height != parent.height + 1


def _compare(state: State, node: Node, message: Proposal, out: list[EngineOutput]) -> None:
    """Look at a second proposal of a leader: the own one that has come back, the same again, or a contradiction."""
    first = node.proposal
    second = message.statement()
    if second.content == node.id:
        if first is None or not first.signature:
            node.proposal = message
        elif message.block.author != state.own:
            repeat_vote(state, node, out)  # the leader would not say it again had his block been certified
    elif first is not None and first.signature:
        author = message.block.author
        accuse(state, Evidence(author, first.statement(), first.signature, second, message.signature), out)


# --- Votes ----------------------------------------------------------------------------------------------------------


def consider(state: State, out: list[EngineOutput]) -> None:
    """Vote for this round's block once it is all here, if the rules allow it."""
    node = state.proposal
    if node is None or node.missing or state.voted_round >= node.round or state.sealed is not None:
        return
    if has_wrong_height(state, node.block) or not may_vote(state, node):
        return
    cast_vote(state, node, out)


def may_vote(state: State, node: Node) -> bool:
    """Say whether a block may be voted for: its parent is here, the window reaches it, and the rules agree.

    Blocks without batches may rise above the window, or what lies at its end might never be decided; but not so far
    that no proof could reach down from there.
    """
    block = node.block
    if state.tree.header(node.header.parent) is None or node.round != state.round:
        return False
    if node.height > (state.vote_limit if block.refs else state.branch_limit):
        return False
    tc = node.proposal.tc if node.proposal is not None else None
    return state.rules.may_vote(block, tc, state.lock)


def cast_vote(state: State, node: Node, out: list[EngineOutput]) -> None:
    """Vote for a block: first the record, with the block, the newest QC and the lock; then the words."""
    parent = state.tree.parent(node)
    lock = state.rules.lock_of(node.block, parent.block if parent is not None else None)
    if lock is not None and (state.lock is None or round_of(lock) > round_of(state.lock)):
        state.lock = lock
    state.voted_round, state.voted_block = node.round, node.id
    newer = state.high_qc if round_of(state.high_qc) > round_of(node.block.justify) else None
    proposal = node.proposal
    state.voted_tc = proposal.tc if proposal is not None else None
    out.append(Persist(Voted(node.block, state.voted_tc, newer, state.lock)))
    if node.block.author == state.own and proposal is not None:
        out.append(Broadcast(proposal))
    send_vote(state, node, out)


def send_vote(state: State, node: Node, out: list[EngineOutput]) -> None:
    """Say one's vote to whoever leads the next round."""
    collector = next_leader(state, node)
    vote = Vote(node.round, node.id)
    out.append(Broadcast(vote) if collector is None else Send(collector, vote))


def repeat_vote(state: State, node: Node, out: list[EngineOutput]) -> None:
    """Say one's vote for this round's block again, if it was given and the round was not given up since."""
    if state.voted_block == node.id and not state.has_given_up:
        send_vote(state, node, out)


def on_vote(state: State, event: Received) -> list[EngineOutput]:
    """Count a vote; a quorum of equal ones is the QC of a block, and ends its round."""
    out: list[EngineOutput] = []
    message: Vote = event.message
    if state.sealed is not None or is_certified(state, message.round):
        return out
    if not state.round - 1 <= message.round <= state.round + ROUNDS_AHEAD:
        return out
    tally = state.votes.get(message.round)
    if tally is None:
        tally = state.votes[message.round] = state.scheme.tally(state.quorum.members)
    evidence = tally.add(event.sender, message.statement(), message.signature)
    if evidence is not None:
        accuse(state, evidence, out)
        return out
    certificate = tally.certificate(message.block, state.quorum.quorum)
    if certificate is not None:
        take_qc(state, certificate, out)
        state.unannounced = True
    return out


# --- Bodies ---------------------------------------------------------------------------------------------------------


def on_available(state: State, event: Available) -> list[EngineOutput]:
    """Take note of bodies: a deferred vote may go, a leader may propose, the others watch."""
    out: list[EngineOutput] = []
    node = state.proposal
    for ref in event.refs:
        if not event.decided:
            watch(state, ref)
        if node is not None and node.missing.get(ref.digest) == ref:
            del node.missing[ref.digest]
    return out
