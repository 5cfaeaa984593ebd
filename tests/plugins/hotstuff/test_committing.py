"""What chains decide, in which order, and with which proofs (Jolteon Fig. 2, Commit; HotStuff §5)."""

import pytest

from bftkit.core.inputs import Synced
from bftkit.core.log import CommitEntry
from bftkit.core.outputs import Commit
from bftkit_hotstuff.check import commit_problem, headers_of
from bftkit_hotstuff.messages import Blocks, FetchBlocks
from tests.plugins.hotstuff.lone import Lone, commits, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, tc_for

GAPS = [(1, 3), (1, 4), (2, 4)]


def told(replica: Lone, blocks: list) -> list:
    """Let a replica hear of blocks, and that the last one is certified."""
    out = []
    for block in blocks:
        replica.have(*block.refs)
        tc = None if block.round == block.justify.statement.view + 1 else tc_for(block.round - 1, [block.justify] * 3)
        out += replica.see(block, tc)
    return out + replica.certify(blocks[-1])


def test_two_certified_blocks_in_a_row_decide_the_lower_one():
    replica, chain = Lone(), chain_of(2)
    out = told(replica, chain)
    assert commits(out) == [1]
    (commit,) = [one for one in out if isinstance(one, Commit)]
    assert commit.refs == chain[0].refs
    assert not replica.state.watched.keys() & {ref.digest for ref in chain[0].refs}


@pytest.mark.parametrize("rounds", GAPS)
def test_a_gap_decides_nothing(rounds):
    first = block_on(None, rounds[0], [batch("a")])
    second = block_on(first, rounds[1], [batch("b")])
    assert commits(told(Lone(), [first, second])) == []


def test_ancestors_are_committed_first_and_in_order():
    """ "The replica commits B and all its ancestors"."""
    first = block_on(None, 1, [batch("a")])
    second = block_on(first, 3, [batch("b")])
    third = block_on(second, 5, [batch("c")])
    fourth = block_on(third, 6)
    replica = Lone()
    out = told(replica, [first, second, third, fourth])
    assert commits(out) == [1, 2, 3]
    lengths = [len(headers_of(one.proof.links) or ()) for one in out if isinstance(one, Commit)]
    assert lengths == [4, 3, 2]


def test_each_block_has_the_shortest_proof_that_there_is():
    replica, chain = Lone(), chain_of(4)
    replica.have(*(ref for block in chain for ref in block.refs))
    out = replica.certify(chain[3])
    (asked,) = sent(out, FetchBlocks)
    out = replica.hear(1, Blocks(asked.block, 0, tuple(reversed(chain))))
    assert commits(out) == [1, 2, 3]
    assert [len(headers_of(one.proof.links) or ()) for one in out if isinstance(one, Commit)] == [2, 2, 2]
    for commit in (one for one in out if isinstance(one, Commit)):
        entry = CommitEntry(commit.position, commit.refs, commit.proof)
        assert commit_problem(replica.context, entry) is None


def test_three_chains_need_one_more():
    replica, chain = Lone(rules="three_chain"), chain_of(3)
    assert commits(told(replica, chain[:2])) == []
    assert commits(told(replica, chain[2:])) == [1]


def test_a_block_on_another_branch_gives_its_batches_back():
    orphan = block_on(None, 1, [batch("left behind")])
    chain = chain_of(3, start=2)
    replica = Lone()
    replica.have(*orphan.refs)
    replica.see(orphan)
    replica.see(chain[0], tc_for(1))
    replica.have(*(ref for block in chain for ref in block.refs))
    for block in chain[1:]:
        replica.see(block)
    assert replica.state.committed == 1
    assert replica.state.tree.get(orphan.header().id) is None
    assert orphan.refs[0].digest in replica.state.pending


def test_after_a_transferred_state_a_decision_shows_which_block_follows():
    replica, chain = Lone(), chain_of(5)
    replica.have(*(ref for block in chain for ref in block.refs))
    replica.step(Synced(0, 2, (), None))
    assert replica.state.tree.tip is None
    out = []
    for block in chain[1:]:
        out += replica.see(block)
    assert commits(out) == [3]
    assert commits(replica.certify(chain[4])) == [4]
