"""One scenario of twins: who hears whom, how views begin and end, and what is noticed."""

import re
from pathlib import Path

import msgspec
import pytest

from bftkit.testing.engine_group import EngineGroup
from bftkit.testing.message_sorts import sort_of
from bftkit.testing.twins_play import TwinsCase, TwinsTiming, run_twins_case
from bftkit.testing.twins_scenarios import (
    LOSSES,
    PROPOSALS,
    VIEW_CHANGES,
    VOTES,
    Scenario,
    View,
    parse_scenario,
    scenario_text,
)
from bftkit_pbft import engine as pbft_engine
from bftkit_pbft import messages
from bftkit_pbft.invariants import PbftInvariants

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios" / "twins").glob("*.txt"))

CALM = "members 4\ntwins 1\n" + 3 * "leader n1, blocks n0 n1 n2 n3 n0'\n"


def played(text: str, **more) -> TwinsCase:
    """Play a scenario that must go well, with its trace."""
    case = run_twins_case("pbft", parse_scenario(text), traced=True, **more)
    assert case.problem is None, "\n".join(case.trace)
    return case


def times(case: TwinsCase, pattern: str) -> list[int]:
    """When lines of the trace came up that match."""
    return [int(line.split()[0]) for line in case.trace if re.search(pattern, line)]


def one_view(rest: str) -> TwinsCase:
    """A scenario of one view, led by n1."""
    return played(f"members 4\ntwins 1\nleader n1, {rest}\n")


# --- What passes ------------------------------------------------------------------------------------------------------


def test_messages_are_told_apart_by_their_names():
    kinds = {name: sort_of(type_) for name, type_ in vars(messages).items() if type_ in messages.PbftMessage.__args__}
    assert kinds == {
        "PrePrepare": PROPOSALS,
        "FetchProposal": PROPOSALS,
        "PrePrepareCopy": PROPOSALS,
        "Prepare": VOTES,
        "CommitVote": VOTES,
        "Suspect": VIEW_CHANGES,
        "ViewChange": VIEW_CHANGES,
        "ViewChangeCopy": VIEW_CHANGES,
        "FetchViewChange": VIEW_CHANGES,
        "NewView": VIEW_CHANGES,
        "NewViewCopy": VIEW_CHANGES,
        "FetchNewView": VIEW_CHANGES,
    }


def test_a_whole_network_decides_in_each_view_and_goes_on_to_the_next():
    case = played(CALM)
    assert case.views == 3
    assert case.commits >= 4
    for view in range(3):
        assert times(case, rf"n1 PrePrepare v{view} p\d+ \[.*a{view} b{view}")
    assert times(case, r"n1 NewView v2")


def test_only_the_block_of_the_leader_decides():
    case = one_view("blocks n0 n1 n2 | n3 n0'")
    early = {line.split()[1] for line in case.trace if "COMMITS 1 " in line and int(line.split()[0]) < 40}
    assert early == {"n0", "n1", "n2"}
    assert times(case, "n3 (COMMITS|synced) ")


def test_too_small_a_block_decides_nothing():
    case = one_view("blocks n1 n2 | n0 n3 n0'")
    assert min(times(case, "COMMITS 1 ")) > 1_000


@pytest.mark.parametrize(("lost", "sent"), [(VOTES, "PrePrepare v0"), (PROPOSALS, "PrePrepare v0")])
def test_what_a_view_loses_decides_nothing_in_it(lost, sent):
    case = one_view(f"blocks n0 n1 n2 n3 n0', lost {lost}")
    assert times(case, f"n1 {sent}")
    assert min(times(case, "COMMITS 1 ")) > 1_000
    prepares = times(case, "n2 Prepare v0")
    assert bool(prepares) == (lost == VOTES)


def test_one_instance_may_lose_what_the_others_hear():
    case = one_view("blocks n0 n1 n2 n3 n0', lost votes at n2")
    early = {line.split()[1] for line in case.trace if "COMMITS 1 " in line and int(line.split()[0]) < 40}
    assert early == {"n0", "n1", "n3", "n0'"}


def test_lost_view_changes_hold_a_view_up_but_do_not_stop_it():
    quick = played(CALM)
    slow = played(CALM.replace("n0'\n", "n0', lost view changes\n"))
    assert slow.views == quick.views == 3
    assert min(times(slow, "NewView v2")) > min(times(quick, "NewView v2"))


def test_twins_do_not_hear_each_other():
    heard = []

    class Listening(EngineGroup):
        def _receive(self, instance, sent):
            heard.append((sent[0], instance))
            super()._receive(instance, sent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bftkit.testing.twins_play.EngineGroup", Listening)
        played(CALM)
    assert {(one.name, other.name) for one, other in heard if one.identity == other.identity} == {
        (name, name) for name in ("n0", "n1", "n2", "n3", "n0'")
    }


# --- How a view goes --------------------------------------------------------------------------------------------------


def test_twins_that_lead_propose_different_things():
    case = played("members 4\ntwins 1\nleader n0, blocks n0 n1 n2 | n3 n0'\n")
    assert times(case, r"n0 PrePrepare v0 p1 \[a0 b0\]")
    assert times(case, r"n0' PrePrepare v0 p1 \[b0 a0\]")
    assert not times(case, r"n0' PrePrepare v0 p1 \[a0 b0\]")


def test_a_leader_is_not_heard_for_ever():
    case = one_view("blocks n0 n1 n2 n3 n0'")
    assert times(case, r"n1 PrePrepare v0 p2 \[c0\]")
    assert not [line for line in case.trace if "COMMITS 2 " in line and int(line.split()[0]) < 1_000]


@pytest.mark.parametrize(("restart", "remembers"), [("n2", True), ("n0", False), ("n0'", False)])
def test_twins_come_back_without_memory(restart, remembers, monkeypatch):
    calls = []
    original = EngineGroup.restart

    def watched(group, number, *, memory=True):
        calls.append((group.instances[number].name, memory))
        original(group, number, memory=memory)

    monkeypatch.setattr(EngineGroup, "restart", watched)
    case = one_view(f"blocks n0 n1 n2 n3 n0', restart {restart}")
    assert calls == [(restart, remembers)]
    assert times(case, f"{restart} restarts") == [40]


def test_after_the_scenario_honest_members_lead_in_turn():
    case = played("members 4\ntwins 1\nleader n0, blocks n0 n1 n2 | n3 n0'\n")
    leaders = re.findall(r"(\S+) NewView v(\d+) [^>]*-> all", "\n".join(case.trace))
    assert leaders
    assert all(name == f"n{1 + (int(view) - 1) % 3}" for name, view in leaders)


def test_the_same_scenario_goes_the_same_way_again():
    assert played(CALM) == played(CALM)
    other = played(CALM, timing=TwinsTiming(seed=1))
    assert other.trace != played(CALM).trace


def test_members_without_twins_and_twins_without_honest_members_can_be_played():
    assert played("members 4\ntwins 0\nleader n2, blocks n0 n1 | n2 n3\n").views == 1
    case = run_twins_case("pbft", Scenario(4, 4, (View(0, (0,) * 8),)))
    assert (case.problem, case.commits) == (None, 0)


def test_an_engine_without_views_is_given_up_after_a_while():
    case = run_twins_case("solo", Scenario(1, 0, (View(0, (0,)), View(0, (0,)))), timing=TwinsTiming(patience_ms=100))
    assert (case.problem, case.views) == (None, 1)
    assert case.commits == 2


# --- What is noticed --------------------------------------------------------------------------------------------------


def test_what_is_never_ordered_is_a_violation(monkeypatch):
    monkeypatch.setattr(pbft_engine, "arm_timers", lambda state, out: None)
    case = run_twins_case("pbft", parse_scenario(CALM))
    assert case.problem is not None
    assert case.problem.startswith("not everything is ordered after 60000 ms")
    assert "n0' EngineStatus" in case.problem


@pytest.mark.parametrize("method", ["signs", "stepped", "decided"])
def test_what_an_engine_promises_of_itself_is_checked_too(monkeypatch, method):
    original = getattr(PbftInvariants, method)

    def broken(self, *arguments):
        assert original(self, *arguments) is None
        return "something is wrong" if self._decided else None

    monkeypatch.setattr(PbftInvariants, method, broken)
    problem = run_twins_case("pbft", parse_scenario(CALM)).problem or ""
    assert re.fullmatch(r"n[123](: | asks for a signature that it must not get: )something is wrong", problem)


def test_an_engine_that_raises_is_a_violation(monkeypatch):
    def fail(state, event):
        raise KeyError(event.sender)

    monkeypatch.setitem(pbft_engine.MESSAGE_HANDLERS, messages.CommitVote, fail)
    case = run_twins_case("pbft", parse_scenario(CALM))
    assert case.problem is not None
    assert case.problem.startswith("KeyError: ")
    assert Path(__file__).name in case.problem


# --- Scenarios of the literature --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
@pytest.mark.parametrize("seed", range(3))
def test_a_classic_scenario_does_no_harm(path, seed):
    scenario = parse_scenario(path.read_text())
    case = run_twins_case("pbft", scenario, timing=TwinsTiming(seed=seed))
    assert case.problem is None
    assert case.views == len(scenario.views)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_classic_scenario_names_its_source_and_is_written_as_all_are(path):
    text = path.read_text()
    comment, scenario = re.fullmatch(r"((?:# [^\n]*\n)+)(.*)", text, re.DOTALL).groups()
    assert scenario == scenario_text(parse_scenario(text))
    assert re.search(r"\([^)]* \d{4}[^)]*\)", comment.replace("\n# ", " "))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
@pytest.mark.parametrize("lost", LOSSES)
def test_classic_scenarios_survive_losses_on_top(path, lost):
    scenario = parse_scenario(path.read_text())
    views = tuple(view if view.lost else msgspec.structs.replace(view, lost=lost) for view in scenario.views)
    case = run_twins_case("pbft", msgspec.structs.replace(scenario, views=views))
    assert case.problem is None
