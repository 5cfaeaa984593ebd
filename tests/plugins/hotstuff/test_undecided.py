"""Long phases in which blocks are certified and no chain decides: bounded while they last, and over once they end."""

import pytest

from bftkit.core.outputs import Behind, Reject
from bftkit.testing.engine_group import EngineGroup
from bftkit.testing.scenario import all_decided
from bftkit_hotstuff import block_tree, check, state
from bftkit_hotstuff.messages import Proposal, Vote
from bftkit_hotstuff.state import BLOCKS_PER_DOUBLING
from tests.plugins.hotstuff.lone import Lone, commits, sent
from tests.plugins.hotstuff.parts import batch, block_on, chain_of, group_of

A = batch("a")


def gaps_in(group: EngineGroup, length: int, rounds: int) -> None:
    """Let no proposal through in each round of so many, so that no chain of this length comes about; then heal."""
    group.deliverable = lambda sender, receiver, what: not (isinstance(what, Proposal) and what.round % length == 0)
    for number in (0, 1, 3):
        group.submit(f"w{number}", number, (0, 1, 3))
    while group.instances[0].engine.state.round < rounds:
        group.run(1_000)
    assert not any(instance.engine.state.committed for instance in group.instances)
    group.deliverable = None


@pytest.mark.parametrize(("interval", "rounds"), [(1, 14), (1, 60), (4, 40), (16, 80)])
@pytest.mark.parametrize(("rules", "length"), [("jolteon", 2), ("three_chain", 3)])
def test_a_group_decides_again_however_many_blocks_wait(interval, rounds, rules, length):
    group = group_of(4, 1, interval=interval, rules=rules)
    gaps_in(group, length, rounds)
    group.run_until(lambda: all_decided(group.instances), 16_000)
    assert all(instance.engine.state.committed > rounds // 2 - 4 for instance in group.instances)


def test_it_decides_again_also_with_a_dead_member_and_one_that_comes_late():
    group = group_of(4, 1, interval=1)
    group.crash(2)
    gaps_in(group, 2, 30)
    group.crash(1)
    group.restart(2)
    live = [group.instances[number] for number in (0, 2, 3)]
    assert group.run_until(lambda: all_decided(live), 30_000) <= 30_000
    assert live[1].engine.state.committed > 12


@pytest.mark.slow
def test_more_than_ever_wait_in_the_window_of_a_usual_interval(monkeypatch):
    """1,070 rounds: more blocks than twice the window of 256; with patience as it usually is, that takes ten years."""
    monkeypatch.setattr(state, "BLOCKS_PER_DOUBLING", 1 << 20)
    group = group_of(4, 1, interval=128, timeout_cap_factor=1, retransmit_ms=1_000)
    gaps_in(group, 2, 1_070)
    assert group.run_until(lambda: all_decided(group.instances), 16_000) <= 16_000
    assert group.instances[0].engine.state.committed > 520


def test_the_newest_branch_is_kept_however_little_is_kept_aside(monkeypatch):
    monkeypatch.setattr(block_tree, "MAX_ASIDE", 4)
    group = group_of(4, 1)
    gaps_in(group, 2, 60)
    assert group.run_until(lambda: all_decided(group.instances), 16_000) <= 16_000


def grown(rounds: range, **options) -> tuple[Lone, list]:
    """A replica with a branch of certified blocks none of which is decided: each is two rounds after the one before."""
    replica = Lone(own=0, leaders="round_robin", **options)
    blocks: list = []
    for number in rounds:
        parent = blocks[-1] if blocks else None
        blocks.append(block_on(parent, number))
        replica.state.tree.add(blocks[-1])
    replica.certify(blocks[-1])
    return replica, blocks


def test_a_block_on_one_that_is_here_is_voted_for_high_above_the_window():
    replica, blocks = grown(range(1, 60, 2), interval=1)
    out = replica.see(block_on(blocks[-1], 60))
    assert sent(out, Vote)
    assert not [one for one in out if isinstance(one, Behind)]


def test_nothing_rises_higher_than_a_proof_reaches(monkeypatch):
    for module in (check, state):
        monkeypatch.setattr(module, "MAX_LINKS", 20)
    replica, blocks = grown(range(1, 42, 2), interval=1)
    assert blocks[-2].height == 20
    assert not sent(replica.see(block_on(blocks[-1], 42)), Vote)
    lower, blocks = grown(range(1, 40, 2), interval=1)
    assert not sent(lower.see(block_on(blocks[-1], 40)), Vote)
    lowest, blocks = grown(range(1, 38, 2), interval=1)
    assert sent(lowest.see(block_on(blocks[-1], 38)), Vote)
    assert commits(lowest.certify(block_on(blocks[-1], 38))) == list(range(1, 20))


def test_a_leader_at_the_limit_proposes_nothing(monkeypatch):
    monkeypatch.setattr(state, "MAX_LINKS", 20)
    for length, expected in ((19, True), (20, False)):
        leader = Lone(own=2 * length % 4, leaders="round_robin")
        blocks: list = []
        for number in range(1, 2 * length, 2):
            blocks.append(block_on(blocks[-1] if blocks else None, number, [A] if number == 1 else ()))
            leader.state.tree.add(blocks[-1])
        leader.certify(blocks[-1])
        assert leader.state.round == 2 * length
        assert bool(sent(leader.outputs, Proposal)) is expected


def test_patience_doubles_with_what_waits_for_a_decision():
    """So a phase without decisions adds blocks with the logarithm of its length only."""
    found = {}
    for length in (1, BLOCKS_PER_DOUBLING, 3 * BLOCKS_PER_DOUBLING):
        replica, _ = grown(range(1, 2 * length, 2))
        found[length] = replica.state.timeout_ms
    assert list(found.values()) == [1_000, 2_000, 8_000]


def test_a_branch_that_does_not_reach_down_takes_no_patience():
    replica, blocks = grown(range(1, 4 * BLOCKS_PER_DOUBLING, 2))
    del replica.state.tree.nodes[blocks[0].header().id]
    assert replica.state.timeout_ms == 1_000


def test_a_height_that_does_not_follow_the_parents_is_rejected_and_not_caught_up_with():
    replica, first = Lone(), chain_of(1)[0]
    replica.have(*first.refs)
    replica.see(first)
    out = replica.see(block_on(first, 2, height=10**12))
    assert [one.sender for one in out if isinstance(one, Reject)] == [2]
    assert not [one for one in out if isinstance(one, Behind)]


def test_empty_blocks_that_fill_the_window_are_brought_to_a_decision_for_what_waits():
    replica, blocks = grown(range(1, 23, 2), interval=1)
    leader = Lone(own=2, records=replica.records, leaders="round_robin", interval=1)
    for block in blocks:
        leader.state.tree.add(block)
    leader.certify(blocks[-1])
    assert leader.state.round == 22
    assert not sent(leader.outputs, Proposal), "nothing waits"
    (message,) = sent(leader.have(A), Proposal)
    assert message.block.refs == ()


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("rules", ["jolteon", "three_chain"])
def test_the_shortest_window_has_room_above_the_end_of_a_chain(interval, rules):
    group = group_of(4, 1, interval=interval, rules=rules)
    for number in range(8):
        group.submit(f"w{number}", number % 4)
        assert group.run_until(lambda: all_decided(group.instances), 4_000) <= 4_000
