"""When an engine is looked at, and at which of its proofs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bftkit.core.log import CommitEntry, CommitProof
from bftkit.testing.engine_watch import LOOK_AGAIN, EngineWatch


class Plain:
    """Writes down when it is asked; the engine is a dictionary of what it answers."""

    def __init__(self) -> None:
        self.looks = 0
        self.restarts: list[int] = []

    def signs(self, member: int, statement: Any) -> str | None:
        return f"{member} signs {statement}"

    def decided(self, position: int, certificate: Any) -> str | None:
        return f"{position} by {certificate}"

    def stepped(self, member: int, engine: Any) -> str | None:
        self.looks += 1
        return engine.problem

    def restarted(self, member: int) -> None:
        self.restarts.append(member)


class Landmarks(Plain):
    """Says when it must be asked."""

    def landmarks(self, engine: Any) -> Any:
        return engine.mark


class Proofs(Plain):
    """Judges what was decided."""

    def __init__(self) -> None:
        super().__init__()
        self.judged: list[int] = []

    def proved(self, member: int, engine: Any, entry: CommitEntry) -> str | None:
        self.judged.append(entry.position)
        return "bad" if entry.position == 7 else None


class Commits:
    """Decided positions above a base."""

    def __init__(self, base: int, position: int) -> None:
        self.base, self.position = base, position

    def after(self, position: int, limit: int) -> tuple[CommitEntry, ...]:
        return tuple(CommitEntry(at, (), CommitProof()) for at in range(position + 1, self.position + 1))[:limit]


def node_at(position: int = 0, *, base: int = 0, view: int = 0, mark: int = 0, problem: str | None = None) -> Any:
    engine = SimpleNamespace(view=view, mark=mark, problem=problem)
    stable = SimpleNamespace(position=0)
    replica = SimpleNamespace(
        engine=engine, commits=Commits(base, position), checkpoints=SimpleNamespace(stable=stable)
    )
    return SimpleNamespace(index=1, replica=replica)


def test_an_engine_is_looked_at_when_something_moves_and_now_and_then():
    for kind, moved in ((Plain, {"view": 1}), (Landmarks, {"mark": 1})):
        invariants = kind()
        watch = EngineWatch(invariants)
        for _ in range(LOOK_AGAIN):
            assert watch.stepped(node_at()) is None
        assert invariants.looks == 1
        assert watch.stepped(node_at()) is None
        assert invariants.looks == 2, "after so many steps it is looked at whatever moved"
        watch.stepped(node_at(**moved))
        assert invariants.looks == 3
        watch.stepped(node_at(**moved))
        assert invariants.looks == 3
        watch.restarted(1)
        watch.stepped(node_at(**moved))
        assert (invariants.looks, invariants.restarts) == (4, [1])


def test_what_is_wrong_is_handed_on():
    watch = EngineWatch(Plain())
    assert watch.stepped(node_at(problem="odd")) == "odd"
    assert watch.begins(node_at(problem="odd")) == "odd"
    assert watch.signs(1, "this") == "1 signs this"  # type: ignore[arg-type]  # any words will do
    assert watch.decided(3, "those") == "3 by those"  # type: ignore[arg-type]


def test_each_proof_is_judged_once():
    invariants = Proofs()
    watch = EngineWatch(invariants)
    watch.begins(node_at(2))
    watch.stepped(node_at(2))
    watch.stepped(node_at(4))
    watch.stepped(node_at(4))
    assert invariants.judged == [3, 4]
    watch.stepped(node_at(6, base=5))
    assert invariants.judged == [3, 4, 6], "what is below the base is gone"
    assert watch.stepped(node_at(8)) == "bad"


@pytest.mark.parametrize("marks", [False, True])
def test_only_what_remembers_records_is_told_of_them(marks):
    told: list[int] = []
    invariants = Plain()
    if marks:
        invariants.recorded = lambda member, engine: told.append(member)  # type: ignore[attr-defined]
    EngineWatch(invariants).recorded(node_at())
    assert told == [1] * marks
