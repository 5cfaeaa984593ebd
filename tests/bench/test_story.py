"""The verdict of the demonstration on its own claim, and the lines that it tells; no process runs here."""

import time
from typing import Any

import pytest

from bftkit.bench.story import Story, StoryPlan, newest_view, no_kill_reason, verdict_word, what_is_missing

SAFE = {"lost": 0, "duplicated": 0, "unknown": 0, "equal_state": True}
KILL = {"leader": "n0", "committed_after": 50_000, "caught_up_batches": 235}
KILLED_AT = 100.0


class Processes:
    """Stands for the nodes: notes what is done to them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.nodes = {name: Process(name, self.done) for name in ("n0", "n1", "n2", "n3")}


class Process:
    def __init__(self, name: str, done: list[str]) -> None:
        self._name = name
        self._done = done

    def signal(self, number: int) -> None:
        self._done.append(f"signal {self._name}")

    def wait(self, timeout: float) -> bool:
        return True

    def start(self) -> None:
        self._done.append(f"start {self._name}")


def status(view: int, leader: str, applied: int = 10, *, down: str = "") -> list[dict[str, Any]]:
    return [
        {"id": name, "error": "gone"}
        if name == down
        else {"id": name, "view": view, "leader": leader, "applied": applied}
        for name in ("n0", "n1", "n2", "n3")
    ]


def killed_story() -> tuple[Story, Processes, list[str]]:
    """Return a story whose leader n0 was just killed, at view 0 and height 10, and the lines from then on."""
    lines: list[str] = []
    story = Story(StoryPlan(), lambda at, text: lines.append(text), lambda at, status, rate: None)
    processes = Processes()
    story._on_event({"event": "measuring", "at": KILLED_AT, "status": status(0, "n0")})
    story._kill_leader(processes)
    story._killed_at = KILLED_AT
    assert processes.done == ["signal n0"]
    assert lines == ["x killed leader n0"]
    lines.clear()
    return story, processes, lines


def resumed(at: float, after_ms: int = 1278) -> dict[str, Any]:
    return {"event": "resumed", "at": at, "after_ms": after_ms}


def replicas(asked_at: float, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"event": "replicas", "at": asked_at + 0.1, "asked_at": asked_at, "status": found, "acknowledged": 0}


def test_the_verdict_needs_the_kill_the_commits_after_it_and_the_return() -> None:
    assert what_is_missing(KILL, 6400) == []
    assert what_is_missing(None, 6400) == ["no leader was killed"]
    assert what_is_missing({**KILL, "caught_up_batches": None}, 6400) == ["n0 did not catch up"]
    # What was on its way when the leader died may still be answered: that shows nothing.
    assert what_is_missing({**KILL, "committed_after": 6400}, 6400) == ["no commits after n0 was killed"]


def test_what_was_not_shown_is_not_ok_and_no_violation() -> None:
    assert verdict_word(SAFE, []) == "ok"
    assert verdict_word(SAFE, ["n0 did not catch up"]) == "incomplete"
    assert verdict_word({**SAFE, "unknown": 100}, []) == "ok"
    for wrong in ({"lost": 1}, {"duplicated": 1}, {"equal_state": False}):
        assert verdict_word({**SAFE, **wrong}, ["anything"]) == "violated"


@pytest.mark.parametrize(("replicas_", "engine"), [(1, "pbft"), (3, "pbft"), (1, "solo")])
def test_too_few_replicas_are_not_killed_and_that_is_said(replicas_: int, engine: str) -> None:
    reason = no_kill_reason(StoryPlan(engine=engine, replicas=replicas_))
    assert reason == f"a cluster of {replicas_} on {engine} cannot do without any replica"


def test_four_are_enough_unless_told_not_to() -> None:
    assert no_kill_reason(StoryPlan()) is None
    assert no_kill_reason(StoryPlan(kill=False)) == "as asked for"


def test_the_new_leader_is_asked_for_once_commands_are_answered_again() -> None:
    story, _, lines = killed_story()
    story._on_event(resumed(101.3))
    # This answer is to a question from before the commits went on; it knows nothing.
    story._on_event(replicas(101.0, status(0, "n0", down="n0")))
    assert lines == []
    story._on_event(replicas(101.31, status(1, "n1", down="n0")))
    assert lines == ["~ commits again, view 0 -> 1, leader n1 · no commit for 1278 ms"]
    story._on_event(resumed(107.0, 200))
    story._on_event(resumed(108.0, 400))
    assert lines[1:] == ["~ commits again · no commit for 400 ms"]


def test_a_pause_from_before_the_kill_is_not_the_one_that_is_told() -> None:
    story, _, lines = killed_story()
    story._on_event(resumed(100.1, 350))
    story._on_event(replicas(100.2, status(0, "n0", down="n0")))
    story._on_event(replicas(101.0, status(1, "n1", down="n0")))
    assert lines == []
    story._on_event(resumed(101.3))
    story._on_event(replicas(101.4, status(1, "n1", down="n0")))
    assert lines == ["~ commits again, view 0 -> 1, leader n1 · no commit for 1278 ms"]


def test_of_several_pauses_before_the_answer_the_longest_is_told() -> None:
    story, _, lines = killed_story()
    for event in (resumed(100.1, 160), resumed(101.5, 1510), resumed(101.8, 170)):
        story._on_event(event)
    story._on_event(replicas(101.9, status(1, "n1", down="n0")))
    assert lines == ["~ commits again, view 0 -> 1, leader n1 · no commit for 1510 ms"]


def test_the_killed_one_stays_down_until_the_others_have_gone_on() -> None:
    story, processes, _ = killed_story()
    story._killed_at = time.monotonic() - 4.0
    story._began = story._killed_at - 3.0
    story._act(processes)
    assert processes.done == ["signal n0"]
    story._goes_on = True
    story._act(processes)
    assert processes.done == ["signal n0", "start n0"]
    story._act(processes)
    assert processes.done == ["signal n0", "start n0"]


def test_the_return_is_told_once_under_load_or_at_the_end() -> None:
    story, _, lines = killed_story()
    story._restarted = True
    far_behind = status(1, "n1", 1000)
    far_behind[0]["applied"] = 20
    story._on_event(replicas(110.0, status(1, "n1", 1000, down="n0")))
    story._on_event(replicas(110.0, far_behind))
    story._on_event(replicas(110.0, status(1, "n1", 5)))
    assert lines == []
    story._on_event(replicas(111.0, status(1, "n1", 1010)))
    story._on_event(replicas(112.0, status(1, "n1", 1020)))
    assert lines == ["+ n0 back, caught up 1,000 batches"]


class EndedLoad:
    """A load that has reported its end."""

    def __init__(self) -> None:
        self.events = {"done": {"status": status(1, "n1", 500)}}


def test_a_return_after_the_load_says_so() -> None:
    story, _, lines = killed_story()
    story._restarted = True
    story._at_the_end(EndedLoad())
    assert lines == ["+ n0 back, caught up 490 batches once the load had ended"]
    assert not story._caught_up_under_load


def test_the_newest_view_wins() -> None:
    assert newest_view([*status(3, "n3", down="n1"), *status(2, "n2")]) == (3, "n3")
    assert newest_view([{"id": "n0", "error": "gone"}]) == (0, None)
