"""Simulated clients: what they send, whom they believe, and when they ask again."""

from __future__ import annotations

from collections import Counter

import pytest

from bftkit.plugins import load_engine
from bftkit.replica.client_messages import (
    UNKNOWN_SESSION,
    Busy,
    Envelope,
    OpenSession,
    Refusal,
    Reply,
    SessionOpened,
    decode_commands,
    decode_request,
    request_statement,
)
from bftkit.runtime.client_edge import LAGGING_RETRY_MS
from bftkit.testing.client import MOST_COMMANDS, MOST_OPEN, POLICY, SimulatedClient
from bftkit.testing.mutant_catalogue.schedules import CROWDED
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world, seeded_world

PBFT = load_engine("pbft")
SESSION = (7, 1)
OPENED_BY = (0, 3)
"""Two members, which are enough of four: one of them is honest."""


class Watched:
    """A client in a world where nobody answers but the test."""

    def __init__(self, seed: int = 1, envelopes: int = 12, **profile: object) -> None:
        self.world = make_world(seed, PBFT, 4, Profile(clients=0, think_ms=5, **profile))
        self.sent: list[tuple[int, OpenSession | Envelope]] = []
        self.believed: list[tuple[object, tuple[tuple[bytes, ...], ...]]] = []
        self.world.is_up = lambda member: True
        self.world.request = lambda member, data, listener=None: self.sent.append((member, decode_request(data)))
        self.world.checkers.acknowledged = self.believe
        self.client = SimulatedClient(self.world, 0, "client", envelopes)
        self.client.start()

    def believe(self, reply: object, versions: tuple[tuple[bytes, ...], ...]) -> None:
        if not isinstance(reply, SessionOpened):
            self.believed.append((reply, versions))

    def run(self, ms: int = 100) -> None:
        self.world.events.run(self.world.events.now_us + 1_000 * ms)

    def open(self) -> Watched:
        """Let the session be opened."""
        nonce = self.nonce
        self.sent.clear()
        for member in OPENED_BY:
            self.client.receive(member, SessionOpened(nonce, SESSION))
        return self

    @property
    def nonce(self) -> bytes:
        (nonce,) = {request.nonce for _, request in self.sent if isinstance(request, OpenSession)}
        return nonce

    def envelopes(self) -> list[Envelope]:
        """List the different runs that were sent, in order."""
        found = {request.first: request for _, request in self.sent if isinstance(request, Envelope)}
        return [found[first] for first in sorted(found)]

    def reply(self, envelope: Envelope, height: int = 5) -> Reply:
        return Reply(SESSION, envelope.first, envelope.count, height, (b"r",) * envelope.count)

    def answer(self, envelope: Envelope, *members: int, height: int = 5) -> None:
        for member in members:
            self.client.receive(member, self.reply(envelope, height))


def test_it_asks_one_member_for_a_session_and_signs():
    watched = Watched()
    ((_, request),) = watched.sent
    assert isinstance(request, OpenSession)
    assert request.public_key == watched.client.public_key
    statement = request_statement(watched.world.client_domain, request)
    assert watched.world.signatures.verify(request.public_key, statement, request.signature)


def test_a_session_is_open_when_enough_members_say_the_same():
    watched = Watched()
    nonce = watched.nonce
    watched.sent.clear()
    watched.client.receive(0, SessionOpened(nonce, SESSION))
    watched.client.receive(0, SessionOpened(nonce, SESSION))
    watched.client.receive(1, SessionOpened(nonce, (9, 9)))
    watched.client.receive(2, SessionOpened(b"another's", SESSION))
    watched.run()
    assert watched.envelopes() == []
    watched.client.receive(3, SessionOpened(nonce, SESSION))
    watched.run()
    assert {envelope.session for envelope in watched.envelopes()} == {SESSION}


def test_a_session_that_a_quorum_does_not_know_is_lost_and_another_one_is_asked_for():
    watched = Watched(envelopes=4)
    before = watched.nonce
    watched.open().run()
    given_up = watched.envelopes()
    assert given_up
    stranger = Busy(SESSION, 1, UNKNOWN_SESSION, LAGGING_RETRY_MS)
    for member, busy in ((0, stranger), (0, stranger), (1, Busy((9, 9), 1, UNKNOWN_SESSION)), (1, stranger)):
        watched.client.receive(member, busy)
    watched.client.receive(2, Busy(SESSION, 1, "overloaded"))
    assert watched.world.counters["sessions lost"] == 0, "two of four may lag or lie"
    watched.sent.clear()
    watched.client.receive(2, stranger)
    assert watched.world.counters["sessions lost"] == 1
    assert watched.sent == [], "others want a session too"
    watched.run(POLICY.longest_retry_ms)
    assert watched.nonce != before, "a new nonce asks for another session"
    assert not watched.client.done
    watched.answer(given_up[0], 0, 1, 2, 3)
    assert watched.believed == [], "what was given up has no outcome"
    nonce, other = watched.nonce, (9, 0)
    watched.sent.clear()
    for member in OPENED_BY:
        watched.client.receive(member, SessionOpened(nonce, other))
    for _ in range(20):
        watched.run()
        for envelope in watched.envelopes():
            for member in OPENED_BY:
                watched.client.receive(member, Reply(other, envelope.first, envelope.count, 9, (b"",) * envelope.count))
    assert {envelope.session for envelope in watched.envelopes()} == {other}
    assert watched.client.done
    assert len(watched.believed) == 4, "it asked for as much again"


def test_who_is_not_answered_asks_everybody():
    watched = Watched()
    watched.run(POLICY.open_retry_ms + 100)
    assert {member for member, _ in watched.sent} == {0, 1, 2, 3}
    assert len({request for _, request in watched.sent}) == 1, "it is the same request again"
    per_member = Counter(member for member, _ in watched.sent)
    watched.run(2 * POLICY.longest_retry_ms)
    assert all(count > per_member[member] for member, count in Counter(m for m, _ in watched.sent).items())
    watched.open()
    watched.run(5_000)
    assert watched.sent
    assert not any(isinstance(request, OpenSession) for _, request in watched.sent), "it has its session"


def test_who_loses_its_member_asks_another_at_once():
    watched = Watched(envelopes=1).open()
    watched.run(20)
    ((contact, envelope),) = watched.sent
    watched.client.channel(contact, up=False)
    (other, again) = watched.sent[1]
    assert other != contact
    assert again == envelope
    for member in {0, 1, 2, 3} - {contact}:
        watched.client.channel(member, up=False)
    before = len(watched.sent)
    watched.run(5_000)
    assert len(watched.sent) == before, "there is nobody to ask"
    watched.client.channel(contact, up=True)
    assert watched.sent[before:] == [(contact, envelope)]


def test_runs_follow_each_other_are_signed_and_few_are_open_at_once():
    watched = Watched().open()
    watched.run(200)
    envelopes = watched.envelopes()
    assert len(envelopes) == MOST_OPEN
    following = 1
    commands: list[bytes] = []
    for envelope in envelopes:
        assert (envelope.first, envelope.acknowledged) == (following, 0)
        assert 1 <= envelope.count <= MOST_COMMANDS
        following += envelope.count
        mine = decode_commands(envelope.commands)
        assert len(mine) == envelope.count
        commands += mine
        statement = request_statement(watched.world.client_domain, envelope)
        assert watched.world.signatures.verify(watched.client.public_key, statement, envelope.signature)
    assert len(set(commands)) == len(commands)
    watched.answer(envelopes[0], 0, 1)
    watched.run(50)
    assert len(watched.envelopes()) == MOST_OPEN + 1


def test_an_answer_counts_when_enough_members_give_the_same_one():
    watched = Watched().open()
    watched.run(20)
    envelope = watched.envelopes()[0]
    watched.answer(envelope, 1, 1, 1)
    watched.answer(envelope, 2, height=6)
    watched.client.receive(3, Refusal(SESSION, envelope.first, envelope.count, "no"))
    watched.client.receive(0, Busy(SESSION, envelope.first, "no room"))
    watched.client.receive(2, Busy(SESSION, envelope.first, "no room", 100))
    watched.client.receive(0, Reply((8, 8), envelope.first, envelope.count, 5, ()))
    assert watched.believed == []
    watched.answer(envelope, 2, height=5)
    (reply, versions) = watched.believed[0]
    assert reply == watched.reply(envelope)
    assert versions == (tuple(decode_commands(envelope.commands)),)
    assert watched.client.height == 5
    assert watched.client.acknowledged_commands == envelope.count
    watched.answer(envelope, 0, 3)
    assert len(watched.believed) == 1, "what is answered stays answered"


def test_a_refusal_by_enough_members_is_an_answer_too():
    watched = Watched().open()
    watched.run(20)
    envelope = watched.envelopes()[0]
    for member in (0, 2):
        watched.client.receive(member, Refusal(SESSION, envelope.first, envelope.count, "gone"))
    assert [type(reply) for reply, _ in watched.believed] == [Refusal]
    assert watched.client.height == 0


def test_a_run_that_enough_members_refuse_for_good_is_divided_and_each_part_has_its_end():
    watched = Watched(envelopes=1).open()
    watched.run(20)
    (envelope,) = watched.envelopes()
    assert envelope.count > 1
    commands = decode_commands(envelope.commands)
    watched.sent.clear()
    for member in (0, 2):
        watched.client.receive(member, Busy(SESSION, envelope.first, "one of them is bad"))
    parts = watched.envelopes()
    assert [part.first for part in parts] == list(range(envelope.first, envelope.first + envelope.count))
    for member in (0, 2):
        watched.client.receive(member, Busy(SESSION, envelope.first, "one of them is bad"))
    (reply, versions) = watched.believed.pop()
    assert (reply, versions) == (Refusal(SESSION, envelope.first, 1, "one of them is bad"), ((commands[0],),))
    for part in parts[1:]:
        watched.answer(part, 1, 3)
    assert [versions for _, versions in watched.believed] == [((command,),) for command in commands[1:]]
    assert watched.client.done


def test_only_what_is_answered_without_a_gap_is_acknowledged():
    watched = Watched().open()
    watched.run(200)
    first, second, third = watched.envelopes()
    watched.answer(second, 0, 1)
    watched.run(50)
    (fourth,) = watched.envelopes()[3:]
    assert fourth.acknowledged == 0, "the first run is open"
    watched.answer(first, 0, 1)
    watched.run(50)
    (fifth,) = watched.envelopes()[4:]
    assert fifth.acknowledged == third.first - 1


def test_who_has_left_asks_for_nothing_and_waits_for_nothing():
    watched = Watched().open()
    watched.run()
    assert not watched.client.done
    watched.client.leave()
    assert watched.client.done
    watched.sent.clear()
    watched.run(5_000)
    assert not watched.sent


def test_more_clients_than_sessions_leave_when_everything_heals():
    world = make_world(1, PBFT, 4, Profile(clients=4, max_sessions=3))
    world.start()
    world.events.run(1_000_000)
    world.heal()
    assert [client.done for client in world.clients[2:]] == [True, True]
    assert finish(make_world(1, PBFT, 4, Profile(clients=4, max_sessions=2))).ok


def test_it_is_done_when_everything_was_sent_and_answered():
    watched = Watched(envelopes=2)
    assert not watched.client.done
    watched.open()
    watched.run(200)
    envelopes = watched.envelopes()
    assert len(envelopes) == 2
    watched.answer(envelopes[0], 0, 1)
    assert not watched.client.done
    watched.answer(envelopes[1], 2, 3)
    assert watched.client.done
    watched.sent.clear()
    watched.run(5_000)
    assert watched.sent == []


def test_some_requests_go_to_several_members_at_once():
    eager, calm = Watched(repeat=1.0, envelopes=30), Watched(envelopes=30)
    for watched in (eager, calm):
        watched.open()
        watched.run(POLICY.retry_after_ms // 2)
    assert len(calm.sent) == len(calm.envelopes()) == MOST_OPEN
    assert len(eager.sent) > MOST_OPEN


@pytest.mark.parametrize("seed", range(5))
def test_a_two_faced_client_has_two_runs_that_overlap_for_the_same_sequences(seed):
    watched = Watched(seed, two_faced=1.0).open()
    watched.run(20_000)
    runs: dict[int, dict[bytes, Envelope]] = {}
    for _, request in watched.sent:
        assert isinstance(request, Envelope)
        statement = request_statement(watched.world.client_domain, request)
        assert watched.world.signatures.verify(watched.client.public_key, statement, request.signature)
        runs.setdefault(request.first, {})[request.signature] = request
    assert len(runs) == MOST_OPEN == watched.world.hits["two_faced"]
    for versions in runs.values():
        one, other = sorted(versions.values(), key=lambda envelope: envelope.count)
        assert not set(decode_commands(one.commands)) & set(decode_commands(other.commands))
        assert one.count <= other.count


def test_whoever_is_asked_first_is_drawn():
    assert {Watched(seed).sent[0][0] for seed in range(30)} == {0, 1, 2, 3}


def test_one_seed_is_one_client():
    one, other = Watched(3, repeat=0.5).open(), Watched(3, repeat=0.5).open()
    for watched in (one, other):
        watched.run(3_000)
    assert one.sent == other.sent


def test_more_clients_than_sessions_are_all_served_in_the_end():
    for seed in range(3):
        world = seeded_world(seed, profile=CROWDED)
        world.start()
        world.events.run(30_000_000)
        assert all(client.done for client in world.clients)
        assert world.counters["sessions lost"] > 10
        assert sum(client.acknowledged_commands for client in world.clients) > 100
