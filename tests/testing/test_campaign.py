"""Campaigns: the sums are those of the single schedules, whoever runs them and in whatever portions."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.batteries.counter import Counter
from bftkit.core.outputs import Persist
from bftkit.errors import ConfigurationError, EngineError
from bftkit.testing import program
from bftkit.testing.byzantine import BEHAVIOURS
from bftkit.testing.campaign import CampaignError, make_plan, run_campaign, shard_of
from bftkit.testing.campaign_state import MOST_FINDINGS, CampaignState, Figures, Finding, Plan
from bftkit.testing.client import SimulatedClient
from bftkit.testing.nemesis import FAILPOINTS
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import run_schedule
from bftkit.testing.solo import SoloEngine, solo_spec
from bftkit.testing.workload import Workload

SOLO = {"engine": "solo", "replicas": 1}


class Inline(Executor):
    """Runs each call at once and counts the seeds of each."""

    def __init__(self):
        self.portions = []

    def submit(self, function, /, *arguments, **more):
        self.portions.append(len(arguments[1]))
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **more))
        except BaseException as error:
            future.set_exception(error)
        return future


class Lazy(Inline):
    """Runs calls in reverse order, only once several are there."""

    def __init__(self, several):
        super().__init__()
        self._several = several
        self._waiting = []

    def submit(self, function, /, *arguments, **more):
        future: Future = Future()
        self._waiting.append((future, function, arguments))
        if len(self._waiting) == self._several:
            while self._waiting:
                future_of_this, call, values = self._waiting.pop()
                future_of_this.set_result(call(*values))
        return future


def sums(result):
    """Return everything that does not depend on the machine."""
    return {**msgspec.to_builtins(result.figures), "cpu_s": None}


@pytest.fixture
def broken(monkeypatch):
    """Let the engine forget what it should make durable."""
    honest = SoloEngine.step
    monkeypatch.setattr(
        SoloEngine,
        "step",
        lambda self, event: [each for each in honest(self, event) if not isinstance(each, Persist)],
    )


# --- What comes of it --------------------------------------------------------------------------------------------


def test_the_sums_are_those_of_the_schedules():
    told = []
    result = run_campaign(range(3, 15), **SOLO, profile="crash", executor=Inline(), progress=told.append)
    single = [run_schedule(seed, **SOLO, profile="crash") for seed in range(3, 15)]
    figures = result.figures
    assert result.ok
    assert (figures.schedules, result.seeds) == (12, (3, 15))
    assert figures.events == sum(each.steps for each in single) > 0
    assert figures.commits == sum(each.commits for each in single) > 0
    assert figures.acknowledged == sum(each.acknowledged for each in single)
    assert figures.virtual_ms == sum(each.virtual_ms for each in single)
    crashes = sum(each.faults_hit.get("crashes", 0) for each in single)
    assert figures.faults_hit["crashes"] == crashes > 0
    assert result.events_per_s == figures.events / figures.cpu_s
    assert [each.done for each in told][-1] == told[0].planned == 12
    assert [each.done for each in told] == sorted(each.done for each in told)


def test_neither_the_executor_nor_the_portions_matter():
    seeds = range(40)
    expected = sums(run_campaign(seeds, **SOLO, executor=Inline(), portion=1))
    assert sums(run_campaign(seeds, **SOLO, executor=Inline(), portion=7)) == expected
    assert sums(run_campaign(seeds, **SOLO, executor=Lazy(5), jobs=10, portion=2)) == expected
    with ThreadPoolExecutor(3) as threads:
        assert sums(run_campaign(seeds, **SOLO, executor=threads, jobs=3)) == expected
    assert sums(run_campaign(seeds, **SOLO, jobs=2)) == expected
    assert sums(run_campaign(seeds, **SOLO, executor=Inline(), profile="calm")) != expected


def test_portions_grow_with_what_is_known_and_shrink_towards_the_end():
    executor = Inline()
    run_campaign(range(300), **SOLO, profile="calm", executor=executor, jobs=2)
    assert sum(executor.portions) == 300
    assert executor.portions[0] == executor.portions[-1] == 1
    assert max(executor.portions) > 4


def test_several_sizes_are_dealt_round_among_the_seeds():
    plan = make_plan("pbft", (4, 7), "calm")
    assert [plan.replicas_of(seed) for seed in (0, 1, 2, 9)] == [4, 7, 4, 7]
    assert plan.replay(9) == "bftkit sim replay 9 --engine pbft --replicas 7 --profile calm"
    both = run_campaign(range(4, 6), engine="pbft", replicas=(4, 7), profile="calm", executor=Inline())
    single = [
        run_schedule(4, engine="pbft", profile="calm"),
        run_schedule(5, engine="pbft", replicas=7, profile="calm"),
    ]
    assert both.figures.events == sum(each.steps for each in single)


def test_without_a_size_a_group_is_as_large_as_usual_or_as_the_engine_takes():
    assert make_plan("pbft", None, "all").replicas == (4,)
    assert make_plan("solo", None, "all").replicas == (1,)


# --- What goes wrong ---------------------------------------------------------------------------------------------


def test_broken_rules_are_findings_in_order_with_the_command_that_shows_them(broken):
    expected = [
        Finding(seed, 1, text, f"bftkit sim replay {seed} --engine solo --replicas 1 --profile crash")
        for seed in range(150)
        for text in run_schedule(seed, **SOLO, profile="crash").violations
    ]
    assert 1 < len(expected) < 150
    result = run_campaign(range(150), **SOLO, profile="crash", executor=Lazy(2), portion=3)
    assert not result.ok
    assert result.figures.findings == expected
    assert result.figures.violated == len({each.seed for each in expected})


def test_what_raises_is_a_finding_too(monkeypatch):
    def fail(*_):
        raise LookupError("no such thing")

    monkeypatch.setattr(SimulatedClient, "start", fail)
    figures = run_campaign(range(2), **SOLO, executor=Inline()).figures
    assert (figures.schedules, figures.violated) == (2, 2)
    assert figures.findings[0].property.startswith(
        "the simulation raised LookupError: no such thing (test_campaign.py:"
    )


def test_only_the_first_findings_are_kept_and_all_are_counted():
    one, other = (
        Figures(schedules=900, violated=900, findings=[Finding(seed, 4, "x", "") for seed in range(first, 1_800, 2)])
        for first in (0, 1)
    )
    one.add(other)
    assert (one.schedules, one.violated) == (1_800, 1_800)
    assert [each.seed for each in one.findings] == list(range(MOST_FINDINGS))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"replicas": 0}, "4 to 31 replicas, not 0"),
        ({"replicas": 32}, "4 to 31 replicas, not 32"),
        ({"replicas": (4, 3)}, "not 3"),
        ({"replicas": ()}, "no size"),
        ({"engine": "solo", "replicas": 4}, "solo refuses a group of 4"),
        ({"profile": "rain"}, "there is no profile 'rain': say one of calm, "),
        ({"seeds": range(0, 10, 2)}, "one after the other"),
        ({"seeds": range(-1, 10)}, "from 0 on"),
        ({"seeds": range(5, 5)}, "no seed in part 1 of 1 of 5:5"),
        ({"shard": (3, 2)}, "no part 3 of 2"),
        ({"shard": (0, 2)}, "no part 0 of 2"),
        ({"shard": (1, 9)}, "no seed in part 1 of 9 of 0:4"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(how, words):
    executor = Inline()
    with pytest.raises(ConfigurationError, match=words):
        run_campaign(**{"seeds": range(4), "engine": "pbft", "executor": executor, **how})
    assert not executor.portions


def test_an_engine_that_is_not_there_is_refused():
    with pytest.raises(EngineError, match=r"installed: .*solo"):
        run_campaign(range(4), engine="nonsense")


def test_a_worker_that_dies_is_an_error_that_names_the_seeds(tmp_path):
    def kill_one(progress):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    file = tmp_path / "state.json"
    with pytest.raises(CampaignError, match=r"one of the seeds \d+:\d+, \d+:\d+") as caught:
        run_campaign(range(100_000), **SOLO, jobs=2, resume=file, progress=kill_one)
    assert isinstance(caught.value.__cause__, BrokenProcessPool)
    done = json.loads(file.read_text())["figures"]["schedules"]
    assert 0 < done < 100_000
    assert not multiprocessing.active_children()


# --- What a program brings along ---------------------------------------------------------------------------------


class Short(Counter):
    """A counter that forgets its last digit when it is restored."""

    def restore(self, data):
        super().restore(data[:-1] or b"0")


OWN = {
    "engine": msgspec.structs.replace(solo_spec(), name="mine"),
    "replicas": 1,
    "profile": Profile(crashes=4, checkpoint_interval=2, snapshot_positions=4, clients=2),
    "workload": Workload(Short),
}


def test_an_own_engine_machine_and_profile_run_in_any_executor():
    single = [run_schedule(seed, **OWN) for seed in range(12)]
    red = [outcome for outcome in single if not outcome.ok]
    assert red
    here = run_campaign(range(12), **OWN, executor=Inline())
    assert [(each.seed, each.replay) for each in here.figures.findings] == [(each.seed, each.replay) for each in red]
    assert red[0].replay.startswith(f"run_schedule({red[0].seed}, engine=mine, replicas=1, profile=Profile(")
    assert sums(run_campaign(range(12), **OWN, jobs=2)) == sums(here)


def test_what_no_process_could_import_is_refused_before_anything_starts():
    own = {**OWN, "workload": Workload(lambda: Counter())}
    with pytest.raises(ConfigurationError, match=r"cannot be taken to a process: .*an executor of threads"):
        run_campaign(range(2), **own)
    with ThreadPoolExecutor(1) as threads:
        assert run_campaign(range(2), **own, executor=threads).ok
    code = (
        "from bftkit.testing import *\n"
        "class Mine: pass\n"
        "run_campaign(range(2), engine='solo', workload=Workload(Mine), jobs=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "stands in no file that a process could import" in done.stderr


def test_a_file_to_go_on_from_takes_an_own_profile_and_nothing_else(tmp_path):
    file, storm = tmp_path / "state.json", Profile(crashes=2, clients=1)
    for name in ("workload", "engine"):
        own = {"engine": "solo", "replicas": 1, name: OWN[name]}
        with pytest.raises(ConfigurationError, match="cannot hold an engine or a workload of a program's own"):
            run_campaign(range(2), **own, resume=file, executor=Inline())
    assert not file.exists()
    how = {**SOLO, "resume": file, "executor": Inline()}
    run_campaign(range(2), **how, profile=storm)
    assert run_campaign(range(4), **how, profile=storm).figures.schedules == 4
    with pytest.raises(ConfigurationError, match=r"profile was Profile\(crashes=2, clients=1\), not calm"):
        run_campaign(range(4), **how, profile="calm")


# --- Parts, and going on -----------------------------------------------------------------------------------------


@given(st.integers(0, 1_000), st.integers(1, 60), st.integers(1, 9))
def test_parts_lie_side_by_side_and_are_equally_large(start, count, parts):
    seeds = range(start, start + count)
    parts = min(parts, count)
    found = [shard_of(seeds, part, parts) for part in range(1, parts + 1)]
    assert [seed for part in found for seed in part] == list(seeds)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_parts_add_up_to_the_whole():
    whole = run_campaign(range(20), **SOLO, executor=Inline()).figures
    total = Figures()
    for part in (1, 2, 3):
        total.add(run_campaign(range(20), **SOLO, executor=Inline(), shard=(part, 3)).figures)
    whole.cpu_s = total.cpu_s = 0.0
    assert total == whole


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=8), st.integers(0, 30), st.integers(0, 30))
def test_what_is_missing_is_what_was_not_added(wishes, start, count):
    state = CampaignState(Plan("solo", (1,), "all"), "x")
    done: dict[int, bool] = {}
    for first, length in wishes:
        for part in state.missing(range(first, first + length)):
            state.add(part, Figures(schedules=len(part)))
            done.update(dict.fromkeys(part, True))
    assert state.figures.schedules == len(done)
    assert [seed for each in state.done for seed in range(*each)] == sorted(done)
    assert all(one[1] < other[0] for one, other in zip(state.done, state.done[1:], strict=False))
    seeds = range(start, start + count)
    assert [seed for part in state.missing(seeds) for seed in part] == [seed for seed in seeds if seed not in done]


def test_a_campaign_that_was_interrupted_goes_on(tmp_path):
    file = tmp_path / "state.json"
    how = {**SOLO, "profile": "crash", "resume": file, "portion": 2}

    def interrupt(progress):
        if progress.done >= 8:
            raise KeyboardInterrupt

    for executor in (Inline(), None):
        with pytest.raises(KeyboardInterrupt):
            run_campaign(range(30), **how, executor=executor, jobs=2, progress=interrupt)
        assert not multiprocessing.active_children()
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    before = json.loads(file.read_text())
    assert 8 <= before["figures"]["schedules"] < 30
    executor = Inline()
    told = []
    result = run_campaign(range(30), **how, executor=executor, progress=told.append)
    assert sum(executor.portions) == 30 - before["figures"]["schedules"]
    assert told[-1].planned == 30
    assert sums(result) == sums(run_campaign(range(30), **SOLO, profile="crash", executor=Inline()))
    assert sums(run_campaign(range(30), **how, executor=executor)) == sums(result)
    assert sum(executor.portions) == 30 - before["figures"]["schedules"], "all was done already"
    assert run_campaign(range(35), **how, executor=executor).figures.schedules == 35


def test_a_file_of_other_sources_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "state.json"
    run_campaign(range(4), **SOLO, executor=Inline(), resume=file)
    monkeypatch.setattr(program, "digest_of_sources", lambda roots: "changed")
    with pytest.raises(ConfigurationError, match=r"the program has changed: .* sources changed"):
        run_campaign(range(8), **SOLO, executor=Inline(), resume=file)


def test_a_file_of_another_campaign_is_refused(tmp_path):
    file = tmp_path / "state.json"
    run_campaign(range(4, 8), **SOLO, executor=Inline(), resume=file)

    def refusal(seeds=range(4, 8), **changes):
        with pytest.raises(ConfigurationError) as caught:
            run_campaign(seeds, **{**SOLO, "executor": Inline(), "resume": file, **changes})
        return str(caught.value)

    assert "profile was all, not calm" in refusal(profile="calm")
    assert "engine was solo, not pbft" in refusal(engine="pbft", replicas=4)
    assert "seeds 4:8 are done, which are not in 5:9" in refusal(range(5, 9))
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "program": "bftkit 0"}))
    assert "the program has changed: it was begun with bftkit 0, and this is bftkit " in refusal()
    file.write_text(json.dumps({**document, "format": 9}))
    assert "its format is 9" in refusal()
    file.write_text("{}")
    assert "holds no state" in refusal()
    file.unlink()
    file.mkdir()
    assert "cannot be read" in refusal()
    assert "cannot be written" in refusal(resume=tmp_path / "none" / "state.json")


def test_what_nobody_met_is_listed():
    result = run_campaign(range(6), engine="pbft", profile="byzantine", executor=Inline())
    told = {name.removeprefix("byzantine: ") for name in result.figures.faults_hit if name.startswith("byzantine: ")}
    assert set(result.behaviours_hit) == told
    assert set(result.behaviours_hit) | set(result.behaviours_not_hit) == {*BEHAVIOURS, "twins"}
    assert len(result.behaviours_hit) + len(result.behaviours_not_hit) == len(BEHAVIOURS) + 1
    assert set(result.failpoints_not_hit) == set(FAILPOINTS), "this profile arms none"
    alone = run_campaign(range(1), **SOLO, executor=Inline())
    assert (alone.behaviours_hit, alone.behaviours_not_hit) == ((), ()), "nobody may lie"
