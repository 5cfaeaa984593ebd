"""The kit: engines that keep their promises pass, and for each promise there is one that does not."""

from __future__ import annotations

import ast
import os
import shlex
import sys
from pathlib import Path

import pytest

from bftkit.core.engine import EngineSpec
from bftkit.errors import ConfigurationError
from bftkit.testing.checkers import Violation
from bftkit.testing.conformance import (
    LIES,
    PROPERTIES,
    Case,
    Failure,
    NotConforming,
    check_engine,
    conformance_cases,
    examine_engine,
    run_cases,
    sizes_of,
)
from bftkit.testing.scenario import replay_scenario
from bftkit.testing.solo import solo_spec
from tests.testing.broken_engines import BROKEN, CRASH_TOLERANT, PBFT, Vague, broken, build_modern, forgetting

NAMES = [each.name for each in PROPERTIES]
SEEDS = range(1, 9)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("case", conformance_cases("solo"), ids=str)
def test_the_smallest_engine_keeps_its_promises(case):
    case.run()


@pytest.mark.parametrize("case", conformance_cases(CRASH_TOLERANT, members=[2, 3, 5], seeds=[1]), ids=str)
def test_an_engine_that_tolerates_crashes_keeps_its_promises(case):
    """PBFT with majorities for quorums: there is no liar among its members, and all else is promised too."""
    case.run()


def test_promises_have_names_and_sentences():
    assert len(set(NAMES)) == len(NAMES)
    assert set(BROKEN) == set(NAMES)
    assert all(each.promise.endswith(".") and each.group for each in PROPERTIES)


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_that_breaks_a_promise_is_found_out(name):
    (result,) = run_cases(conformance_cases(BROKEN[name], properties=[name], seeds=SEEDS))
    assert result.failure is not None
    assert (result.name, result.failure.property, result.failure.engine) == (name, name, BROKEN[name].name)


def test_an_engine_that_does_not_say_for_whom_it_waits_is_found_out():
    (result,) = run_cases(conformance_cases(broken(PBFT, Vague), properties=["explains"], seeds=[1]))
    assert result.failure is not None
    assert "does not say for whom" in result.failure.problem


# --- Other interpreters ---------------------------------------------------------------------------------------------


def others() -> list[str]:
    """Return the interpreters that are there with what bftkit needs: those of nox, and what the environment names."""
    named = os.environ.get("BFTKIT_PYTHONS", "").split(os.pathsep)
    return [*filter(None, named), *map(str, sorted(ROOT.glob(".nox/tests-*/bin/python")))]


def run_elsewhere(interpreter: str, spec: EngineSpec = PBFT) -> Failure | None:
    (case,) = conformance_cases(spec, properties=["hash-seeds"], interpreters=[interpreter])
    return case.failure()


@pytest.mark.parametrize("interpreter", [sys.executable, *others()])
def test_a_run_is_the_same_under_another_interpreter(interpreter):
    assert run_elsewhere(interpreter) is None


def test_a_run_that_depends_on_the_interpreter_is_found_out(tmp_path):
    """This one under another name, by which the engine tells them apart."""
    other = tmp_path / "python-of-next-year"
    other.write_text(f'#!/bin/sh\nLONGER_MS=1 exec {shlex.quote(sys.executable)} "$@"\n')
    other.chmod(0o755)
    assert run_elsewhere(str(other)) is None
    found = run_elsewhere(str(other), broken(PBFT, build=build_modern))
    assert found is not None
    assert f"'{other}': " in found.problem
    assert "under several interpreters differ" in found.problem
    assert f"interpreters=['{other}'])" in found.again[0]


def test_an_interpreter_that_is_not_there_is_a_clear_error():
    with pytest.raises(ConfigurationError, match="no interpreter /nowhere/python"):
        conformance_cases("solo", interpreters=["/nowhere/python"])


# --- What is reported -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failure() -> Failure:
    case = conformance_cases(forgetting(), properties=["restarts"])[0]
    found = case.failure()
    assert found is not None
    return found


def test_a_failure_says_what_was_promised_and_found(failure):
    text = str(failure)
    assert text.startswith(
        "broken breaks the promise 'restarts' with 4 members, seed 1.\nPromised: A member that crashes"
    )
    assert "another content was signed" in failure.problem
    assert "Again: check_engine(spec, properties=['restarts'], members=[4], seeds=[1])" in text


def test_the_case_in_a_failure_is_small_and_can_be_played_by_itself(failure):
    commands, _, trace = failure.scenario.partition("----\n")
    assert commands.startswith("cluster 4 interval=2 seed=1\n")
    whole = conformance_cases(forgetting(), properties=["restarts"])[0]
    assert len(commands.splitlines()) <= 8 < len(whole.property.plan(_trial(whole)))
    assert "restarts" in trace
    with pytest.raises(Violation, match="another content was signed"):
        replay_scenario(commands + "----\n", forgetting(), LIES)


def _trial(case: Case):
    from bftkit.testing.conformance.case import Trial

    return Trial(case.property, case.spec, case.members, case.seed)


def test_the_call_in_a_failure_finds_it_again(failure):
    (call,) = (ast.parse(way, mode="eval").body for way in failure.again if way.startswith("check_engine"))
    settings = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    with pytest.raises(NotConforming) as caught:
        check_engine(forgetting(), **settings)
    assert caught.value.failures == (failure,)


def test_an_installed_engine_is_tested_again_on_the_command_line():
    found = conformance_cases("pbft", properties=["heals"], members=[4], seeds=[5], bound_ms=1)[0].failure()
    assert found is not None
    assert found.again == (
        "bftkit engine test pbft --property heals --members 4 --seeds 5 --bound-ms 1",
        "check_engine('pbft', properties=['heals'], members=[4], seeds=[5], bound_ms=1)",
    )


def test_digests_are_shortened():
    case = conformance_cases(BROKEN["references"], properties=["references"])[0]
    found = case.failure()
    assert found is not None
    assert "digest=b'" in found.problem or 'digest=b"' in found.problem
    assert ".." in found.problem
    assert len(found.problem) < 2_000


def test_all_broken_promises_are_reported_at_once():
    spec = broken(PBFT, window=lambda context: 1, references=lambda message: ())
    with pytest.raises(NotConforming) as caught:
        check_engine(spec, properties=["declared", "references", "early"])
    assert [one.property for one in caught.value.failures] == ["declared", "references"]
    assert str(caught.value).count("breaks the promise") == 2


def test_a_promise_is_not_tried_further_once_it_is_broken():
    seen: list[str] = []
    report = examine_engine(
        forgetting(), properties=["restarts", "early"], progress=lambda case: seen.append(str(case))
    )
    assert [(result.name, result.cases) for result in report.results] == [("restarts", 1), ("early", 1)]
    assert seen == ["restarts-4-1", "early-4-1"]
    assert [one.property for one in report.failures] == ["restarts"]
    assert (report.engine, report.fault_model) == ("broken", "byzantine")


# --- What is tried --------------------------------------------------------------------------------------------------


def test_groups_of_all_sizes_that_an_engine_takes_are_tried():
    assert sizes_of(PBFT) == (4, 5, 6, 7)
    assert sizes_of(solo_spec()) == (1,)
    assert {case.members for case in conformance_cases("pbft")} == {4, 5, 6, 7}
    assert {case.members for case in conformance_cases("pbft", members=[6])} == {6}


def test_promises_of_another_fault_model_are_not_tried():
    names = {case.property.name for case in conformance_cases("solo")}
    assert "twins" not in names
    assert "without-leader" not in names, "a group of one can spare nobody"
    assert "restarts" in names


def test_what_cannot_be_tried_is_a_clear_error():
    with pytest.raises(ConfigurationError, match="no promise is called 'perfect': there are declared, "):
        conformance_cases("solo", properties=["perfect"])
    with pytest.raises(ConfigurationError, match="solo is tried with 1 members, not 3"):
        conformance_cases("solo", members=[3])
    with pytest.raises(ConfigurationError, match="cannot be built for 2 members"):
        conformance_cases(broken(solo_spec(), min_members=2))
