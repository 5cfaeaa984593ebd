"""The engine as the library sees it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bftkit.core.inputs import Available, Read, Received, Sealed, Stable, Synced, TimerFired, Transfer
from bftkit.core.quorum import FaultModel
from bftkit_raft.check import check, proof_of_term
from bftkit_raft.engine import MESSAGE_HANDLERS, SPEC, TIMER_HANDLERS
from bftkit_raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    RaftMessage,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotNeeded,
    TimeoutNow,
    Vote,
)
from tests.plugins.raft.lone import Lone, batch, entry
from tests.plugins.raft.parts import checkpoint_at

BATCHES = [batch(name, origin) for name, origin in [("a", 0), ("b", 1), ("c", 2)]]


def test_every_message_has_a_handler():
    assert set(MESSAGE_HANDLERS) == set(RaftMessage.__args__)


def test_the_plugin_offers_the_engine():
    from bftkit_raft.plugin import bftkit_engine

    assert bftkit_engine() is SPEC
    assert (SPEC.name, SPEC.fault_model, SPEC.signing, SPEC.min_members) == ("raft", FaultModel.CRASH, {}, 1)
    assert SPEC.answers_reads


# --- Total: no input that passed `check` makes `step` raise ---------------------------------------------------------

small = st.integers(0, 5)
positions = st.integers(0, 12)
refs = st.lists(st.sampled_from(BATCHES), unique=True, max_size=2).map(tuple)


@st.composite
def messages(draw: st.DrawFn):
    """A member and something that it may say, in a few terms and positions."""
    term, position = draw(st.integers(1, 5)), draw(positions)
    listed = sorted(draw(st.lists(st.integers(1, term), max_size=3)))
    before = draw(st.integers(0, listed[0] if listed else term))
    entries = tuple(entry(one, *draw(refs)) for one in listed)
    message = draw(
        st.sampled_from(
            [
                AppendEntries(term, position, before, entries, draw(positions), draw(small)),
                AppendEntries(term, position, before, entries, draw(positions), draw(small)),
                AppendAccepted(term, position, draw(small)),
                AppendRejected(term, position, draw(small), draw(positions), draw(small)),
                RequestVote(term, position, term - 1, draw(st.booleans()), False),
                RequestVote(term, position, term - 1, False, draw(st.booleans())),
                Vote(term, term, draw(st.booleans()), False),
                Vote(term - 1, term, True, True),
                TimeoutNow(term),
                SnapshotNeeded(term, position, draw(small)),
                ReadIndex(term, 1, draw(small)),
                ReadIndexReply(term, 1, draw(small), position),
            ]
        )
    )
    return draw(st.integers(0, 2)), message


inputs = st.one_of(
    messages(),
    messages(),
    messages(),
    st.sampled_from(sorted(TIMER_HANDLERS)),
    refs,
    st.sampled_from(
        [
            Synced(0, 3, (), None),
            Synced(0, 4, (BATCHES[1],), proof_of_term(2)),
            Synced(0, 9, (BATCHES[0],), proof_of_term(4)),
            Read(0, 7),
            Transfer(0, 1),
        ]
    ),
    st.sampled_from([3, 4, 8]),
)


@settings(max_examples=300)
@given(st.lists(inputs, max_size=40))
def test_nothing_that_is_well_formed_makes_it_raise(things):
    lone = Lone(interval=4)
    for thing in things:
        lone.now += 250
        match thing:
            case str():
                lone.step(TimerFired(lone.now, thing))
            case int() if thing <= lone.state.commit:
                lone.step(Stable(lone.now, checkpoint_at(thing)))
            case Synced():
                lone.step(Synced(lone.now, thing.position, thing.refs, thing.proof))
            case Read():
                lone.step(Read(lone.now, thing.token))
            case Transfer():
                lone.step(Transfer(lone.now, thing.target))
            case (int(sender), message):
                if check(lone.context, sender, message) is None:
                    lone.step(Received(lone.now, sender, message))
            case tuple():
                lone.step(Available(lone.now, thing))
        lone.engine.status()
        state, log = lone.state, lone.state.log
        assert log.base <= state.commit <= log.last
        assert all(state.held.get(ref.digest) == ref for one in log.entries for ref in one.refs)
        assert all(state.ordered[ref.digest] > log.base for one in log.entries for ref in one.refs)
        assert not any(ref.digest in state.ordered for ref in state.pending)
    again = lone.again(checkpoint_at(lone.state.low))
    assert (again.state.term, again.state.vote) == (lone.state.term, lone.state.vote)
    assert again.state.log.last <= max(lone.state.log.last, lone.state.low)
    lone.step(Sealed(lone.now, lone.state.commit))


@settings(max_examples=200)
@given(st.lists(messages(), max_size=30))
def test_what_a_member_acknowledged_is_in_its_records(things):
    """Whatever is said: built again, a member has the log up to its last acknowledgement in its last term."""
    lone = Lone(interval=16)
    for sender, message in things:
        for ref in BATCHES:
            lone.have(ref)
        if check(lone.context, sender, message) is None:
            lone.hear(sender, message)
    again = lone.again()
    assert again.state.term == lone.state.term
    assert again.state.log.entries == lone.state.log.entries
    assert again.state.log.highest_term == lone.state.log.highest_term
