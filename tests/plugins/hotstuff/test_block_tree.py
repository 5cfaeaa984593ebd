"""The tree of blocks: what is kept, and what is known to be committed."""

import random

from bftkit_hotstuff.block_tree import MAX_ASIDE, BlockTree
from bftkit_hotstuff.messages import GENESIS, Block
from tests.plugins.hotstuff.parts import block_on, chain_of


def planted(blocks: list[Block]) -> BlockTree:
    tree = BlockTree(0)
    for block in blocks:
        tree.add(block)
    return tree


def test_a_branch_goes_down_to_what_is_committed_as_far_as_it_is_here():
    chain = chain_of(5)
    tree = planted(chain)
    assert [node.height for node in tree.branch(chain[4].header().id)] == [5, 4, 3, 2, 1]
    tree.commit(next(iter(tree.branch(chain[0].header().id))))
    assert [node.height for node in tree.branch(chain[4].header().id)] == [5, 4, 3, 2]
    del tree.nodes[chain[2].header().id]
    assert [node.height for node in tree.branch(chain[4].header().id)] == [5, 4]
    assert list(tree.branch(bytes(32))) == []


def test_the_first_block_is_known_without_being_here():
    tree = BlockTree(0)
    assert tree.header(GENESIS.id) == GENESIS
    assert BlockTree(4).header(GENESIS.id) is None


def test_the_same_block_is_one_node():
    tree, block = BlockTree(0), block_on(None, 1)
    assert tree.add(block) is tree.add(block)
    assert len(tree.nodes) == 1


def test_other_branches_go_once_a_block_is_committed():
    chain = chain_of(3)
    orphan = block_on(None, 4)
    child = block_on(orphan, 5)
    later = block_on(chain[0], 6)
    tree = planted([*chain, orphan, child, later])
    tree.commit(tree.nodes[chain[0].header().id])
    tree.prune()
    assert {node.round for node in tree.nodes.values()} == {1, 2, 3, 6}
    tree.commit(tree.nodes[chain[1].header().id])
    tree.prune()
    assert {node.round for node in tree.nodes.values()} == {1, 2, 3}


def test_a_stable_checkpoint_leaves_the_block_there_known_and_nothing_below():
    chain = chain_of(5)
    tree = planted(chain)
    for block in chain[:4]:
        tree.commit(tree.nodes[block.header().id])
    tree.forget_through(3)
    assert [node.height for node in tree.nodes.values()] == [4, 5]
    assert tree.anchor == chain[2].header()
    assert (tree.low, tree.committed, tree.tip) == (3, 4, chain[3].header())
    tree.forget_through(2)
    assert tree.low == 3
    tree.forget_through(9)
    assert (tree.low, tree.committed, tree.anchor, tree.tip) == (9, 9, None, None)


def test_what_others_have_proved_is_committed_with_its_ancestors():
    chain = chain_of(4)
    other = block_on(chain[0], 7)
    tree = planted([*chain, other])
    tree.jump(3, chain[2].header())
    tree.prune()
    assert tree.decided == {height: chain[height - 1].header().id for height in (1, 2, 3)}
    assert other.header().id not in tree.nodes
    assert tree.is_joined(tree.nodes[chain[3].header().id])


def test_behind_a_state_without_a_block_anything_at_the_next_height_may_follow():
    chain = chain_of(4)
    tree = planted(chain[3:])
    tree.jump(3, None)
    assert tree.is_joined(tree.nodes[chain[3].header().id])
    tree.jump(3, chain[1].header())
    assert not tree.is_joined(tree.nodes[chain[3].header().id])


def test_what_is_aside_is_never_too_much_and_the_newest_branch_stays_whole():
    chain = chain_of(MAX_ASIDE // 2)
    tree = planted(chain)
    for number in range(2_000, 2_000 + MAX_ASIDE + 50):
        proposal = tree.add(block_on(None, number))
        tree.shrink(chain[-1].header().id, proposal.id)
        assert proposal.id in tree.nodes
    assert tree.uncommitted == len(chain) + MAX_ASIDE + 1
    assert {block.header().id for block in chain} <= set(tree.nodes)


def test_the_newest_branch_stays_also_while_the_block_at_its_top_is_missing():
    chain = chain_of(50)
    tree = planted([*chain[:-1], *(block_on(None, number) for number in range(60, 60 + 2 * MAX_ASIDE))])
    tree.shrink(chain[-1].header().id)
    assert {block.header().id for block in chain[:-2]} <= set(tree.nodes)
    assert tree.uncommitted <= len(chain) + MAX_ASIDE


def test_no_order_of_additions_matters():
    chain = chain_of(6)
    forks = [block_on(chain[place], 20 + place) for place in range(4)]
    found = []
    for seed in range(20):
        blocks = [*chain, *forks]
        random.Random(seed).shuffle(blocks)
        tree = planted(blocks)
        for block in chain[:3]:
            tree.commit(tree.nodes[block.header().id])
        tree.prune()
        found.append(sorted(node.round for node in tree.nodes.values()))
    assert all(one == found[0] for one in found)
