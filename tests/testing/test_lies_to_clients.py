"""What liars tell clients: about the request at hand, never the truth, and understood by the real client."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.ids import canonical
from bftkit.plugins import load_engine
from bftkit.replica.client_messages import (
    Busy,
    Envelope,
    OpenSession,
    ReadReply,
    ReadRequest,
    Refusal,
    Reply,
    SessionOpened,
)
from bftkit.runtime.client_edge import place_of
from bftkit.runtime.client_session import decode_reply
from bftkit.testing.lies_to_clients import lies_about
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world

SESSION, NONCE, KEY = (7, 1), b"n" * 16, b"k" * 32
LYING = Profile(clients=3, envelopes=12, think_ms=20, reads=0.5)


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (OpenSession(KEY, NONCE, b""), {SessionOpened, Busy}),
        (SessionOpened(NONCE, SESSION), {SessionOpened, Busy}),
        (ReadRequest(KEY, NONCE, b"q", b""), {ReadReply, Busy}),
        (ReadReply(NONCE, 9, b"a"), {ReadReply, Busy}),
        (Envelope(SESSION, 3, 2, 0, msgspec.Raw(b"\x90"), b""), {Reply, Refusal, Busy}),
        (Reply(SESSION, 3, 2, 9, (b"a", b"b")), {Reply, Refusal, Busy}),
        (Refusal(SESSION, 3, 2, "no"), {Reply, Refusal, Busy}),
    ],
)
def test_lies_are_about_what_was_asked_and_no_truth(message, kinds):
    lies = lies_about(message)
    assert {type(lie) for lie in lies} == kinds
    assert message not in lies
    place = place_of(message)
    for lie in lies:
        decode_reply(canonical(lie))
        if isinstance(lie, Busy):
            assert (lie.session, lie.first, lie.nonce) == (place.session, place.first, place.nonce)
        else:
            assert place_of(lie) == place


def test_there_is_nothing_to_say_about_a_refusal_to_take_a_request():
    assert lies_about(Busy(SESSION, 1, "no")) == ()


@pytest.mark.parametrize("engine", ["pbft", "hotstuff"])
def test_clients_believe_none_of_it(engine):
    world = make_world(3, load_engine(engine), 4, LYING, liars={3: lambda receiver, message: [(receiver, message)]})
    outcome = finish(world)
    assert outcome.ok, outcome.violations
    assert outcome.faults_hit["invented answers"] > 20
    assert outcome.acknowledged > 0
