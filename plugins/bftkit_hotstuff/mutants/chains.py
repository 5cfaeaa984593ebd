"""What chains decide, broken on purpose (Jolteon Fig. 2, "Commit"; HotStuff §5)."""

from itertools import pairwise
from typing import Any

import msgspec

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import Broadcast, Commit, Send
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement
from bftkit.testing.mutants import Check, Mutant, Played, doing_nothing
from bftkit_hotstuff import fetching, proposing
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import (
    GENESIS,
    VOTE_KIND,
    Block,
    FetchBlocks,
    Header,
    Proposal,
    TimeoutCertificate,
    TimeoutVote,
)
from bftkit_hotstuff.mutants.schedules import THREE_CHAIN, calm, rough
from bftkit_hotstuff.rules import RULES, follows
from bftkit_hotstuff.state import State, initial_state
from bftkit_hotstuff.voting import cast_vote
from bftkit_hotstuff.watching import next_height

GAPS = """
members 4
twins 1
leader n0, blocks n1 n0' | n0 n2 n3
leader n1, blocks n0 n2 | n1 n3 n0'
leader n2, blocks n0 n2 n3 | n1 n0'
leader n1, blocks n0 n1 n3 | n2 n0'
leader n0, blocks n0 n1 n2 | n3 n0'
leader n0, blocks n0 | n1 n2 n3 n0'
leader n0, blocks n0 n1 n0' | n2 n3
leader n1, blocks n1 n2 n3 n0' | n0
"""
"""Two branches grow, each with gaps between its rounds: one of few scenarios in which it matters."""


def _without_rounds(original: Any) -> Any:
    return lambda chain: all(follows(child, parent) for child, parent in pairwise(chain))


def _any_parent(original: Any) -> Any:
    return lambda child, parent: child.height == parent.height + 1


def _without_ancestors(original: Any) -> Any:
    def decide(state: Any, out: list[Any]) -> None:
        kept = len(out)
        original(state, out)
        commits = [output for output in out[kept:] if isinstance(output, Commit)]
        for output in commits[:-1]:
            out.remove(output)

    return decide


def _the_newest_first(original: Any) -> Any:
    def decide(state: Any, out: list[Any]) -> None:
        kept = len(out)
        original(state, out)
        out[kept:] = out[kept:][::-1]

    return decide


def _endless(original: Any) -> Any:
    def announce(state: Any, out: list[Any]) -> None:
        block = Block(state.round, next_height(state), state.own, (), state.high_qc)
        node = state.tree.add(block)
        node.proposal = Proposal(block, state.entry_tc)
        state.proposal = node
        cast_vote(state, node, out)

    return announce


def _chain(length: int) -> list[Header]:
    """Make a chain of headers in successive rounds, the newest first."""
    chain = [Header(1, 1, GENESIS.id, 0, b"", 1, GENESIS.content)]
    for number in range(2, length + 1):
        last = chain[0]
        chain.insert(0, Header(number, number, last.id, last.round, b"\x07", number % 4, GENESIS.content))
    return chain


def _three_are_needed() -> str | None:
    """Under the rules of three chains two certified blocks in a row decide nothing, and three do."""
    rules = RULES["three_chain"]
    if not rules.decides(_chain(rules.chain_length)):
        return "a chain does not decide"
    return "two blocks do" if rules.decides(_chain(2)) else None


def _unlinked_blocks_decide_nothing() -> str | None:
    """Certified blocks in successive rounds decide nothing where one is not the parent of the other."""
    newest, oldest = _chain(2)
    other = msgspec.structs.replace(oldest, author=3)
    return "they do" if RULES["jolteon"].decides([newest, other]) else None


def _the_grandparent_is_locked() -> str | None:
    """A vote under the rules of three chains locks the block two below, and keeps its signer from what is older."""
    rules = RULES["three_chain"]
    old, new = (QuorumCertificate(Statement(VOTE_KIND, number, 0, bytes(32)), b"\x07", ()) for number in (3, 4))
    parent = Block(5, 5, 1, (), new)
    if rules.lock_of(Block(6, 6, 2, (), old), parent) != new:
        return "it is not"
    tc = TimeoutCertificate(8, tuple(TimeoutVote(who, 3, bytes(64)) for who in range(3)), old)
    if rules.may_vote(Block(9, 4, 1, (), old), tc, new):
        return "a block on an older certificate than the lock gets a vote"
    return None if rules.may_vote(Block(9, 5, 1, (), new), tc, new) else "a block on the locked one gets none"


def _never_ending(original: Any) -> Any:
    return lambda state: False


def _leader() -> State:
    """Make the state of who leads the first round."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(1, members, HotStuffOptions(), Limits())
    return initial_state(context, CheckpointCertificate(EMPTY_CHECKPOINT, None))


def _silence_follows() -> str | None:
    """A leader with nothing to order and nothing to bring to its end proposes nothing."""
    out: list[Any] = []
    proposing.propose(_leader(), out)
    proposed = [one for one in out if isinstance(one, Broadcast) and isinstance(one.message, Proposal)]
    return "it proposes an empty block" if proposed else None


def _missing_blocks_are_asked_for() -> str | None:
    """Whoever hears of a certified block that it lacks asks one of those who voted for it."""
    out: list[Any] = []
    qc = QuorumCertificate(Statement(VOTE_KIND, 3, 0, bytes(32)), b"\x0d", ())
    fetching.want_block(_leader(), qc, out)
    asked = [one.to for one in out if isinstance(one, Send) and isinstance(one.message, FetchBlocks)]
    return None if asked and asked[0] in qc.signers else f"it asks {asked}"


def _nothing_forgotten(original: Any) -> Any:
    def forget_through(self: Any, height: int) -> None:
        nodes = dict(self.nodes)
        original(self, height)
        self.nodes = nodes

    return forget_through


MUTANTS = (
    Mutant(
        "hotstuff: rounds of a chain may have gaps",
        "Certified blocks count as a chain though a round lies between them (HotStuff §5; relab/hotstuff, vulnfhs.go).",
        "bftkit_hotstuff.rules:is_unbroken",
        _without_rounds,
        (rough(), Played(GAPS, "hotstuff")),
    ),
    Mutant(
        "hotstuff: parents are not looked at",
        "Certified blocks count as a chain though they are not built on each other.",
        "bftkit_hotstuff.rules:follows",
        _any_parent,
        (Check(_unlinked_blocks_decide_nothing),),
    ),
    Mutant(
        "hotstuff: three chains of two",
        "Two blocks in a row decide, where locks and votes are those of three.",
        "bftkit_hotstuff.rules:ThreeChain.chain_length",
        lambda original: 2,
        (rough(settings=THREE_CHAIN), Check(_three_are_needed)),
    ),
    Mutant(
        "hotstuff: nothing is locked",
        "Votes of three chains lock nothing (HotStuff Algorithm 5).",
        "bftkit_hotstuff.rules:ThreeChain.lock_of",
        lambda original: lambda self, block, parent: None,
        (Check(_the_grandparent_is_locked),),
    ),
    Mutant(
        "hotstuff: ancestors are left out",
        "Of several blocks that are decided at once the newest alone is handed out.",
        "bftkit_hotstuff.committing:decide",
        _without_ancestors,
        (rough(),),
    ),
    Mutant(
        "hotstuff: the newest block comes first",
        "Blocks that are decided at once are handed out in the wrong order.",
        "bftkit_hotstuff.committing:decide",
        _the_newest_first,
        (rough(),),
    ),
    Mutant(
        "hotstuff: what is left of a chain is not brought to its end",
        "Leaders with nothing to order propose no empty blocks, though others wait for them.",
        "bftkit_hotstuff.watching:is_unfinished",
        _never_ending,
        (calm(),),
    ),
    Mutant(
        "hotstuff: empty blocks for ever",
        "Leaders propose empty blocks though nothing waits for them (diem#262).",
        "bftkit_hotstuff.proposing:announce",
        _endless,
        (Check(_silence_follows),),
    ),
    Mutant(
        "hotstuff: blocks are kept for ever",
        "A stable checkpoint lets no block go.",
        "bftkit_hotstuff.block_tree:BlockTree.forget_through",
        _nothing_forgotten,
        (calm(),),
    ),
    Mutant(
        "hotstuff: orphans are kept",
        "Blocks on other branches than the committed one are kept.",
        "bftkit_hotstuff.block_tree:BlockTree.prune",
        doing_nothing,
        (rough(),),
    ),
    Mutant(
        "hotstuff: blocks are not fetched",
        "Whoever lacks a certified block asks nobody for it.",
        "bftkit_hotstuff.fetching:_ask",
        doing_nothing,
        (Check(_missing_blocks_are_asked_for),),
    ),
)
"""All of them."""
