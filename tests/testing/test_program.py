"""Which program a campaign runs: any change of a source is another one, and nothing else is."""

from __future__ import annotations

import pytest

from bftkit.errors import EngineError
from bftkit.testing import program
from bftkit.testing.program import digest_of_sources, program_of


def test_a_digest_changes_with_names_and_contents_of_sources_only(tmp_path):
    package = tmp_path / "engine"
    (package / "phases").mkdir(parents=True)
    (package / "state.py").write_text("a = 1\n")
    (package / "phases" / "voting.py").write_text("b = 2\n")
    before = digest_of_sources([package])
    (package / "phases" / "voting.pyc").write_bytes(b"anything")
    assert digest_of_sources([package]) == before
    (package / "state.py").write_text("a = 2\n")
    after = digest_of_sources([package])
    assert after != before
    (package / "state.py").rename(package / "states.py")
    assert digest_of_sources([package]) not in (before, after)
    assert digest_of_sources([package / "states.py"]) != digest_of_sources([package])


def test_the_library_and_the_engines_package_are_looked_at(monkeypatch):
    seen = []
    monkeypatch.setattr(program, "digest_of_sources", lambda roots: seen.append([root.name for root in roots]) or "0f")
    assert program_of("pbft").endswith("sources 0f")
    assert program_of("solo").startswith("bftkit ")
    assert seen == [["bftkit", "bftkit_pbft"], ["bftkit"]]


def test_an_engine_that_is_not_installed_has_no_program():
    with pytest.raises(EngineError, match="not installed"):
        program_of("paxos")
