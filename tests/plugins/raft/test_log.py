"""The log by itself, against a plain list of terms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bftkit_raft.log import RaftLog
from tests.plugins.raft.parts import entry

terms = st.lists(st.integers(1, 6), max_size=12).map(sorted)


def made(base: int, listed: list[int]) -> RaftLog:
    log = RaftLog(base)
    for term in listed:
        log.append(entry(term))
    return log


@given(st.integers(0, 5), terms)
def test_terms_by_position(base, listed):
    log = made(base, listed)
    assert log.last == base + len(listed)
    assert [log.term_at(base + 1 + place) for place in range(len(listed))] == listed
    assert log.term_at(base) == log.term_at(log.last + 1) == 0
    assert log.last_term == (listed[-1] if listed else 0)


@given(terms, st.integers(1, 7))
def test_where_terms_begin_and_end(listed, term):
    log = made(10, listed)
    assert log.last_up_to_term(term) == 10 + sum(one <= term for one in listed)
    if term in listed:
        assert log.first_of_term(term) == 11 + listed.index(term)


@given(terms, st.integers(0, 12))
def test_cutting_and_beginning_anew(listed, at):
    log = made(0, listed)
    keep = min(at, len(listed))
    gone = log.cut(keep + 1)
    assert [one.term for one in gone] == listed[keep:]
    assert log.last == keep
    log = made(0, listed)
    gone = log.begin_behind(at, 9)
    assert [one.term for one in gone] == listed[:at]
    assert (log.base, log.base_term, log.last) == (at, 9, max(at, len(listed)))
    assert log.behind(at, 99) == tuple(map(entry, listed[at:]))


def test_the_highest_term_is_remembered():
    log = made(0, [1, 5])
    log.cut(2)
    assert (log.last_term, log.highest_term) == (1, 5)
    log.begin_behind(7, 0)
    assert log.last_term == 5, "the term at the base is not known"
    log.begin_behind(8, 3)
    assert log.last_term == 3
