"""What may be signed. Each rule has a test that fails without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.engine import SigningRule
from bftkit.core.statement import Statement
from bftkit.replica.records import StepRecord
from bftkit.replica.safety import SigningGuard

RULES = {
    "prepare": SigningRule(guarded=True, raises_floor=0),
    "vote": SigningRule(),
    "leave": SigningRule(guarded=False, raises_floor=1),
    "lead": SigningRule(guarded=False),
}
A, B = b"a" * 32, b"b" * 32


def test_one_content_for_a_slot():
    guard = SigningGuard(RULES)
    assert guard.admit(Statement("vote", 1, 5, A)) is None
    assert guard.admit(Statement("vote", 1, 5, A)) is None
    problem = guard.admit(Statement("vote", 1, 5, B))
    assert problem is not None and "another content" in problem
    for other in (Statement("vote", 2, 5, B), Statement("vote", 1, 6, B), Statement("lead", 1, 5, B)):
        assert guard.admit(other) is None


def test_the_same_again_is_no_news():
    guard = SigningGuard(RULES)
    statement = Statement("vote", 1, 5, A)
    assert guard.is_new(statement)
    guard.admit(statement)
    assert not guard.is_new(statement)


def test_leaving_a_view_forbids_votes_in_it_and_below():
    guard = SigningGuard(RULES)
    assert guard.admit(Statement("leave", 2, 0, A)) is None
    assert guard.floor == 3
    for view in (0, 1, 2):
        assert guard.admit(Statement("vote", view, 5, A)) is not None
        assert len(guard) == 1
    assert guard.admit(Statement("vote", 3, 5, A)) is None


def test_a_vote_that_joins_a_view_forbids_votes_in_earlier_ones():
    guard = SigningGuard(RULES)
    assert guard.admit(Statement("prepare", 4, 1, A)) is None
    assert guard.admit(Statement("vote", 4, 1, A)) is None
    assert guard.admit(Statement("vote", 3, 2, A)) is not None


def test_nothing_lowers_the_floor():
    guard = SigningGuard(RULES)
    guard.admit(Statement("leave", 6, 0, A))
    assert guard.admit(Statement("leave", 3, 0, A)) is not None
    assert guard.floor == 7
    loose = SigningGuard({"give up": SigningRule(guarded=False, raises_floor=0)})
    loose.admit(Statement("give up", 6, 9, A))
    assert loose.admit(Statement("give up", 3, 8, A)) is not None
    assert loose.floor == 6


def test_what_was_signed_may_be_said_again_below_the_floor():
    guard = SigningGuard(RULES)
    guard.admit(Statement("vote", 1, 5, A))
    guard.admit(Statement("leave", 1, 0, A))
    assert guard.admit(Statement("vote", 1, 5, A)) is None
    assert guard.admit(Statement("vote", 1, 5, B)) is not None


def test_what_is_not_guarded_is_signed_in_any_view():
    guard = SigningGuard(RULES)
    guard.admit(Statement("leave", 6, 0, A))
    assert guard.admit(Statement("lead", 1, 9, A)) is None
    assert guard.admit(Statement("checkpoint", 0, 128, A)) is None
    assert guard.admit(Statement("checkpoint", 0, 128, B)) is not None


def test_a_kind_without_a_rule_is_guarded():
    guard = SigningGuard(RULES)
    guard.admit(Statement("leave", 6, 0, A))
    assert guard.admit(Statement("novelty", 1, 9, A)) is not None


def test_nothing_is_signed_at_or_below_a_stable_checkpoint():
    guard = SigningGuard(RULES)
    guard.admit(Statement("vote", 0, 7, A))
    guard.stable(8)
    for position in (1, 7, 8):
        assert guard.admit(Statement("vote", 0, position, B)) is not None
        assert guard.admit(Statement("checkpoint", 0, position, B)) is not None
    assert guard.admit(Statement("vote", 0, 9, B)) is None
    guard.stable(4)
    assert guard.low_mark == 8


def test_a_stable_checkpoint_frees_memory_above_it_nothing():
    guard = SigningGuard(RULES)
    for position in range(1, 11):
        guard.admit(Statement("vote", 0, position, A))
    guard.stable(8)
    assert len(guard) == 2
    assert guard.admit(Statement("vote", 0, 9, B)) is not None


def test_what_was_forgotten_without_a_position_is_not_signed_anew():
    guard = SigningGuard(RULES)
    assert guard.admit(Statement("lead", 1, 0, A)) is None
    guard.admit(Statement("leave", 4, 0, A))
    guard.stable(8)
    assert guard.admit(Statement("lead", 1, 0, B)) is not None


def test_a_restart_restores_what_the_records_say():
    guard = SigningGuard(RULES)
    first = Statement("vote", 1, 5, A)
    guard.admit(first)
    record = StepRecord((), False, guard.floor, guard.low_mark, guard.slots_of([first]))
    guard.admit(Statement("leave", 2, 0, A))
    guard.stable(4)
    second = StepRecord((), False, guard.floor, guard.low_mark, ())
    later = SigningGuard(RULES)
    later.restore(record)
    assert later.admit(Statement("vote", 1, 5, B)) is not None
    later.restore(second)
    assert (later.floor, later.low_mark) == (3, 4)
    later.restore(record)
    assert (later.floor, later.low_mark) == (3, 4), "an older record lowers nothing"


def test_a_record_that_replaces_earlier_ones_is_complete():
    guard = SigningGuard(RULES)
    for position in (1, 2, 9):
        guard.admit(Statement("vote", 0, position, A))
    early = StepRecord((), False, 0, 0, guard.snapshot())
    guard.stable(8)
    whole = StepRecord((), True, guard.floor, guard.low_mark, guard.snapshot())
    later = SigningGuard(RULES)
    later.restore(early)
    later.restore(whole)
    assert later.snapshot() == guard.snapshot()
    assert len(later) == 1


STATEMENTS = st.builds(
    Statement,
    st.sampled_from([*RULES, "checkpoint", "novelty"]),
    st.integers(0, 4),
    st.integers(0, 6),
    st.sampled_from([A, B]),
)
EVENTS = st.one_of(STATEMENTS, st.integers(1, 5), st.sampled_from(["restart", "replace"]))


@given(st.lists(EVENTS, max_size=60))
def test_no_history_signs_two_contents_or_votes_below_a_view_that_was_joined(history):
    guard = SigningGuard(RULES)
    records: list[StepRecord] = []
    signed: dict[tuple[str, int, int], bytes] = {}
    joined = 0
    for event in history:
        if event == "restart":
            guard = SigningGuard(RULES)
            for record in records:
                guard.restore(record)
        elif event == "replace":
            records.append(StepRecord((), True, guard.floor, guard.low_mark, guard.snapshot()))
        elif isinstance(event, int):
            guard.stable(event)
            records.append(StepRecord((), False, guard.floor, guard.low_mark, ()))
        elif guard.admit(event) is None:
            assert signed.setdefault(event.slot, event.content) == event.content
            rule = RULES.get(event.kind, SigningRule())
            guarded = rule.guarded and event.kind != "checkpoint"
            if event.slot not in {(s.kind, s.view, s.position) for record in records for s in record.signed}:
                assert not guarded or event.view >= joined
            if rule.raises_floor is not None and event.kind != "checkpoint":
                joined = max(joined, event.view + rule.raises_floor)
            records.append(StepRecord((), False, guard.floor, guard.low_mark, guard.slots_of([event])))


@pytest.mark.parametrize("position", [0, 3])
def test_restoring_in_any_prefix_never_forgets_what_was_written(position):
    guard = SigningGuard(RULES)
    guard.restore(StepRecord((), False, 2, 0, guard.slots_of([Statement("vote", 2, position, A)])))
    assert guard.admit(Statement("vote", 2, position, B)) is not None
    assert guard.admit(Statement("vote", 2, position, A)) is None
