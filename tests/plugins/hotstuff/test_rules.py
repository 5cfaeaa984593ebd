"""The rules of Jolteon (FC'22, Fig. 2) and of HotStuff (PODC'19, §5), over all small cases."""

from itertools import pairwise, product

import pytest

from bftkit_hotstuff.messages import GENESIS, GENESIS_QC, Block, Header
from bftkit_hotstuff.rules import RULES, follows
from tests.plugins.hotstuff.parts import block_on, qc_for, tc_for

JOLTEON, THREE = RULES["jolteon"], RULES["three_chain"]
ROUNDS = range(1, 6)


def qc_of(number: int):
    """A certificate of some block of a round; of the first block for round 0."""
    return qc_for(Block(number, number, 0, (), GENESIS_QC)) if number else GENESIS_QC


def test_jolteon_votes_exactly_where_the_paper_says():
    """ "(1) r = qc.r + 1; or (2) r = tc.r + 1 and qc.r >= max {qc_high.r | qc_high in tc}"."""
    for number, justified in product(ROUNDS, range(5)):
        block = Block(number, 1, 0, (), qc_of(justified))
        assert JOLTEON.may_vote(block, None, None) is (number == justified + 1)
        for tc_round, known in product(ROUNDS, product(range(5), repeat=3)):
            tc = tc_for(tc_round, [qc_of(one) for one in known])
            expected = number == justified + 1 or (number == tc_round + 1 and justified >= max(known))
            assert JOLTEON.may_vote(block, tc, None) is expected


def test_three_chains_vote_where_the_lock_allows_it():
    """safeNode: the block extends the locked one, or its QC is newer than the lock (PODC'19, Algorithm 1)."""
    for number, justified, locked in product(ROUNDS, range(5), [None, *range(5)]):
        block = Block(number, 1, 0, (), qc_of(justified))
        lock = None if locked is None else qc_of(locked)
        safe = locked is None or justified >= locked
        assert THREE.may_vote(block, None, lock) is (number == justified + 1 and safe)
        assert THREE.may_vote(block, tc_for(number), lock) is (number == justified + 1 and safe)
        if number > 1:
            assert THREE.may_vote(block, tc_for(number - 1), lock) is safe


def test_a_vote_locks_the_certified_parent_of_a_certified_parent():
    first = block_on(None, 1)
    second = block_on(first, 2)
    third = block_on(second, 3)
    assert THREE.lock_of(third, second) == second.justify
    assert THREE.lock_of(third, None) is None
    assert JOLTEON.lock_of(third, second) is None


def chain(*rounds: int) -> list[Header]:
    """Headers of linked blocks in these rounds, the newest first."""
    found: list[Header] = []
    for height, number in enumerate(rounds, 1):
        parent = found[0] if found else GENESIS
        found.insert(0, Header(number, height, parent.id, parent.round, b"", 0, GENESIS.content))
    return found


@pytest.mark.parametrize(("rules", "length"), [(JOLTEON, 2), (THREE, 3)])
def test_only_consecutive_rounds_decide(rules, length):
    """ "Two adjacent certified blocks with consecutive round numbers" (Jolteon §3); three of them (HotStuff §5)."""
    for rounds in product(range(1, 6), repeat=length):
        expected = all(later == earlier + 1 for earlier, later in pairwise(rounds))
        assert rules.decides(chain(*rounds)) is expected
    assert not rules.decides(chain(*range(1, length)))
    assert not rules.decides(chain(*range(1, length + 2)))


def test_only_linked_blocks_decide():
    newest, oldest = chain(1, 2)
    for other in (chain(5, 6)[0], Header(2, 2, GENESIS.id, 1, b"", 0, GENESIS.content)):
        assert not follows(other, oldest)
        assert not JOLTEON.decides([other, oldest])
    assert JOLTEON.decides([newest, oldest])
    assert not JOLTEON.decides([oldest, newest])


@pytest.mark.parametrize("rules", [JOLTEON, THREE])
def test_a_leader_builds_on_the_newest_certificate_and_every_correct_member_may_vote_for_that(rules):
    for number, newest, known in product(range(2, 6), range(5), product(range(5), repeat=3)):
        high = max(newest, *known)
        if high >= number:
            continue
        tc = tc_for(number - 1, [qc_of(one) for one in known]) if max(known) < number - 1 else None
        if tc is None and high != number - 1:
            continue
        justify, shown = rules.extend(number, qc_of(high), tc)
        assert justify == qc_of(high)
        assert shown == (None if high == number - 1 else tc)
        for locked in (None, *map(qc_of, range(high + 1))):
            assert rules.may_vote(Block(number, 1, 0, (), justify), shown, locked)
