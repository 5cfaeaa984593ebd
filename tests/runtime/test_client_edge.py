"""The client edge: every refusal, and answers on their way back."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from bftkit.core.ids import canonical
from bftkit.errors import MalformedMessage, Rejected, WireError
from bftkit.replica.client_messages import Busy, ReadReply, ReadRequest, Reply, SessionOpened, request_key
from bftkit.replica.execution import Answer
from bftkit.replica.inputs import Submission
from bftkit.replica.outputs import Refuse
from bftkit.runtime import client_edge
from bftkit.runtime.admin_messages import AdminAnswer, AdminAsk
from bftkit.runtime.client_edge import ClientEdge
from bftkit.wire.auth import SignatureVerifier
from bftkit.wire.codec import Codec
from bftkit.wire.framing import HEADER_BYTES, Frame, FrameType
from tests.replica.parts import CLIENT, KEYS, LIMITS, envelope, genesis_of, open_session, read_request
from tests.runtime.parts import Channel, frames_of

pytestmark = pytest.mark.anyio

SESSION = (1, 0)


class Rig:
    def __init__(self, check=None, owners=None) -> None:
        self.submitted: list[Submission] = []
        self.calls = 0
        self.owners = {SESSION: CLIENT.public_key} if owners is None else owners
        self.edge = ClientEdge(genesis_of(), SignatureVerifier(), self._submit, self.owners.get, check)
        self.channel = Channel(CLIENT.public_key)
        self.edge.connect(self.channel)

    async def _submit(self, submissions: tuple[Submission, ...]) -> None:
        self.calls += 1
        self.submitted += submissions

    async def take(self, *requests) -> list[Busy]:
        await self.edge.take(self.channel, [canonical(request) for request in requests])
        return self.channel.replies


async def test_good_requests_of_a_turn_are_submitted_together():
    rig = Rig()
    requests = [open_session(), envelope(SESSION, 1, [b"a", b"b"]), read_request(), envelope(SESSION, 3, [b"c"])]
    assert await rig.take(*requests) == []
    assert rig.calls == 1
    assert [submission.count for submission in rig.submitted] == [1, 2, 1, 1]
    assert [submission.data for submission in rig.submitted] == [canonical(request) for request in requests]
    assert [submission.key for submission in rig.submitted] == [request_key(request) for request in requests]
    assert len({submission.token for submission in rig.submitted}) == 4
    assert (rig.edge.counters.requests, rig.edge.counters.commands) == (4, 5)


def spoilt(**fields):
    return msgspec.structs.replace(envelope(SESSION, 1, [b"a"]), **fields)


LONG = b"x" * (LIMITS.max_command_bytes + 1)
REFUSED = {
    "opened with another's key": (open_session(KEYS[0]), "another key"),
    "forged opening": (msgspec.structs.replace(open_session(), nonce=b"y" * 16), "signature"),
    "forged envelope": (spoilt(signature=bytes(64)), "signature"),
    "changed commands": (spoilt(commands=msgspec.Raw(canonical([b"b"]))), "signature"),
    "changed acknowledgement": (spoilt(acknowledged=1), "signature"),
    "signed with another's key": (envelope(SESSION, 1, [b"a"], key=KEYS[0]), "signature"),
    "sequence zero": (envelope(SESSION, 0, [b"a"]), "range"),
    "no command": (envelope(SESSION, 1, []), "range"),
    "more than the window": (envelope(SESSION, 1, [b"a"], count=LIMITS.session_window + 1), "range"),
    "negative acknowledgement": (envelope(SESSION, 1, [b"a"], -1), "range"),
    "not a list": (spoilt(commands=msgspec.Raw(b"\x01")), "list"),
    "not bytes": (spoilt(commands=msgspec.Raw(b"\x91\x01")), "list"),
    "nested": (spoilt(commands=msgspec.Raw(b"\x91" * 200 + b"\x90")), "list"),
    "fewer than said": (envelope(SESSION, 1, [b"a"], count=2), "as many"),
    "more than said": (envelope(SESSION, 1, [b"a", b"b"], count=1), "as many"),
    "too long": (envelope(SESSION, 1, [b"a", LONG]), "longer"),
    "unknown session": (envelope((7, 7), 1, [b"a"]), "not known"),
    "read with another's key": (read_request(key=KEYS[0]), "another key"),
    "read with no name": (read_request(nonce=b""), "length"),
    "forged read": (msgspec.structs.replace(read_request(), nonce=b"y" * 16), "signature"),
    "another question": (msgspec.structs.replace(read_request(), request=b"x"), "signature"),
    "long question": (read_request(LONG), "longer"),
}


@pytest.mark.parametrize(("request_", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_be_used_is_refused_alone_and_told_why(request_, reason):
    rig = Rig()
    good = envelope(SESSION, 9, [b"good"])
    (busy,) = await rig.take(request_, good)
    assert isinstance(busy, Busy)
    assert reason in busy.reason
    assert (busy.session, busy.first) == (getattr(request_, "session", (0, 0)), getattr(request_, "first", 0))
    assert busy.nonce == (request_.nonce if isinstance(request_, ReadRequest) else b"")
    assert [submission.data for submission in rig.submitted] == [canonical(good)]
    assert (rig.edge.counters.refused, rig.edge.counters.last_refusal) == (1, busy.reason)


async def test_a_session_that_is_not_known_yet_may_be_tried_again():
    (busy,) = await Rig().take(envelope((7, 7), 1, [b"a"]))
    assert busy.retry_after_ms > 0


async def test_nobody_takes_the_place_of_another_clients_requests():
    rig = Rig(owners={SESSION: KEYS[0].public_key})
    (busy,) = await rig.take(envelope(SESSION, 1, [b"a"]))
    assert "another client" in busy.reason
    assert rig.submitted == []


def check(command: bytes) -> None:
    if command == b"no":
        raise Rejected("this is no command")
    if command == b"broken":
        raise ZeroDivisionError


@pytest.mark.parametrize(("command", "reason"), [(b"no", "this is no command"), (b"broken", "cannot be checked")])
async def test_the_state_machines_own_check_refuses(command, reason):
    rig = Rig(check)
    (busy,) = await rig.take(envelope(SESSION, 1, [b"yes", command]), envelope(SESSION, 3, [b"yes"]))
    assert reason in busy.reason
    assert len(rig.submitted) == 1


async def test_a_long_reason_is_cut():
    def refuse(command: bytes) -> None:
        raise Rejected("x" * 5000)

    (busy,) = await Rig(refuse).take(envelope(SESSION, 1, [b"a"]))
    assert len(busy.reason) == 200


async def test_a_closed_edge_takes_nothing():
    rig = Rig()
    rig.edge.closed = "the node is stopping"
    (busy,) = await rig.take(envelope(SESSION, 1, [b"a"]))
    assert busy.reason == "the node is stopping"
    assert busy.retry_after_ms > 0
    assert rig.submitted == []


@pytest.mark.parametrize("data", [b"", b"junk", b"\x90", b"\x92\x07\x01", canonical(open_session()) + b"\x00"])
async def test_what_is_no_request_ends_the_connection(data):
    with pytest.raises(MalformedMessage):
        await Rig().edge.take(Channel(CLIENT.public_key), [data])


async def test_a_refusal_of_the_replica_reaches_who_asked_once():
    rig = Rig()
    await rig.take(envelope(SESSION, 5, [b"a"]))
    token = rig.submitted[0].token
    for _ in range(2):
        rig.edge.on_refuse(Refuse(token, "overloaded", 250))
    rig.edge.on_refuse(Refuse(999, "overloaded", 250))
    assert rig.channel.replies == [Busy(SESSION, 5, "overloaded", 250)]


async def test_a_read_that_the_replica_does_not_take_is_refused_by_its_name():
    rig = Rig()
    await rig.take(read_request(nonce=b"n" * 16))
    rig.edge.on_refuse(Refuse(rig.submitted[0].token, "overloaded", 250))
    assert rig.channel.replies == [Busy((0, 0), 0, "overloaded", 250, b"n" * 16)]


async def test_tokens_are_bounded_and_the_oldest_go_first(monkeypatch):
    monkeypatch.setattr(client_edge, "MAX_TOKENS", 3)
    rig = Rig()
    await rig.take(*(envelope(SESSION, first, [b"a"]) for first in range(1, 6)))
    for submission in rig.submitted:
        rig.edge.on_refuse(Refuse(submission.token, "overloaded"))
    assert [busy.first for busy in rig.channel.replies] == [3, 4, 5]


def answer(public_key: bytes, first: int) -> Answer:
    return Answer(public_key, Reply(SESSION, first, 1, 2, (b"r",)))


async def test_answers_are_one_write_for_each_client_on_each_of_its_channels():
    rig = Rig()
    second, other = Channel(CLIENT.public_key), Channel(KEYS[0].public_key)
    rig.edge.connect(second)
    rig.edge.connect(other)
    assert rig.edge.clients == 2
    opened = Answer(KEYS[0].public_key, SessionOpened(bytes(16), (1, 1)))
    rig.edge.answer([answer(CLIENT.public_key, 1), opened, answer(CLIENT.public_key, 2), answer(KEYS[1].public_key, 9)])
    for channel in (rig.channel, second):
        assert len(channel.writes) == 1
        assert [reply.first for reply in channel.replies] == [1, 2]
        assert [frame.type for frame in frames_of(channel.writes[0])] == [FrameType.REPLY] * 2
    assert other.replies == [opened.reply]
    rig.edge.disconnect(second)
    rig.edge.answer([answer(CLIENT.public_key, 3)])
    assert (len(rig.channel.writes), len(second.writes)) == (2, 1)
    rig.edge.disconnect(rig.channel)
    rig.edge.disconnect(rig.channel)
    assert rig.edge.clients == 1
    rig.edge.answer([answer(CLIENT.public_key, 4)])
    assert len(rig.channel.writes) == 2


async def ask(question: AdminAsk, reply) -> None:
    await anyio.lowlevel.checkpoint()
    reply(AdminAnswer(question.id, True, question.verb.encode(), 7))


async def test_frames_are_requests_and_questions_and_nothing_else():
    rig = Rig()
    frames = [
        Frame(FrameType.REQUEST, canonical(envelope(SESSION, 1, [b"a"]))),
        Frame(FrameType.ADMIN, canonical(AdminAsk(3, "status"))),
        Frame(FrameType.REQUEST, canonical(envelope(SESSION, 2, [b"b"]))),
    ]
    await rig.edge.take_frames(rig.channel, frames, ask)
    assert rig.calls == 1
    assert len(rig.submitted) == 2
    ((frame,),) = rig.channel.writes
    assert frames_of([frame])[0].type == FrameType.ADMIN_REPLY
    assert Codec(AdminAnswer).decode(frame[HEADER_BYTES:]) == AdminAnswer(3, True, b"status", 7)
    for bad in (Frame(FrameType.VOTE, b""), Frame(FrameType.ADMIN, b"junk")):
        with pytest.raises(WireError):
            await rig.edge.take_frames(rig.channel, [bad], ask)


async def test_an_answer_that_no_frame_holds_stays_its_clients_problem():
    rig = Rig()
    small = Reply(SESSION, 2, 1, 8, (b"x",))
    rig.edge.answer([Answer(CLIENT.public_key, Reply(SESSION, 1, 1, 7, (bytes(1 << 20),)))])
    rig.edge.answer([Answer(CLIENT.public_key, small)])
    rig.edge.answer([Answer(CLIENT.public_key, ReadReply(b"n" * 16, 9, bytes(1 << 20)))])
    busy, reply, read = rig.channel.replies
    assert (read.nonce, read.retry_after_ms) == (b"n" * 16, 0)
    assert isinstance(busy, Busy)
    assert (busy.session, busy.first) == (SESSION, 1)
    assert reply == small
    assert rig.edge.counters.oversized == 2
