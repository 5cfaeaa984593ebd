"""The engine as the library sees it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bftkit.core.inputs import Available, Read, Received, Sealed, Stable, Synced, TimerFired, Transfer
from bftkit_hotstuff.check import check
from bftkit_hotstuff.engine import MESSAGE_HANDLERS, SPEC, TIMER_HANDLERS
from bftkit_hotstuff.messages import GENESIS_QC, Blocks, Certificates, FetchBlocks, HotStuffMessage, Timeout, Vote
from tests.plugins.hotstuff.lone import Lone
from tests.plugins.hotstuff.parts import batch, block_on, checkpoint_at, group_of, proposal, qc_for, signed, tc_for

BATCHES = [batch(name, origin) for name, origin in [("a", 0), ("b", 1), ("c", 2)]]


def test_every_message_has_a_handler():
    assert set(MESSAGE_HANDLERS) == set(HotStuffMessage.__args__)


def test_the_plugin_offers_the_engine():
    from bftkit_hotstuff.plugin import bftkit_engine

    assert bftkit_engine() is SPEC
    assert SPEC.name == "hotstuff"
    assert set(SPEC.signing) == {"proposal", "vote", "timeout"}
    assert SPEC.view_for_each_position


def test_reads_and_transfers_are_left_to_others():
    replica = Lone()
    assert not replica.step(Read(0, 1))
    assert not replica.step(Transfer(0, 2))


# --- Total: no input that passed `check` makes `step` raise ---------------------------------------------------------

refs = st.lists(st.sampled_from(BATCHES), unique=True, max_size=2).map(tuple)
POOL = [block_on(None, number, [BATCHES[number % 3]]) for number in range(1, 6)]
POOL += [block_on(parent, parent.round + step) for parent in POOL for step in (1, 2)]
POOL += [block_on(parent, parent.round + 1, height=9) for parent in POOL[-4:]]
blocks = st.sampled_from(POOL)
qcs = st.one_of(st.just(GENESIS_QC), blocks.map(qc_for))
tcs = st.builds(tc_for, st.integers(1, 9), st.lists(qcs, min_size=3, max_size=4))


@st.composite
def messages(draw: st.DrawFn):
    """A member and something that it may say."""
    sender, block = draw(st.integers(0, 3)), draw(blocks)
    match draw(st.integers(0, 6)):
        case 0 | 1:
            return block.author, proposal(block, draw(st.none() | tcs))
        case 2:
            return sender, signed(sender, Vote(block.round, block.header().id))
        case 3:
            return sender, signed(sender, Timeout(draw(st.integers(1, 9)), draw(qcs), draw(st.none() | tcs)))
        case 4:
            return sender, Certificates(draw(qcs), draw(st.none() | tcs))
        case 5:
            return sender, FetchBlocks(block.header().id, draw(st.integers(0, 3)))
    return sender, Blocks(block.header().id, draw(st.integers(0, 9)), draw(st.sampled_from([(), (block,)])))


inputs = st.one_of(
    messages(),
    messages(),
    messages(),
    st.sampled_from(sorted(TIMER_HANDLERS)),
    refs,
    st.sampled_from([Synced(0, 3, (), None), Synced(0, 9, (BATCHES[0],), None)]),
    st.sampled_from([4, 8]),
)


@settings(max_examples=300)
@given(st.lists(inputs, max_size=40), st.sampled_from(["jolteon", "three_chain"]), st.booleans())
def test_nothing_that_is_well_formed_makes_it_raise(things, rules, by_reputation):
    replica = Lone(own=3, rules=rules, leaders="reputation" if by_reputation else "round_robin")
    for thing in things:
        replica.now += 400
        match thing:
            case str():
                replica.step(TimerFired(replica.now, thing))
            case int():
                replica.step(Synced(replica.now, thing, (), None))
                replica.step(Stable(replica.now, checkpoint_at(thing)))
            case Synced():
                replica.step(thing)
            case (int() as sender, message) if not isinstance(message, int):
                if check(replica.context, sender, message) is None:
                    replica.step(Received(replica.now, sender, message))
            case _:
                replica.step(Available(replica.now, thing))
        replica.engine.status()
    state = replica.state
    rebuilt = replica.again().state
    assert (rebuilt.voted_round, rebuilt.voted_block) == (state.voted_round, state.voted_block)
    assert rebuilt.round >= state.voted_round
    replica.step(Sealed(replica.now, 1))
    assert not state.armed


# --- Together -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [4, 5, 6, 7, 10])
@pytest.mark.parametrize("rules", ["jolteon", "three_chain"])
def test_members_commit_what_they_are_given_and_then_are_quiet(members, rules):
    group = group_of(members, rules=rules)
    for number in range(20):
        group.submit(f"b{number}", number % members)
    group.run(200)
    assert all(len(one.decided) == 20 for one in group.instances)
    assert all(not one.timers for one in group.instances)
    assert all(one.engine.status().waiting_for == "" for one in group.instances)
