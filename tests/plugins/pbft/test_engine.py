"""The engine as the library sees it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bftkit.core.inputs import Available, Read, Received, Sealed, Stable, Synced, TimerFired, Transfer
from bftkit_pbft.check import check
from bftkit_pbft.engine import MESSAGE_HANDLERS, SPEC, TIMER_HANDLERS, build
from bftkit_pbft.messages import (
    CommitVote,
    FetchNewView,
    FetchProposal,
    FetchViewChange,
    NewViewCopy,
    PbftMessage,
    Prepare,
    PrePrepare,
    PrePrepareCopy,
    Suspect,
    ViewChangeCopy,
    proposal_digest,
)
from tests.plugins.pbft.lone import Lone, new_view, prepared_at, signed, view_change
from tests.plugins.pbft.parts import START, batch, checkpoint_at, context_of, genesis_of, group_of

BATCHES = [batch(name, origin) for name, origin in [("a", 0), ("b", 1), ("c", 2)]]
CONTEXT = context_of(3, 4)


def test_every_message_has_a_handler():
    assert set(MESSAGE_HANDLERS) == set(PbftMessage.__args__)


def test_the_plugin_offers_the_engine():
    from bftkit_pbft.plugin import bftkit_engine

    assert bftkit_engine() is SPEC
    assert SPEC.name == "pbft"
    assert set(SPEC.signing) == {"pre-prepare", "prepare", "commit", "view-change", "new-view"}


def test_reads_and_transfers_are_left_to_others():
    replica = Lone()
    assert not replica.step(Read(0, 1))
    assert not replica.step(Transfer(0, 2))


# --- Total: no input that passed `check` makes `step` raise ---------------------------------------------------------

small = st.integers(0, 6)
positions = st.integers(1, 15)
refs = st.lists(st.sampled_from(BATCHES), unique=True, max_size=2).map(tuple)
proofs = st.builds(prepared_at, small, positions, refs)


@st.composite
def view_changes(draw: st.DrawFn, view: int | None = None):
    low = draw(st.sampled_from([0, 0, 4, 8]))
    found = {proof.position: proof for proof in draw(st.lists(proofs, max_size=3)) if proof.position > low}
    checkpoint = {"checkpoint": checkpoint_at(low, [0, 1, 2], 4)} if low else {}
    signer = draw(st.integers(0, 3))
    chosen = draw(st.integers(1, 6)) if view is None else view
    return signer, view_change(signer, chosen, *(found[key] for key in sorted(found)), **checkpoint)


@st.composite
def messages(draw: st.DrawFn):
    """A member and something that it may say."""
    sender, view = draw(st.integers(0, 3)), draw(small)
    digest = proposal_digest(draw(refs))
    kind = draw(st.integers(0, 9))
    if kind <= 1:
        return view % 4, signed(view % 4, PrePrepare(view, draw(positions), draw(refs)))
    if kind <= 4:
        vote = Prepare if draw(st.booleans()) else CommitVote
        return sender, signed(sender, vote(view, draw(positions), digest))
    if kind == 5:
        return draw(view_changes())
    if kind == 6:
        votes = dict(draw(view_changes(max(1, view))) for _ in range(5))
        return max(1, view) % 4, new_view(max(1, view), votes)
    if kind == 7:
        signer, vote = draw(view_changes())
        return sender, ViewChangeCopy(signer, vote)
    if kind == 8:
        votes = dict(draw(view_changes(max(1, view))) for _ in range(5))
        return sender, NewViewCopy(max(1, view) % 4, new_view(max(1, view), votes))
    copy = PrePrepareCopy(view % 4, signed(view % 4, PrePrepare(view, draw(positions), draw(refs))))
    other = [Suspect(view), FetchNewView(view), FetchProposal(view, draw(positions)), FetchViewChange(view, 1, digest)]
    return sender, draw(st.sampled_from([copy, *other]))


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
@given(st.lists(inputs, max_size=40))
def test_nothing_that_is_well_formed_makes_it_raise(things):
    replica = Lone(own=3)
    for thing in things:
        replica.now += 400
        match thing:
            case str():
                replica.step(TimerFired(replica.now, thing))
            case int():
                replica.step(Synced(replica.now, thing, (), None))
                replica.step(Stable(replica.now, checkpoint_at(thing, [0, 1, 2], 4)))
            case Synced():
                replica.step(thing)
            case (int() as sender, message) if not isinstance(message, int):
                if check(CONTEXT, sender, message) is None:
                    replica.step(Received(replica.now, sender, message))
            case _:
                replica.step(Available(replica.now, thing))
        replica.engine.status()
        state = replica.state
        assert all(state.low < position <= state.window_end for position in state.slots)
        assert len(state.held) <= len(BATCHES)
    replica.step(Sealed(replica.now, 1))
    assert not replica.state.armed
    rebuilt = build(replica.context, genesis_of(replica.context), state_checkpoint(replica), replica.records)
    assert (rebuilt.state.view, rebuilt.state.active) == (replica.state.view, replica.state.active)


def state_checkpoint(replica: Lone):
    """A checkpoint that the replica has executed: the newest that is not above what it has committed."""
    position = min(replica.state.low, replica.state.committed) // 4 * 4
    return checkpoint_at(position, [0, 1, 2], 4) if position else START


# --- Together -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [4, 5, 6, 7, 10])
def test_members_commit_what_they_are_given(members):
    group = group_of(members)
    for number in range(20):
        group.submit(f"b{number}", number % members)
    group.run(100)
    assert all(len(one.decided) == 20 for one in group.instances)
    assert all(not one.timers for one in group.instances)
    assert all(one.engine.status().waiting_for == "" for one in group.instances)
