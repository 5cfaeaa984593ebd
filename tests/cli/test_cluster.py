"""The table of replicas, and a cluster that is not there."""

import json

from bftkit.cli.cluster import COLUMNS, _table
from bftkit.cli.main import UNREACHABLE, USAGE, run


def test_the_table_shows_who_does_not_answer():
    whole = dict.fromkeys(COLUMNS) | {"id": "n0", "engine": "pbft", "state_root": "cd" * 32, "view": 2}
    lines = _table([whole, {"id": "n1", "error": "no answer in time"}]).splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert lines[1].split()[:4] == ["n0", "pbft", "-", "2"]
    assert lines[2].split(maxsplit=1) == ["n1", "- no answer in time"]


def test_nobody_there_is_unreachable(tmp_path, capsys, monkeypatch):
    assert run(["testnet", "new", str(tmp_path / "net"), "--base-port", "0"]) == 0
    capsys.readouterr()
    for arguments in (
        ["cluster", "status"],
        ["cluster", "explain"],
        ["query", "get", "x"],
        ["submit", "put", "a", "b"],
    ):
        assert run([*arguments, "--cluster", str(tmp_path / "net"), "--timeout", "0.2", "--json"]) == UNREACHABLE
        assert json.loads(capsys.readouterr().out)["kind"] == "NotReady"


def test_no_cluster_is_a_matter_of_configuration(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BFTKIT_CLUSTER", str(tmp_path))
    assert run(["cluster", "status"]) == USAGE
    assert "client.toml" in capsys.readouterr().err
