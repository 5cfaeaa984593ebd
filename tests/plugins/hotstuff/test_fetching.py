"""Certified blocks that are missing."""

from bftkit.core.outputs import Behind
from bftkit_hotstuff.check import MAX_BLOCKS
from bftkit_hotstuff.fetching import MAX_ASKED, MAX_WANTED
from bftkit_hotstuff.messages import Blocks, FetchBlocks
from tests.plugins.hotstuff.lone import Lone, commits, receivers, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, qc_for


def test_one_of_those_who_voted_is_asked():
    replica, chain = Lone(), chain_of(3)
    out = replica.certify(chain[2])
    assert sent(out, FetchBlocks) == [FetchBlocks(chain[2].header().id, 0)]
    assert receivers(out, FetchBlocks) == [1]
    assert not sent(replica.certify(chain[2]), FetchBlocks), "it is asked for already"


def test_a_long_branch_is_fetched_piece_by_piece_without_a_deeper_call():
    chain = chain_of(3 * MAX_BLOCKS)
    replica, other = Lone(interval=64), Lone(own=1, interval=64)
    for block in chain:
        other.state.tree.add(block)
    questions, out = 0, replica.certify(chain[-1])
    committed = []
    while asked := sent(out, FetchBlocks):
        questions += 1
        (answer,) = sent(other.hear(0, asked[0]), Blocks)
        assert len(answer.blocks) <= MAX_BLOCKS
        out = replica.hear(1, answer)
        committed += commits(out)
    assert questions == 3
    assert committed == list(range(1, 3 * MAX_BLOCKS))


def test_nothing_that_was_not_asked_for_is_taken():
    replica, chain = Lone(), chain_of(2)
    assert not replica.hear(3, Blocks(chain[1].header().id, 0, (chain[1], chain[0])))
    assert not replica.state.tree.nodes


def test_whoever_let_go_of_a_block_says_how_far_it_is():
    replica, chain = Lone(), chain_of(3)
    replica.certify(chain[2])
    out = replica.hear(1, Blocks(chain[2].header().id, 40, ()))
    assert [(one.position, one.sources) for one in out if isinstance(one, Behind)] == [(40, (1,))]
    assert not replica.hear(1, Blocks(chain[2].header().id, 40, ())), "now and then only"
    (answer,) = sent(Lone(own=1).hear(0, FetchBlocks(bytes(32), 0)), Blocks)
    assert (answer.committed, answer.blocks) == (0, ())


def test_the_next_one_is_asked_after_a_while_and_not_for_ever():
    replica, chain = Lone(), chain_of(3)
    replica.certify(chain[2])
    asked = [receivers(replica.fire("retransmit", after=250), FetchBlocks) for _ in range(3)]
    assert asked[0] == [2]
    assert asked[1] == [3]
    for _ in range(2 * MAX_ASKED):
        replica.fire("retransmit", after=250)
    assert not replica.state.wanted
    assert not replica.state.armed


def test_the_questions_are_bounded():
    replica = Lone()
    for number in range(1, 3 * MAX_WANTED):
        replica.certify(block_on(None, number, [batch(f"b{number}")]))
    assert len(replica.state.wanted) <= MAX_WANTED


def test_a_block_far_above_is_caught_up_with_by_other_means():
    replica, first = Lone(interval=2), block_on(None, 1)
    out = replica.see(block_on(first, 2, height=100))
    assert [one.position for one in out if isinstance(one, Behind)] == [96]
    assert replica.state.proposal is None


def test_only_what_lies_above_the_asker_is_sent():
    other, chain = Lone(own=1, interval=64), chain_of(5)
    for block in chain:
        other.state.tree.add(block)
    (answer,) = sent(other.hear(0, FetchBlocks(chain[4].header().id, 3)), Blocks)
    assert [block.height for block in answer.blocks] == [5, 4]
    assert answer.blocks[0].justify == qc_for(chain[3])
