"""The table of replicas, and a cluster that is not there."""

import json

from bftkit.cli.cluster import COLUMNS, _table, summary_of
from bftkit.cli.main import UNREACHABLE, USAGE, run


def test_the_table_shows_who_does_not_answer():
    whole = dict.fromkeys(COLUMNS) | {"id": "n0", "engine": "pbft", "state_root": "cd" * 32, "view": 2}
    lines = _table([whole, {"id": "n1", "error": "no answer in time"}]).splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert lines[1].split()[:4] == ["n0", "pbft", "-", "2"]
    assert lines[2].split(maxsplit=1) == ["n1", "- no answer in time"]


def replica(name, **fields):
    return {"id": name, "view": 0, "height": 7, "quorum": 3, "waiting_for": None, **fields}


def gone(name):
    return {"id": name, "error": "connection refused"}


def test_one_line_says_what_keeps_a_cluster():
    four = [replica(f"n{index}") for index in range(4)]
    assert summary_of(four) == "nothing is pending: all are at height 7."
    assert summary_of([*four[:2], gone("n2"), gone("n3")]) == (
        "n2 and n3 do not answer; 2 of 4 replicas are left, and 3 are needed to decide anything."
    )
    behind = summary_of([*four[:2], replica("n2", height=5), gone("n3")])
    assert behind == "n3 does not answer; nothing is pending: heights 5 to 7."
    waiting = [replica("n0", waiting_for="prepares for position 8"), *four[1:]]
    assert summary_of(waiting) == "n0 waits, in view 0, for prepares for position 8."
    apart = [replica("n0", view=3, waiting_for="the new view 3"), *four[1:]]
    assert summary_of(apart) == "the replicas are in different views, 0 and 3: n0 waits."


def test_nobody_there_is_unreachable(tmp_path, capsys, monkeypatch):
    assert run(["testnet", "new", str(tmp_path / "net"), "--base-port", "0"]) == 0
    capsys.readouterr()
    for arguments in (
        ["cluster", "status"],
        ["cluster", "explain"],
        ["query", "get", "x"],
        ["query", "get", "x", "--stale-ok"],
        ["submit", "put", "a", "b"],
    ):
        assert run([*arguments, "--cluster", str(tmp_path / "net"), "--timeout", "0.2", "--json"]) == UNREACHABLE
        assert json.loads(capsys.readouterr().out)["kind"] == "NotReady"


def test_no_cluster_is_a_matter_of_configuration(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BFTKIT_CLUSTER", str(tmp_path))
    assert run(["cluster", "status"]) == USAGE
    assert "client.toml" in capsys.readouterr().err
