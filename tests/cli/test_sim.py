"""`bftkit sim`: campaigns, and one schedule once more."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bftkit.cli.main import run
from bftkit.testing import campaign
from bftkit.testing.profile import Profile
from bftkit.testing.shrink import Case


@pytest.fixture
def broken(monkeypatch):
    """A gate that lets everything pass before it is on the disk."""
    from bftkit.replica import gate
    from bftkit.replica.outputs import Append

    monkeypatch.setattr(gate, "_may_pass", lambda output: not isinstance(output, Append))


def document(capsys) -> dict:
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "one document, and nothing else"
    return json.loads(out)


def test_a_campaign_has_the_keys_that_scripts_read(capsys):
    assert (
        run(["sim", "run", "--engine", "pbft", "--seeds", "3:9", "--profile", "network", "--jobs", "1", "--json"]) == 0
    )
    found = document(capsys)
    assert found["schedules"] == 6
    for key in ("events", "commits", "swaps"):
        assert isinstance(found[key], int)
    assert found["events_per_s"] > 0
    assert found["violations"] == []
    assert found["faults_hit"]
    assert "node.after_listen" in found["failpoints_not_hit"]
    assert {"silent", "twins"} <= set(found["behaviours_not_hit"])


def test_a_broken_rule_ends_with_4_and_says_how_to_see_it_again(capsys, broken, monkeypatch):
    real = campaign.run_campaign
    # In this process, where the gate is broken.
    monkeypatch.setattr(campaign, "run_campaign", lambda *a, **k: real(*a, **{**k, "executor": ThreadPoolExecutor(1)}))
    assert run(["sim", "run", "--seeds", "0:1", "--profile", "calm", "--jobs", "1", "--json"]) == 4
    (violation, *_) = document(capsys)["violations"]
    assert violation["seed"] == 0
    assert "before record" in violation["property"]
    assert violation["replay"].startswith("bftkit sim replay 0 ")


def test_a_campaign_that_is_slower_than_asked_for_ends_with_1(capsys):
    command = ["sim", "run", "--engine", "solo", "--seeds", "0:2", "--profile", "calm", "--jobs", "1", "--json"]
    assert run([*command, "--least-events-per-s", "0.001"]) == 0
    assert document(capsys)["violated"] == 0
    assert run([*command, "--least-events-per-s", "1e15"]) == 1
    assert "events/s per core are fewer than 1,000,000,000,000,000" in capsys.readouterr().err
    assert run([*command, "--least-events-per-s", "0"]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sim", "run", "--seeds", "5:5"], "A below B"),
        (["sim", "run", "--seeds", "x"], "A:B"),
        (["sim", "run", "--shard", "3/2", "--seeds", "0:1"], "I/N"),
        (["sim", "run", "--engine", "paxos", "--seeds", "0:1"], "not installed"),
        (["sim", "run", "--profile", "stormy", "--seeds", "0:1"], "no profile"),
        (["sim", "replay", "1", "--profile", "stormy"], "no profile"),
        (["sim", "replay", "1", "--replicas", "32"], "32"),
        (["sim", "replay", "1", "--engine", "solo"], "solo refuses a group of 4"),
        (["sim", "shrink", "1", "--engine", "solo"], "solo refuses a group of 4"),
        (["sim", "replay", "1", "--engine", "pbft", "--replicas", "3"], "has 4 to 31 replicas, not 3"),
        (["sim", "shrink", "1", "--engine", "solo", "--replicas", "1", "--profile", "calm"], "breaks no rule"),
    ],
)
def test_what_cannot_be_run_is_refused_with_2(capsys, arguments, says):
    assert run(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_schedule_is_played_again_with_trace_and_chart(capsys, tmp_path):
    trace, chart = tmp_path / "trace.jsonl", tmp_path / "chart.html"
    assert run(["sim", "replay", "3", "--profile", "network", "--trace", str(trace), "--chart", str(chart)]) == 0
    words = capsys.readouterr().out
    assert "no rule was broken" in words
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {"message", "executes", "timer"} <= {event["kind"] for event in events}
    assert "seed 3" in chart.read_text()
    assert run(["sim", "replay", "3", "--profile", "network", "--json"]) == 0
    found = document(capsys)
    assert len(found["trace"]) == len(events)
    assert found["trace_hash"] in words


def test_a_failing_schedule_is_made_small_and_replays_from_its_file(capsys, tmp_path, broken):
    out = tmp_path / "case.json"
    assert run(["sim", "shrink", "7", "--profile", "network", "--runs", "120", "--out", str(out), "--json"]) == 0
    found = document(capsys)
    assert len(found["decisions"]) < found["decisions_before"]
    assert "starts" in {event["kind"] for event in found["trace"]}
    assert run(["sim", "replay", "7", "--decisions", str(out), "--json"]) == 4
    assert document(capsys)["trace"] == found["trace"]
    assert run(["sim", "replay", "7", "--decisions", str(out), "--last", "5"]) == 4
    assert f"broken: {found['violation']}" in capsys.readouterr().out
    assert run(["sim", "replay", "8", "--decisions", str(out)]) == 2
    assert "is about seed 7" in capsys.readouterr().err
    for contradiction, says in (
        (["--engine", "hotstuff"], "is about engine pbft, not engine hotstuff"),
        (["--replicas", "7"], "is about 4 replicas, not 7 replicas"),
        (["--profile", "calm"], "is about profile network, not profile calm"),
        (["--option", "view_timeout_ms=900"], "is about no options, not options view_timeout_ms=900"),
    ):
        assert run(["sim", "replay", "7", "--decisions", str(out), *contradiction]) == 2
        assert says in capsys.readouterr().err
    assert run(["sim", "replay", "7", "--decisions", str(out), "--engine", "pbft", "--profile", "network"]) == 4


def test_a_file_that_holds_no_case_is_refused(capsys, tmp_path):
    (tmp_path / "no.json").write_text("[]")
    assert run(["sim", "replay", "1", "--decisions", str(tmp_path / "no.json")]) == 2
    assert "holds no case" in capsys.readouterr().err
    Case(1, "solo", 1, Profile(), []).write(tmp_path / "yes.json")
    assert run(["sim", "replay", "1", "--decisions", str(tmp_path / "yes.json")]) == 0


def test_all_verbs_are_there(capsys):
    for verb in ("run", "replay", "shrink", "twins", "mutants"):
        assert run(["sim", verb, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out
