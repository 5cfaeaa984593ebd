"""The documentation shows the golden scenarios as they are; `pytest --rewrite-scenarios` writes its pages anew."""

from pathlib import Path

import pytest

from bftkit.testing.scenario import scenarios_page

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """\
What is done to a group of members, and every message that follows. The files below `{folder}` are tests:
each is played again on the engine, and must give the same trace. Lines above `----` are commands; those below begin
with the time in milliseconds and the member. {words}
"""
WORDS = {
    "hotstuff": "`r` is a round, `vote v3 by n0 n1 n2` a certificate of its block, names in brackets are batches.",
    "pbft": "`v` is a view, `p` a position, and names in brackets are batches.",
    "raft": "`t` is a term, `p` a position, `r` a leader's round, and names in brackets are batches.",
}
TITLES = {"hotstuff": "HotStuff", "pbft": "PBFT", "raft": "Raft"}


@pytest.mark.parametrize("engine", WORDS)
def test_the_page_of_an_engine(golden, engine):
    files = sorted((ROOT / "tests" / "scenarios" / engine).glob("*.txt"))
    page = ROOT / "docs" / "protocols" / f"{engine}-scenarios.md"
    introduction = INTRODUCTION.format(folder=f"tests/scenarios/{engine}", words=WORDS[engine])
    golden(page, scenarios_page(f"{TITLES[engine]} in scenarios", introduction, files))
