"""`testnet new` and `config check`."""

import json
import re

import pytest

from bftkit.cli.main import FINE, USAGE, run


@pytest.fixture
def net(tmp_path, capsys):
    assert run(["testnet", "new", str(tmp_path / "net"), "--base-port", "31000", "--json"]) == FINE
    document = json.loads(capsys.readouterr().out)
    assert [replica["id"] for replica in document["replicas"]] == ["n0", "n1", "n2", "n3"]
    assert document["replicas"][1]["client_address"] == "127.0.0.1:31003"
    return tmp_path / "net"


def test_a_new_cluster_is_in_order(net, capsys):
    assert run(["config", "check", str(net), str(net / "n2")]) == FINE
    assert capsys.readouterr().out == "no errors\n"
    assert run(["config", "check", str(net), "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == {"ok": True, "errors": 0, "problems": []}


def test_a_cluster_is_not_written_over_another(net, capsys):
    assert run(["testnet", "new", str(net)]) == USAGE
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--replicas", "3"], ["--engine", "nonsense"], ["--application", "no-such"], ["--replicas", "0"]],
)
def test_what_cannot_run_is_refused(arguments, tmp_path, capsys):
    assert run(["testnet", "new", str(tmp_path / "net"), *arguments]) == USAGE
    assert capsys.readouterr().err
    assert not (tmp_path / "net").exists()


def test_five_mistakes_are_told_at_once(net, capsys):
    path = net / "n0" / "bftkit.toml"
    text = path.read_text()
    for key, wrong in [
        ("name", 'name = "n9"'),
        ("lanes", "lanes = 7"),
        ("workers", "worker = 0"),
        ("outbox_bytes", 'outbox_bytes = "many"'),
        ("uvloop", "uvloop = 1"),
    ]:
        text, found = re.subn(rf"(?m)^{key} = .*$", wrong, text)
        assert found == 1, key
    path.write_text(text)
    assert run(["config", "check", str(net / "n0"), "--json"]) == USAGE
    document = json.loads(capsys.readouterr().out)
    assert document["errors"] == 5
    assert all(problem["line"] and problem["file"] == str(path) for problem in document["problems"])
    assert run(["config", "check", str(net / "n0")]) == USAGE
    shown = capsys.readouterr().out
    assert shown.count("^") >= 5
    assert 'did you mean "workers"' in shown
    assert shown.endswith("5 errors\n")


def test_a_node_with_mistakes_does_not_start(net, capsys):
    (net / "n1" / "keys" / "consensus.key").chmod(0o644)
    assert run(["node", "run", str(net / "n1")]) == USAGE
    assert "chmod 600" in capsys.readouterr().err
