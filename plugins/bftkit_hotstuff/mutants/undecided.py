"""What long phases without a decision must not do for good, broken on purpose."""

from typing import Any

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.membership import Member, Membership
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement
from bftkit.testing.mutants import Check, Mutant
from bftkit_hotstuff import fetching
from bftkit_hotstuff.block_tree import MAX_ASIDE, BlockTree
from bftkit_hotstuff.check import MAX_LINKS
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import GENESIS_QC, VOTE_KIND, Block
from bftkit_hotstuff.state import BLOCKS_PER_DOUBLING, State, initial_state
from bftkit_hotstuff.voting import may_vote


def _certify(block: Block) -> QuorumCertificate:
    """Make a certificate whose signatures nobody looks at."""
    statement = Statement(VOTE_KIND, block.round, 0, block.header().id)
    return QuorumCertificate.of(statement, {signer: bytes(64) for signer in range(3)}, 4)


def _grown(length: int) -> tuple[State, Block]:
    """Make the state of a replica above which so many blocks are certified, two rounds apart; and one more block."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(1, members, HotStuffOptions(), Limits(checkpoint_interval=1))
    state = initial_state(context, CheckpointCertificate(EMPTY_CHECKPOINT, None))
    for height in range(1, length + 1):
        state.tree.add(Block(2 * height - 1, height, 0, (), state.high_qc))
        state.high_qc = _certify(Block(2 * height - 1, height, 0, (), state.high_qc))
    state.round = 2 * length
    return state, Block(2 * length, length + 1, 0, (), state.high_qc)


def _by_height_alone(original: Any) -> Any:
    def note_height(state: Any, block: Any, out: list[Any]) -> bool:
        return bool(block.height <= state.committed + 4 and original(state, block, out))

    return note_height


def _what_stands_on_blocks_that_are_here_is_near() -> str | None:
    """A block whose parent is here is taken, however high above what is committed it is."""
    state, block = _grown(40)
    return None if fetching.note_height(state, block, []) else "it is refused"


def _the_oldest_first(original: Any) -> Any:
    def shrink(self: Any, certified: bytes, proposed: bytes = b"") -> None:
        oldest = sorted(self._open.values(), key=lambda node: node.round)
        for node in oldest[: max(0, len(oldest) - MAX_ASIDE)]:
            del self.nodes[node.id]
            del self._open[node.id]

    return shrink


def _the_newest_branch_is_not_cut() -> str | None:
    """Whatever is let go of, the branch of the newest certificate still stands on what is committed."""
    tree, justify = BlockTree(0), GENESIS_QC
    for height in range(1, 11):
        block = Block(2 * height, height, 0, (), justify)
        tree.add(block)
        justify = _certify(block)
    for number in range(30, 40 + MAX_ASIDE):
        tree.add(Block(number, 1, 0, (), GENESIS_QC))
    tree.shrink(justify.statement.content)
    return None if tree.undecided(justify.statement.content) == 10 else "it does not"


def _without_limit(original: Any) -> Any:
    return property(lambda self: self.tree.committed + 10 * MAX_LINKS)


def _proofs_reach_down() -> str | None:
    """No block is voted for from which the proof of a decision would be longer than others take."""
    for length, expected in ((MAX_LINKS - 1, True), (MAX_LINKS, False)):
        state, block = _grown(length)
        if may_vote(state, state.tree.add(block)) is not expected:
            return f"a block on {length} undecided ones gets {'no' if expected else 'a'} vote"
    return None


def _evenly(original: Any) -> Any:
    return lambda self, block: 0


def _patience_grows_with_the_branch() -> str | None:
    """The more blocks wait for a decision, the longer each round may take: so their number grows ever more slowly."""
    (short, _), (long, _) = _grown(1), _grown(2 * BLOCKS_PER_DOUBLING)
    return None if long.timeout_ms == 4 * short.timeout_ms else "it does not"


MUTANTS = (
    Mutant(
        "hotstuff: heights are limited though nothing is decided",
        "A block high above what is committed is refused though its parent is here.",
        "bftkit_hotstuff.fetching:note_height",
        _by_height_alone,
        (Check(_what_stands_on_blocks_that_are_here_is_near),),
    ),
    Mutant(
        "hotstuff: the newest branch is cut",
        "Where too many blocks are not decided, the oldest go, also those that everything new stands on.",
        "bftkit_hotstuff.block_tree:BlockTree.shrink",
        _the_oldest_first,
        (Check(_the_newest_branch_is_not_cut),),
    ),
    Mutant(
        "hotstuff: blocks rise beyond the reach of proofs",
        "Empty blocks are voted for however far above what is committed.",
        "bftkit_hotstuff.state:State.branch_limit",
        _without_limit,
        (Check(_proofs_reach_down),),
    ),
    Mutant(
        "hotstuff: patience does not grow with what is undecided",
        "Undecided blocks pile up as fast after a year as after a minute.",
        "bftkit_hotstuff.block_tree:BlockTree.undecided",
        _evenly,
        (Check(_patience_grows_with_the_branch),),
    ),
)
"""All of them."""
