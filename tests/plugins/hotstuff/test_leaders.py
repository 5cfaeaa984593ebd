"""Who leads: in turn, by weight, and by reputation."""

from functools import partial

import msgspec
import pytest

from bftkit.core.inputs import Stable, Synced
from bftkit.core.leaders import schedule_of
from bftkit.core.membership import Membership
from bftkit.core.quorum import FaultModel
from bftkit.testing.engine_group import EngineGroup, GroupSettings
from bftkit.testing.scenario import all_decided
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.engine import SPEC, build
from bftkit_hotstuff.leaders import leader, may_lead, next_leader
from bftkit_hotstuff.messages import GENESIS_QC, Certificates, Past, Timeout
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import START, block_on, checkpoint_at, context_of, genesis_of, qc_for


def grown(own: int, rounds: int, voters=(0, 1, 3), **options) -> tuple[Lone, list]:
    """A replica that has seen so many rounds whose certificates these members signed; led by whom it expects."""
    replica = Lone(own, leaders="reputation", interval=64, **options)
    blocks: list = []
    for number in range(1, rounds + 1):
        parent = blocks[-1] if blocks else None
        justify = qc_for(parent, voters) if parent is not None else GENESIS_QC
        who = leader(replica.state)
        block = block_on(parent, number, author=who, justify=justify)
        replica.state.tree.add(block)
        blocks.append(block)
        replica.hear((own + 1) % 4, _shown(block, voters))
    return replica, blocks


def _shown(block, voters):
    return Certificates(qc_for(block, voters), None)


def test_everybody_in_turn_by_default():
    replica = Lone()
    assert leader(replica.state) == 1
    for sender in (1, 2):
        replica.hear(sender, Timeout(1, GENESIS_QC, None))
    assert leader(replica.state) == 2


def test_a_heavier_member_leads_more_often():
    context = context_of(0, 4)
    members = context.membership.members
    heavy = type(context.membership)((msgspec.structs.replace(members[0], weight=3), *members[1:]), "byzantine")
    made = type(context)(0, heavy, context.options, context.limits)
    engine = build(made, genesis_of(made), START, ())
    leaders = []
    for number in range(1, 13):
        engine.state.round = number
        leaders.append(leader(engine.state))
    assert leaders.count(0) == 6


def test_by_reputation_members_that_do_not_vote_do_not_lead():
    replica, blocks = grown(2, 12)
    assert 2 in {block.author for block in blocks[:6]}
    assert 2 not in {block.author for block in blocks[6:]}
    assert leader(replica.state) != 2


def test_the_authors_of_the_last_committed_blocks_do_not_lead_next():
    replica, _ = grown(2, 12)
    assert leader(replica.state) != replica.state.history[-1].author


def test_all_members_with_the_branch_come_to_the_same_leader_however_far_they_have_committed():
    _, blocks = grown(2, 12)
    behind, _ = grown(2, 11)
    node = behind.state.tree.get(blocks[10].header().id)
    assert node is not None
    behind.hear(3, _shown(blocks[10], (0, 1, 3)))
    assert next_leader(behind.state, node) == blocks[11].author
    assert may_lead(behind.state, blocks[11])
    assert not may_lead(behind.state, msgspec.structs.replace(blocks[11], author=2))


def test_after_a_timeout_it_is_whose_turn_it_is():
    replica, blocks = grown(2, 12)
    qc = qc_for(blocks[-1], (0, 1, 3))
    for sender in (0, 1, 3):
        replica.hear(sender, Timeout(13, qc, None))
    assert replica.state.round == 14
    assert leader(replica.state) == 14 % 4


def test_whoever_lacks_the_history_does_not_know_the_leader_until_blocks_were_committed():
    replica, blocks = grown(2, 12)
    replica.step(Synced(0, 12, (), None))
    assert replica.state.history == []
    assert leader(replica.state) is None
    assert next_leader(replica.state, replica.state.tree.get(blocks[-1].header().id)) is None
    assert may_lead(replica.state, block_on(blocks[-1], 13, author=3))


def test_the_history_survives_a_restart():
    replica, _ = grown(2, 12)
    before = list(replica.state.history)
    replica.step(Stable(0, checkpoint_at(replica.state.committed)))
    again = replica.again()
    assert again.state.history == before
    assert all(isinstance(one, Past) for one in before)


def weighted(*weights: int) -> Membership:
    """Members that lead so often."""
    members = context_of(0, len(weights)).membership.members
    pairs = zip(members, weights, strict=True)
    return Membership(tuple(msgspec.structs.replace(one, weight=weight) for one, weight in pairs), FaultModel.BYZANTINE)


def test_weights_must_leave_a_chain_to_those_who_are_alive():
    jolteon, three = HotStuffOptions(), HotStuffOptions(rules="three_chain")
    assert SPEC.leaders_problem(weighted(3, 1, 1, 1), jolteon) is None
    assert "3, 1, 1, 1 would do" in str(SPEC.leaders_problem(weighted(8, 1, 1, 1), jolteon))
    assert "2, 1, 1, 1 would do" in str(SPEC.leaders_problem(weighted(3, 1, 1, 1), three))
    for members in range(4, 32):
        assert SPEC.leaders_problem(weighted(*[1] * members), three) is None


def test_where_votes_go_to_nobody_else_in_time_their_collector_must_be_alive_too():
    slow = HotStuffOptions(view_timeout_ms=1_000, timeout_cap_factor=2, retransmit_ms=2_000)
    assert SPEC.leaders_problem(weighted(1, 1, 1, 1), slow) is None
    assert SPEC.leaders_problem(weighted(3, 1, 1, 1), slow) is not None
    three = msgspec.structs.replace(slow, rules="three_chain")
    assert "no weights would do" in str(SPEC.leaders_problem(weighted(1, 1, 1, 1), three))


@pytest.mark.parametrize("leaders", ["reputation", "round_robin"])
@pytest.mark.parametrize(("weights", "rules"), [((3, 1, 1, 1), "jolteon"), ((2, 1, 1, 1), "three_chain")])
def test_groups_with_the_heaviest_weights_that_pass_live_without_any_one_member(weights, rules, leaders):
    for dead in range(4):
        options = HotStuffOptions(rules=rules, leaders=leaders, view_timeout_ms=400)
        settings = GroupSettings(options=options, interval=64, leaders=schedule_of(weights))
        group = EngineGroup(SPEC, 4, 1, settings=settings).start()
        group.crash(dead)
        live = [number for number in range(4) if number != dead]
        alive = [group.instances[number] for number in live]
        for number in range(4):
            group.submit(f"w{number}", live[0], live)
            group.run_until(partial(all_decided, alive), 40_000)
