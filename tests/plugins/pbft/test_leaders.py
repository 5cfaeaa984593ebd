"""The primary of a view is whom the epoch's leader schedule names, wherever the protocol asks for him."""

import msgspec

from bftkit.core.inputs import Available, Received
from bftkit.core.outputs import Broadcast, Send
from bftkit_pbft.check import check
from bftkit_pbft.engine import PbftEngine, build
from bftkit_pbft.messages import FetchNewView, NewView, NewViewCopy, PrePrepare, Suspect
from tests.plugins.pbft.lone import new_view, signed, view_change
from tests.plugins.pbft.parts import START, batch, context_of, genesis_of

A = batch("a")
VOTES = {index: view_change(index, 1) for index in (0, 1, 2)}


class Listed(msgspec.Struct, frozen=True):
    """Leaders of the first views, then the last one of them for ever."""

    leaders: tuple[int, ...]

    def leader(self, view: int) -> int:
        return self.leaders[min(view, len(self.leaders) - 1)]


CONTEXT = msgspec.structs.replace(context_of(0, 4), leaders=Listed((3, 3, 0)))


def engine_of(own: int) -> PbftEngine:
    context = msgspec.structs.replace(CONTEXT, own=own)
    engine = build(context, genesis_of(context), START, ())
    assert engine.start(0) == []
    return engine


def test_whom_the_schedule_names_proposes():
    for own in range(4):
        out = engine_of(own).step(Available(1, (A,)))
        proposals = [one for one in out if isinstance(one, Broadcast) and isinstance(one.message, PrePrepare)]
        assert len(proposals) == (own == 3)


def test_proposals_and_new_views_of_others_are_refused():
    for view, leader in ((0, 3), (1, 3), (2, 0), (9, 0)):
        for sender in range(4):
            problem = check(CONTEXT, sender, PrePrepare(view, 1, (A,)))
            assert (problem is None) == (sender == leader)
    begun = new_view(1, VOTES)
    assert check(CONTEXT, 3, begun) is None
    assert "not its primary" in str(check(CONTEXT, 1, begun))


def test_the_same_member_may_lead_two_views_in_a_row():
    engine = engine_of(3)
    out = []
    for sender in (0, 1):
        out += engine.step(Received(1, sender, signed(sender, view_change(sender, 1))))
    own = next(one.message for one in out if isinstance(one, Broadcast))
    out = engine.step(Received(1, 3, signed(3, own)))
    assert any(isinstance(one, Broadcast) and isinstance(one.message, NewView) for one in out)
    assert engine.status().leader == 3
    assert engine.status().view == 1


def test_a_new_view_is_handed_on_in_the_name_of_its_primary():
    engine = engine_of(2)
    for sender, vote in VOTES.items():
        engine.step(Received(1, sender, vote))
    begun = new_view(1, VOTES)
    engine.step(Received(1, 3, signed(3, begun)))
    assert engine.status().view == 1
    assert engine.status().mode == "normal"
    out = engine.step(Received(10_000, 1, FetchNewView(1)))
    copies = [one.message for one in out if isinstance(one, Send) and isinstance(one.message, NewViewCopy)]
    assert [copy.signer for copy in copies] == [3]


def test_a_member_of_a_later_view_is_asked_for_it_though_its_primary_led_before():
    engine = engine_of(2)
    out = engine.step(Received(10_000, 1, Suspect(1)))
    assert [one.message for one in out if isinstance(one, Send)] == [FetchNewView(1)]
