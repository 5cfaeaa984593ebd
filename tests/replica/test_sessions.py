"""Each sequence of a session executes at most once."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.epoch import Limits
from bftkit.replica.client_messages import Refusal, Reply
from bftkit.replica.sessions import Session, SessionTable

LIMITS = Limits(max_sessions=3, session_window=8, session_reply_bytes=64)


def table(**limits) -> SessionTable:
    return SessionTable(msgspec.structs.replace(LIMITS, **limits))


def run(
    sessions: SessionTable,
    session: Session,
    first: int,
    results: tuple[bytes, ...],
    acknowledged: int = 0,
    height: int = 2,
) -> Reply:
    assert sessions.admit(session, first, len(results), acknowledged) is None
    sessions.begin(session, first, len(results), acknowledged, height)
    return sessions.finish(session, first, height, results)


def test_the_id_of_a_session_is_its_place_in_the_log():
    sessions = table()
    assert sessions.open(b"k", b"n", 7, 3).id == (7, 3)
    assert sessions.get((7, 3)) is not None
    assert sessions.get((7, 4)) is None


def test_the_same_key_and_nonce_open_the_same_session():
    sessions = table()
    first = sessions.open(b"k", b"n", 1, 0)
    assert sessions.open(b"k", b"n", 5, 2) is first
    assert sessions.open(b"k", b"m", 5, 2) is not first
    assert len(sessions) == 2


def test_a_repeated_envelope_gets_the_same_reply():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    reply = run(sessions, session, 1, (b"a", b"b"))
    assert sessions.admit(session, 1, 2, 0) == reply
    assert reply == Reply((1, 0), 1, 2, 2, (b"a", b"b"))


@pytest.mark.parametrize(("first", "count"), [(0, 1), (-1, 1), (1, 0), (1, -1), (1, 9)])
def test_sequences_out_of_range_are_refused(first, count):
    sessions = table()
    refusal = sessions.admit(sessions.open(b"k", b"n", 1, 0), first, count, 0)
    assert isinstance(refusal, Refusal)
    assert not refusal.executed


def test_part_of_what_was_executed_is_refused():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    run(sessions, session, 3, (b"a", b"b"))
    for first, count in [(3, 1), (4, 1), (2, 2), (4, 2), (2, 4), (3, 3)]:
        assert isinstance(sessions.admit(session, first, count, 0), Refusal), (first, count)
    for first, count in [(1, 2), (5, 1), (2, 1)]:
        assert sessions.admit(session, first, count, 0) is None, (first, count)


def test_what_was_refused_for_its_window_is_refused_for_ever():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    refusal = sessions.admit(session, 7, 4, 0)
    assert isinstance(refusal, Refusal)
    assert not refusal.executed
    run(sessions, session, 1, (b"a",))
    run(sessions, session, 2, (b"b",), acknowledged=1)
    run(sessions, session, 3, (b"c",), acknowledged=2)
    assert session.low == 2, "the window reaches to the tenth sequence by now"
    assert sessions.admit(session, 7, 4, 0) == refusal
    assert sessions.admit(session, 7, 4, 2) is None, "signed anew, with what was acknowledged meanwhile, it fits"


def test_the_window_begins_above_what_was_acknowledged():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    assert sessions.admit(session, 8, 1, 0) is None
    assert isinstance(sessions.admit(session, 9, 1, 0), Refusal)
    assert isinstance(sessions.admit(session, 8, 2, 0), Refusal)
    assert sessions.admit(session, 9, 1, 1) is None
    run(sessions, session, 9, (b"a",), acknowledged=4)
    assert session.low == 4
    assert sessions.admit(session, 12, 1, 4) is None
    assert isinstance(sessions.admit(session, 13, 1, 4), Refusal)
    assert isinstance(sessions.admit(session, 12, 1, 3), Refusal), "each envelope is judged by its own acknowledgement"


def test_what_was_acknowledged_is_forgotten_and_never_executed_again():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    run(sessions, session, 1, (b"a", b"b"))
    run(sessions, session, 3, (b"c",), acknowledged=2)
    assert session.kept_bytes == 9
    for first, count in [(1, 2), (2, 1), (2, 2)]:
        refusal = sessions.admit(session, first, count, 0)
        assert isinstance(refusal, Refusal)
        assert refusal.executed


def test_an_acknowledgement_reaches_no_further_than_the_commands_that_carry_it():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    run(sessions, session, 1, (b"a",), acknowledged=500)
    assert session.low == 0
    assert isinstance(sessions.admit(session, 1, 1, 0), Reply)


def test_a_leap_of_the_acknowledgement_costs_no_memory():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    far = 2**62
    run(sessions, session, far, (b"a",), acknowledged=far - 1)
    assert session.low == far - 1
    assert session.executed == 1
    assert isinstance(sessions.admit(session, far, 1, 0), Reply)
    assert sessions.dump()


def test_results_that_were_acknowledged_before_they_were_there_are_not_kept():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    sessions.begin(session, 1, 1, 0, 2)
    sessions.begin(session, 2, 1, 1, 2)
    sessions.finish(session, 1, 2, (b"a",))
    sessions.finish(session, 2, 2, (b"b",))
    assert list(session.kept) == [2]
    assert session.kept_bytes == 9


def test_results_beyond_the_budget_are_let_go_lowest_first_and_stay_known():
    sessions = table()
    session = sessions.open(b"k", b"n", 1, 0)
    for first in (2, 1, 3, 4):
        run(sessions, session, first, (b"x" * 12,))
        assert session.kept_bytes <= 64
    refusal = sessions.admit(session, 1, 1, 0)
    assert isinstance(refusal, Refusal)
    assert refusal.executed
    assert isinstance(sessions.admit(session, 4, 1, 0), Reply)
    run(sessions, session, 5, (b"y" * 100,))
    assert session.kept_bytes == 0
    assert isinstance(sessions.admit(session, 5, 1, 0), Refusal)


def test_the_least_recently_used_session_goes_first_then_the_lowest_id():
    sessions = table()
    opened = [sessions.open(b"k", bytes([index]), 1, index) for index in range(3)]
    run(sessions, opened[0], 1, (b"a",), height=2)
    sessions.open(b"k", b"x", 3, 0)
    assert sessions.get((1, 1)) is None
    assert len(sessions) == 3
    sessions.open(b"k", b"y", 3, 1)
    assert sessions.get((1, 2)) is None
    sessions.open(b"k", b"z", 3, 2)
    assert sessions.get((1, 0)) is None
    assert sessions.open(b"k", bytes([1]), 4, 0).id == (4, 0), "an expired session is opened anew, elsewhere"


def test_a_table_that_was_replaced_evicts_by_what_it_holds_now():
    sessions, other = table(), table()
    for index in range(3):
        sessions.open(b"k", bytes([index]), 1 + index, 0)
    sessions.open(b"k", b"x", 9, 0)
    for nonce, height in ((b"a", 0), (bytes([1]), 2), (bytes([2]), 3)):
        other.open(b"k", nonce, height, 0)
    sessions.load(other.dump())
    sessions.open(b"k", b"y", 10, 0)
    assert sessions.get((0, 0)) is None
    assert sessions.get((2, 0)) is not None


def test_when_all_were_used_at_this_height_the_lowest_id_goes():
    sessions = table()
    for index in range(5):
        sessions.open(b"k", bytes([index]), 1, index)
    assert [sessions.get((1, index)) is not None for index in range(5)] == [False, False, True, True, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=60), st.sets(st.integers(0, 60)))
def test_eviction_is_that_of_the_plain_rule_wherever_a_replica_restarted(uses, restarts):
    sessions = table()
    model: dict[int, list] = {}
    height = 1
    for step, (nonce, advance) in enumerate(uses):
        height += advance
        if nonce in model:
            session = sessions.get(model[nonce][1])
            assert session is not None
            run(sessions, session, step + 1, (b"",), acknowledged=step, height=height)
            model[nonce][0] = height
        else:
            if len(model) == 3:
                del model[min(model, key=lambda known: model[known])]
            session = sessions.open(b"k", bytes([nonce]), height, step)
            model[nonce] = [height, session.id]
        assert all(sessions.get(entry[1]) is not None for entry in model.values())
        assert len(sessions) == len(model)
        if step in restarts:
            again = table()
            again.load(sessions.dump())
            sessions = again


OPERATIONS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 14), st.integers(1, 4), st.integers(0, 12)), max_size=50
)


@given(OPERATIONS, st.integers(0, 50))
def test_every_sequence_executes_at_most_once_and_replies_stay_equal(operations, restart):
    sessions = table(session_reply_bytes=40)
    ids = [sessions.open(b"k", bytes([index]), 1, index).id for index in range(2)]
    executed: list[dict[int, tuple[int, int]]] = [{}, {}]
    replies: dict[tuple[int, int, int], Reply] = {}
    lows = [0, 0]
    refused: list[tuple[int, int, int, int]] = []
    for step, (which, first, count, acknowledged) in enumerate(operations):
        session = sessions.get(ids[which])
        assert session is not None
        sequences = range(first, first + count)
        done = [sequence in executed[which] for sequence in sequences]
        answer = sessions.admit(session, first, count, acknowledged)
        if answer is None:
            assert not any(done), "executed twice"
            assert first > lows[which]
            assert first + count - 1 <= min(acknowledged, first - 1) + 8
            results = tuple(b"%d" % sequence for sequence in sequences)
            sessions.begin(session, first, count, acknowledged, step)
            replies[which, first, count] = sessions.finish(session, first, step, results)
            executed[which].update(dict.fromkeys(sequences, (first, count)))
            lows[which] = max(lows[which], min(acknowledged, first - 1))
        elif isinstance(answer, Reply):
            assert answer == replies[which, first, count]
        else:
            beyond = first + count - 1 > min(acknowledged, first - 1) + 8
            assert any(done) or first <= lows[which] or beyond, answer
            if not answer.executed:
                refused.append((which, first, count, acknowledged))
        assert all(sessions.admit(sessions.get(ids[one]), *rest) is not None for one, *rest in refused), "for ever"
        assert session.low == lows[which]
        assert session.kept_bytes <= 40
        assert session.kept_bytes == sum(
            8 * kept.count + sum(map(len, kept.results)) for kept in session.kept.values() if kept.results is not None
        )
        assert session.executed.bit_length() <= 8 + 4
        if step == restart:
            root, again = sessions.root(), table(session_reply_bytes=40)
            again.load(sessions.dump())
            assert again.root() == root
            sessions = again
    again = table()
    again.load(sessions.dump())
    assert (again.root(), again.dump()) == (sessions.root(), sessions.dump())


def test_the_root_changes_with_the_content_and_only_with_it():
    sessions = table()
    roots = [sessions.root()]
    session = sessions.open(b"k", b"n", 1, 0)
    roots.append(sessions.root())
    sessions.open(b"k", b"n", 2, 0)
    assert sessions.root() == roots[-1]
    reply = run(sessions, session, 1, (b"a",))
    roots.append(sessions.root())
    assert sessions.admit(session, 1, 1, 0) == reply
    assert sessions.root() == roots[-1]
    run(sessions, session, 2, (b"b",), acknowledged=1)
    roots.append(sessions.root())
    run(sessions, session, 3, (b"b",), acknowledged=1, height=3)
    roots.append(sessions.root())
    for index in range(3):
        sessions.open(b"k", bytes([index]), 9, index)
    roots.append(sessions.root())
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x91\x01", b"\x91\x98"])
def test_what_is_no_table_is_refused_and_changes_nothing(data):
    sessions = table()
    sessions.open(b"k", b"n", 1, 0)
    root = sessions.root()
    with pytest.raises(msgspec.DecodeError):
        sessions.load(data)
    assert sessions.root() == root
