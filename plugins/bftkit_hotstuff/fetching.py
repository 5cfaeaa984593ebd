"""Certified blocks that are not here: asked for by id, a piece of a branch at a time (HotStuff §4.2).

Only the ids that QCs name are asked for, so whatever comes with the right id is right. An answer may lead to the next
question, never to a deeper call. Whoever asks for what others have let go of catches up by other means.
"""

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.inputs import Received
from bftkit.core.outputs import Behind, EngineOutput, Send
from bftkit_hotstuff.check import MAX_BLOCKS, window_length
from bftkit_hotstuff.messages import Block, Blocks, FetchBlocks, block_of
from bftkit_hotstuff.state import State, Wanted

MAX_WANTED = 16
"""Blocks that are asked for at once; the oldest question goes first."""

MAX_ASKED = 16
"""Times that a block is asked for; the next certificate that names it begins anew."""


def want_block(state: State, certificate: QuorumCertificate, out: list[EngineOutput]) -> None:
    """Ask for a certified block, unless it is here or asked for already."""
    block = block_of(certificate)
    if block in state.wanted or state.tree.header(block) is not None or state.sealed is not None:
        return
    voters = [voter for voter in certificate.signers if voter != state.own]
    rest = [peer for peer in state.others if peer not in voters]
    while len(state.wanted) >= MAX_WANTED:
        del state.wanted[next(iter(state.wanted))]
    state.wanted[block] = Wanted(voters + rest)
    _ask(state, block, out)


def _ask(state: State, block: bytes, out: list[EngineOutput]) -> None:
    wanted = state.wanted[block]
    if wanted.sources:
        peer = wanted.sources[wanted.asked % len(wanted.sources)]
        out.append(Send(peer, FetchBlocks(block, state.committed)))
    wanted.asked += 1


def ask_again(state: State, out: list[EngineOutput]) -> None:
    """Ask the next member for each block that is still missing; give up in the end."""
    for block in list(state.wanted):
        if state.tree.header(block) is not None or state.wanted[block].asked >= MAX_ASKED:
            del state.wanted[block]
        else:
            _ask(state, block, out)


def on_fetch_blocks(state: State, event: Received) -> list[EngineOutput]:
    """Hand on a block with its ancestors, down to where the other one has committed."""
    message: FetchBlocks = event.message
    if event.sender == state.own:
        return []
    found: list[Block] = []
    node = state.tree.get(message.block)
    while node is not None and node.height > message.above and len(found) < MAX_BLOCKS:
        found.append(node.block)
        node = state.tree.parent(node)
    return [Send(event.sender, Blocks(message.block, state.committed, tuple(found)))]


def on_blocks(state: State, event: Received) -> list[EngineOutput]:
    """Take blocks that were asked for; whether those below are needed too is seen with the next decision."""
    out: list[EngineOutput] = []
    message: Blocks = event.message
    if message.block not in state.wanted or state.sealed is not None:
        return out
    if not message.blocks:
        if message.committed > state.committed:
            report_behind(state, message.committed, (event.sender,), out)
        return out
    del state.wanted[message.block]
    for block in message.blocks:
        if not state.tree.is_orphan(block.header()):
            state.tree.add(block)
    state.tree.shrink(block_of(state.high_qc))
    return out


def note_height(state: State, block: Block, out: list[EngineOutput]) -> bool:
    """Say whether a block is near enough to get to by fetching; where it is not, ask to catch up by other means.

    A block whose parent is here is near, however high it is: when no chain decides for long, empty blocks pile up, and
    nobody has committed what one could catch up to. Else those who certified what lies above the window most likely
    have a stable checkpoint at most the window below.
    """
    if state.tree.header(block_of(block.justify)) is not None:
        return True
    reach = window_length(state.context)
    if block.height <= state.committed + 2 * reach:
        return True
    voters = tuple(voter for voter in block.justify.signers if voter != state.own)
    report_behind(state, block.height - reach, voters, out)
    return False


def report_behind(state: State, position: int, sources: tuple[int, ...], out: list[EngineOutput]) -> None:
    """Ask to catch up to a position, now and then."""
    if position <= state.behind_reported and state.now - state.behind_reported_at < state.options.retransmit_delay_ms:
        return
    state.behind_reported, state.behind_reported_at = position, state.now
    out.append(Behind(position, sources))
