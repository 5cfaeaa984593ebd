"""`bftkit sim mutants`."""

from __future__ import annotations

import json

import pytest

from bftkit.cli import sim_mutants
from bftkit.testing import mutants


def call(*arguments: str) -> int:
    return sim_mutants.mutants.main(list(arguments), standalone_mode=False)


def test_mutants_that_are_found_are_told_as_one_document(capsys):
    assert call("wire: the length of a frame is not looked at", "signing: no low mark", "--jobs", "1", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["mutants"]
    assert [one["name"] for one in found] == ["wire: the length of a frame is not looked at", "signing: no low mark"]
    assert all(one["caught"] is True and one["seconds"] >= 0 for one in found)
    assert "1 of 2" in err


def test_a_survivor_is_a_failed_check(capsys, monkeypatch):
    survivor = mutants.Mutant(
        "mine", "Nothing.", "bftkit.replica.gate:_may_pass", lambda original: lambda output: original(output),
        (mutants.Check(lambda: None),),
    )  # fmt: skip
    monkeypatch.setattr(mutants, "load_mutants", lambda: {"mine": survivor})
    assert call("--jobs", "1") == 1
    assert "SURVIVES" in capsys.readouterr().out


def test_an_unknown_name_is_refused():
    with pytest.raises(Exception, match="there is no mutant 'nobody'"):
        call("nobody")
