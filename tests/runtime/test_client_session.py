"""Client sessions: every command has exactly one outcome, whatever happens to messages."""

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.epoch import Limits
from bftkit.core.ids import canonical
from bftkit.core.quorum import FaultModel
from bftkit.errors import MalformedMessage
from bftkit.replica.client_messages import UNKNOWN_SESSION, Busy, Refusal, Reply, SessionOpened
from bftkit.runtime.client_session import (
    Divided,
    Executed,
    NotTaken,
    Refused,
    Unanswered,
    decode_reply,
)
from bftkit.runtime.session_policy import SessionPolicy
from tests.runtime.client_world import BAD, World, envelope_of, outcome_of

CRASH = FaultModel.CRASH


def opened(**options):
    world = World(**options)
    world.connect()
    world.settle()
    assert world.session.is_open
    world.sent.clear()
    return world


def reply_to(world, replica, message):
    payload = canonical(message)
    world.send(world.session.on_reply(replica, decode_reply(payload), payload, world.now))


# -- opening ------------------------------------------------------------------------------------------------------


def test_the_session_opens_with_one_contact_and_commands_wait_for_it():
    world = World()
    run, offset = world.session.submit_one(b"early")
    world.connect()
    assert [send.replicas for send in world.sent] == [(0,)]
    assert run.data == b""
    world.settle()
    assert world.session.id == (1, 0)
    assert run.outcome == Executed(2, (b"0",))
    assert offset == 0


def test_one_liar_cannot_invent_a_session():
    world = World()
    world.connect()
    for _ in range(5):
        reply_to(world, 3, SessionOpened(world.session.nonce, (9, 9)))
    assert not world.session.is_open


def test_the_opening_goes_to_all_if_the_contact_is_silent():
    world = World()
    world.silent = {0}
    world.connect()
    world.settle()
    assert not world.session.is_open
    world.tick(300)
    assert world.sent[-1].replicas == (0, 1, 2, 3)
    world.settle()
    assert world.session.is_open


def test_a_refused_opening_says_why():
    world = World()
    world.busy = dict.fromkeys(range(4), ("the signature is not valid", 0))
    world.connect()
    world.settle()
    assert world.session.opening_refusal == "the signature is not valid"


# -- runs and envelopes -------------------------------------------------------------------------------------------


def test_commands_of_one_turn_share_an_envelope():
    world = opened()
    places = [world.session.submit_one(b"%d" % number) for number in range(5)]
    world.flush()
    assert len(world.sent) == 1
    assert world.sent[0].replicas == (0,)
    envelope = envelope_of(world.sent[0].data)
    assert (envelope.first, envelope.count, envelope.acknowledged) == (1, 5, 0)
    world.settle()
    assert [run.outcome.results[offset] for run, offset in places] == [b"0", b"1", b"2", b"3", b"4"]
    assert {run.command_id(offset) for run, offset in places} == {((1, 0), number) for number in range(1, 6)}


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 7), st.integers(10, 100))
def test_runs_keep_order_and_bounds(sizes, run_commands, run_bytes):
    world = opened(policy=SessionPolicy(run_commands=run_commands, run_bytes=run_bytes))
    commands = [b"x" * size for size in sizes]
    places = world.session.submit(commands)
    flat = [command for run, offset, number in places for command in run.commands[offset : offset + number]]
    assert flat == commands
    sequence = 1
    for run, offset, _ in places:
        assert (run.first, offset) == (sequence, 0)
        assert len(run.commands) <= run_commands
        assert len(run.commands) == 1 or sum(map(len, run.commands)) <= run_bytes
        sequence += len(run.commands)
    assert world.session.queued == len(commands)


def test_the_window_holds_back_what_it_must():
    world = opened(policy=SessionPolicy(run_commands=2, window=4))
    places = world.session.submit([b"%d" % number for number in range(8)])
    world.flush()
    assert world.session.in_flight == 2
    assert world.session.queued == 4
    world.settle()
    assert all(isinstance(run.outcome, Executed) for run, _, _ in places)
    assert world.session.acknowledged == 8
    assert world.diaries[0].entries == [b"%d" % number for number in range(8)]


def test_acknowledged_waits_for_the_slowest():
    world = opened(policy=SessionPolicy(run_commands=1))
    world.session.submit([b"a", b"b", b"c"])
    world.flush()
    for replica in (0, 1):
        reply_to(world, replica, Reply((1, 0), 2, 1, 7, (b"x",)))
        reply_to(world, replica, Reply((1, 0), 3, 1, 8, (b"x",)))
    assert world.session.acknowledged == 0
    for replica in (0, 1):
        reply_to(world, replica, Reply((1, 0), 1, 1, 9, (b"x",)))
    assert world.session.acknowledged == 3
    run, _ = world.session.submit_one(b"d")
    world.flush()
    assert envelope_of(run.data).acknowledged == 3


def test_room_is_bounded():
    world = opened(policy=SessionPolicy(queued_commands=10))
    assert world.session.has_room(1000)
    world.session.submit([b"x"] * 8)
    assert world.session.has_room(2)
    assert not world.session.has_room(3)


# -- answers ------------------------------------------------------------------------------------------------------


def test_a_result_needs_equal_answers_of_enough_replicas():
    world = opened()
    run, _ = world.session.submit_one(b"x")
    world.flush()
    reply_to(world, 0, Reply((1, 0), 1, 1, 7, (b"yes",)))
    reply_to(world, 0, Reply((1, 0), 1, 1, 7, (b"yes",)))
    reply_to(world, 1, Reply((1, 0), 1, 1, 8, (b"yes",)))
    reply_to(world, 2, Reply((1, 0), 1, 1, 7, (b"no",)))
    assert run.outcome is None
    reply_to(world, 3, Reply((1, 0), 1, 1, 7, (b"yes",)))
    assert run.outcome == Executed(7, (b"yes",))
    assert world.session.take_finished() == [run]
    assert world.session.take_finished() == []


def test_one_answer_is_enough_where_nobody_lies():
    world = opened(members=3, fault_model=CRASH)
    run, _ = world.session.submit_one(b"x")
    world.flush()
    reply_to(world, 2, Reply((1, 0), 1, 1, 7, (b"yes",)))
    assert run.outcome == Executed(7, (b"yes",))


def test_answers_with_another_count_are_not_taken():
    world = opened()
    run, _ = world.session.submit_one(b"x")
    world.flush()
    for replica in range(4):
        reply_to(world, replica, Reply((1, 0), 1, 2, 7, (b"yes", b"yes")))
        reply_to(world, replica, Refusal((1, 0), 1, 2, "no"))
    assert run.outcome is None
    for replica in range(4):
        reply_to(world, replica, Reply((1, 0), 1, 1, 7, (b"yes", b"yes")))
    assert run.outcome == Unanswered("the replicas' answer cannot be read")


def test_a_refusal_by_enough_is_definite():
    world = opened()
    run, _ = world.session.submit_one(b"x")
    world.flush()
    reply_to(world, 0, Refusal((1, 0), 1, 1, "too long"))
    assert run.outcome is None
    reply_to(world, 1, Refusal((1, 0), 1, 1, "too long"))
    assert run.outcome == Refused("too long")


def test_executed_without_a_result_is_not_a_refusal():
    world = opened()
    run, _ = world.session.submit_one(b"x")
    world.flush()
    for replica in (0, 1):
        reply_to(world, replica, Refusal((1, 0), 1, 1, "the results are no longer kept", True))
    assert isinstance(run.outcome, Unanswered)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_reply_or_malformed(data):
    try:
        decode_reply(data)
    except MalformedMessage:
        return
    assert msgspec.msgpack.decode(data)[0] in {0, 1, 2, 3}


# -- busy replicas ------------------------------------------------------------------------------------------------


def test_a_busy_contact_is_passed_by():
    world = opened()
    world.busy[0] = ("overloaded", 100)
    run, _ = world.session.submit_one(b"x")
    world.flush()
    world.settle()
    assert [send.replicas for send in world.sent] == [(0,), (1,)]
    assert isinstance(run.outcome, Executed)


def test_where_nobody_lies_a_refusal_by_all_is_an_end():
    world = opened(members=3, fault_model=CRASH)
    world.busy = dict.fromkeys(range(3), ("overloaded", 70))
    run, _ = world.session.submit_one(b"x")
    world.flush()
    world.settle()
    assert run.outcome == NotTaken("overloaded", 70)
    assert world.session.congested_until == world.now + 70


def test_what_a_replica_had_before_it_crashed_may_still_be_ordered():
    """It has passed the request on, comes back without memory of it, and refuses it like the others: that is no end."""
    world = opened(members=3, fault_model=CRASH)
    run, _ = world.session.submit_one(b"x")
    world.flush()
    world.to_replicas.clear()  # replica 0 has taken it
    world.sent.clear()
    world.busy = dict.fromkeys(range(3), ("overloaded", 70))
    world.send(world.session.on_disconnected(0, world.now))
    world.settle()
    world.connect(0)
    world.tick(70)
    world.settle()
    assert {replica for send in world.sent for replica in send.replicas} == {0, 1, 2}
    assert run.outcome is None
    reply_to(world, 1, Reply((1, 0), 1, 1, 7, (b"done",)))
    assert run.outcome == Executed(7, (b"done",))


def test_where_somebody_may_lie_a_refusal_by_all_is_tried_again():
    world = opened()
    world.busy = dict.fromkeys(range(4), ("overloaded", 70))
    run, _ = world.session.submit_one(b"x")
    world.flush()
    world.settle()
    assert run.outcome is None
    assert world.session.congested_until == world.now + 70
    signed = run.data
    world.busy = dict.fromkeys(range(4), None)
    world.tick(70)
    assert world.sent[-1].data == signed
    world.settle()
    assert isinstance(run.outcome, Executed)
    assert world.diaries[2].entries == [b"x"]


def test_a_refused_command_does_not_take_others_with_it():
    world = opened()
    places = [world.session.submit_one(command) for command in (b"good", BAD, b"better")]
    world.flush()
    world.settle()
    assert isinstance(places[0][0].outcome, Divided)
    outcomes = [outcome_of(*place)[0] for place in places]
    assert [type(outcome) for outcome in outcomes] == [Executed, Refused, Executed]
    assert outcomes[1].reason == "a bad command"
    assert world.diaries[0].entries == [b"good", b"better"]
    assert world.session.acknowledged == 3
    assert world.session.in_flight == 0


def test_one_replica_cannot_have_a_command_refused():
    world = opened()
    run, _ = world.session.submit_one(b"x")
    world.flush()
    for _ in range(3):
        reply_to(world, 0, Busy((1, 0), 1, "a bad command"))
    assert run.outcome is None


# -- retries, crashes, expiry -------------------------------------------------------------------------------------


def test_a_request_without_an_answer_goes_to_all_as_it_is():
    world = opened()
    world.silent = {0}
    run, _ = world.session.submit_one(b"x")
    world.flush()
    world.settle()
    world.tick(1999)
    assert len(world.sent) == 1
    world.tick(1)
    assert world.sent[-1].replicas == (0, 1, 2, 3)
    assert world.sent[-1].data == world.sent[0].data
    world.settle()
    assert isinstance(run.outcome, Executed)
    assert world.diaries[1].entries == [b"x"]


def test_retries_become_rarer():
    world = opened()
    world.silent = {0, 1, 2, 3}
    world.session.submit_one(b"x")
    world.flush()
    times = []
    for _ in range(1200):
        before = len(world.sent)
        world.tick(50)
        if len(world.sent) > before:
            times.append(world.now)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == [4000, 8000, 10_000, 10_000, 10_000, 10_000]


def test_what_a_crashed_contact_had_goes_to_the_next_at_once():
    world = opened()
    world.session.submit_one(b"x")
    world.flush()
    world.send(world.session.on_disconnected(0, world.now))
    assert [send.replicas for send in world.sent] == [(0,), (1,)]
    assert world.sent[0].data == world.sent[1].data


def test_what_reached_nobody_goes_to_the_first_that_comes_back():
    world = opened()
    for replica in range(4):
        world.send(world.session.on_disconnected(replica, world.now))
    run, _ = world.session.submit_one(b"x")
    world.flush()
    assert world.sent == []
    world.connect(2)
    assert [send.replicas for send in world.sent] == [(2,)]
    world.settle()
    assert isinstance(run.outcome, Executed)


def test_a_session_that_nobody_knows_is_lost_and_the_unsigned_move_on():
    world = opened(policy=SessionPolicy(run_commands=1, window=1))
    sent, _ = world.session.submit_one(b"x")
    unsigned, _ = world.session.submit_one(b"y")
    world.flush()
    for replica in (0, 1):
        reply_to(world, replica, Busy((1, 0), 1, UNKNOWN_SESSION, 100))
    assert not world.session.lost
    reply_to(world, 2, Busy((1, 0), 1, UNKNOWN_SESSION, 100))
    assert world.session.lost
    assert isinstance(sent.outcome, Unanswered)
    assert unsigned.outcome is None
    other = World(seed=1)
    other.session.adopt(world.session.take_unsigned())
    other.connect()
    other.settle()
    assert isinstance(unsigned.outcome, Executed)
    assert unsigned.command_id(0) == (other.session.id, 1)


def test_what_has_no_outcome_is_listed():
    world = opened(policy=SessionPolicy(run_commands=1, window=1))
    first, _ = world.session.submit_one(b"x")
    second, _ = world.session.submit_one(b"y")
    world.flush()
    assert world.session.waiting() == [first, second]
    world.settle()
    assert world.session.waiting() == []


# -- everything at once -------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    turns=st.lists(st.integers(0, 9), min_size=1, max_size=120),
    liars=st.sampled_from([(), (3,), (0,)]),
    window=st.sampled_from([6, 64]),
)
def test_every_command_is_executed_once_and_answered_truly(seed, turns, liars, window):
    world = World(seed, policy=SessionPolicy(run_commands=3, window=window), liars=liars, limits=Limits())
    world.connect()
    places = []
    for number, turn in enumerate(turns):
        if turn < 4:
            places += [(*world.session.submit_one(b"%d-%d" % (number, extra)),) for extra in range(turn)]
        elif turn < 6:
            world.flush()
        else:
            world.scramble()
    world.heal()
    world.settle()
    commands = [run.commands[offset] for run, offset in places]
    assert len(set(commands)) == len(commands)
    for diary in world.diaries:
        assert sorted(diary.entries) == sorted(commands)
    for (run, offset), command in zip(places, commands, strict=True):
        outcome, place = outcome_of(run, offset)
        assert isinstance(outcome, Executed)
        assert world.diaries[0].entries[int(outcome.results[place])] == command
    assert world.session.acknowledged == len(commands)
    assert world.session.in_flight == world.session.queued == 0


def test_a_session_that_is_to_open_later_asks_one_replica_then_and_all_in_the_end():
    world = World(opens_at=1_500)
    world.connect()
    world.tick(499)
    assert world.sent == []
    world.tick(1)
    assert [transmit.replicas for transmit in world.sent] == [(0,)]
    world.tick(SessionPolicy().open_retry_ms)
    assert [transmit.replicas for transmit in world.sent][1:] == [(0, 1, 2, 3)]


def test_a_session_whose_time_has_come_asks_whoever_is_connected_first():
    world = World(opens_at=1_500)
    world.tick(600)
    assert world.sent == []
    world.connect(2)
    assert [transmit.replicas for transmit in world.sent] == [(2,)]
