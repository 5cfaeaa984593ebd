"""`bftkit engine test`: the conformance kit on the command line."""

import json

import pytest

from bftkit.cli.main import CHECK_FAILED, FINE, USAGE, run
from bftkit.testing.conformance import PROPERTIES


def test_an_engine_that_keeps_its_promises(capsys):
    assert run(["engine", "test", "solo", "--seeds", "1", "--json"]) == FINE
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["engine"] == "solo"
    assert document["fault_model"] == "crash"
    assert document["conforms"] is True
    assert document["failures"] == []
    kept = {found["name"]: found for found in document["properties"]}
    assert set(kept) < {each.name for each in PROPERTIES}
    assert kept["restarts"]["kept"] is True
    assert kept["restarts"]["cases"] == 1
    assert "records: restarts" in printed.err


def test_a_part_of_it_as_a_table(capsys):
    arguments = [
        "engine",
        "test",
        "pbft",
        "--property",
        "early",
        "--property",
        "calm",
        "--members",
        "4,5",
        "--seeds",
        "1:3",
    ]
    assert run(arguments) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[:2]] == [
        ["kept", "messages", "early", "2"],
        ["kept", "order", "calm", "4"],
    ]
    assert lines[-1] == "pbft: every promise kept, 6 cases"


def test_a_promise_that_is_broken(capsys):
    arguments = ["engine", "test", "pbft", "--property", "heals", "--members", "4", "--seeds", "5", "--bound-ms", "1"]
    assert run(arguments) == CHECK_FAILED
    text = capsys.readouterr().out
    assert text.startswith("BROKEN  liveness      heals")
    assert "Again: bftkit engine test pbft --property heals --members 4 --seeds 5 --bound-ms 1" in text
    assert text.endswith("pbft: 1 of 1 promises broken, 1 cases\n")
    assert run([*arguments, "--json"]) == CHECK_FAILED
    document = json.loads(capsys.readouterr().out)
    assert document["conforms"] is False
    (failure,) = document["failures"]
    assert (failure["property"], failure["members"], failure["seed"]) == ("heals", 4, 5)
    assert failure["scenario"].startswith("cluster 4 interval=3 seed=5\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nobody"], "is not installed"),
        (["solo", "--property", "perfect"], "no promise is called"),
        (["solo", "--members", "3"], "is tried with 1 members"),
        (["solo", "--seeds", "some"], "whole numbers"),
        (["solo", "--seeds", "3:3"], "no number between"),
        (["solo", "--bound-ms", "0"], "bound-ms"),
    ],
)
def test_what_cannot_be_tried_is_wrong_usage(arguments, reason, capsys):
    assert run(["engine", "test", *arguments]) == USAGE
    assert reason in " ".join(capsys.readouterr().err.replace("│", " ").split())
