"""`sim twins`: numbered scenarios or files, one JSON document, and what cannot be played."""

import json
import shlex
from pathlib import Path

import click
import pytest

from bftkit.cli import sim_twins
from bftkit.cli.main import FINE, UNSAFE
from bftkit.cli.sim_twins import twins
from bftkit.errors import EngineError

SCENARIOS = Path(__file__).parents[1] / "scenarios" / "twins"


def play(*arguments: str) -> int:
    code: int = twins.main(list(arguments), prog_name="twins", standalone_mode=False)
    return code


def test_all_scenarios_of_one_view_as_one_document(capsys):
    assert play("--views", "1", "--jobs", "1", "--json") == FINE
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["scenarios"] == document["all_scenarios"] == document["views_reached"] == 20
    assert document["violations"] == []
    assert (document["engine"], document["members"], document["twins"], document["views"]) == ("pbft", 4, 1, 1)
    assert document["range"] == [0, 20]
    assert document["events"] > 1_000
    assert "20 of 20 scenarios, 0 violations" in err


def test_a_range_is_half_open_and_workers_change_nothing(capsys):
    documents = []
    for jobs in ("1", "2"):
        assert play("--views", "2", "--range", "30:110", "--lose", "votes", "--jobs", jobs, "--json") == FINE
        documents.append(json.loads(capsys.readouterr().out))
        assert documents[-1]["jobs"] == int(jobs)
    for document in documents:
        assert document["scenarios"] == 80
        assert document["losses"] == ["votes"]
        for key in ("seconds", "scenarios_per_s", "jobs"):
            del document[key]
    assert documents[0] == documents[1]


def test_more_faulty_members_than_allowed_are_a_violation_with_its_replay(capsys):
    assert play("--views", "1", "--twins", "2", "--jobs", "1", "--json") == UNSAFE
    found = json.loads(capsys.readouterr().out)["violations"]
    assert found
    words = shlex.split(found[0]["replay"])
    assert words[:3] == ["bftkit", "sim", "twins"]
    assert play(*words[3:], "--json") == UNSAFE
    assert json.loads(capsys.readouterr().out)["violations"] == found[:1]
    assert play(*words[3:]) == UNSAFE
    text = capsys.readouterr().out
    assert found[0]["problem"] in text
    assert found[0]["scenario"] in text


def test_progress_says_where_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(sim_twins, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr("bftkit.testing.twins.CHUNK", 4)
    assert play("--views", "1", "--range", "3:15", "--jobs", "1") == FINE
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[2] for line in lines] == [" the rest is --range 7:15", " the rest is --range 11:15", ""]


def test_files_are_played_with_their_trace(capsys):
    path = SCENARIOS / "zyzzyva.txt"
    assert play("--scenario", str(path)) == FINE
    assert capsys.readouterr().out == f"{path}: no violation\n"
    assert play("--scenario", str(path), "--trace", "--json") == FINE
    document = json.loads(capsys.readouterr().out)
    assert document["scenarios"] == 1
    assert document["violations"] == []
    assert any("n0' PrePrepare v0" in line for line in document["played"][0]["trace"])


def test_a_file_that_shows_a_violation_is_told(capsys, tmp_path):
    path = tmp_path / "two-faced.txt"
    path.write_text("members 4\ntwins 2\nleader n0, blocks n0 n1 n2 | n3 n0' n1'\n")
    assert play("--scenario", str(path)) == UNSAFE
    assert "two proposals prepared in view 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--views", "7"], "say with --range"),
        (["--views", "1", "--range", "0:21"], "there are 20 scenarios"),
        (["--range", "5"], "say A:B"),
        (["--range", "7:7"], "say A:B"),
        (["--members", "3"], "takes 4 members at least"),
        (["--members", "12"], "honest members"),
        (["--engine", "solo"], "decides alone"),
        (["--twins", "5"], "are no group"),
    ],
)
def test_what_cannot_be_played_is_wrong_usage(arguments, says):
    with pytest.raises(click.UsageError, match=says):
        play(*arguments)


def test_an_engine_that_is_not_installed_is_named():
    with pytest.raises(EngineError, match="nonsense"):
        play("--engine", "nonsense")


def test_a_file_that_is_no_scenario_is_wrong_usage(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("members 4\n")
    with pytest.raises(click.UsageError, match=r"bad\.txt"):
        play("--scenario", str(path))
