"""The documentation shows the golden scenarios as they are; `pytest --rewrite-scenarios` writes its pages anew."""

from pathlib import Path

from bftkit.testing.scenario import scenarios_page

ROOT = Path(__file__).resolve().parent.parent
PBFT = """\
What is done to a group of members, and every message that follows. The files below `tests/scenarios/pbft` are tests:
each is played again on the engine, and must give the same trace. Lines above `----` are commands; those below begin
with the time in milliseconds and the member. `v` is a view, `p` a position, and names in brackets are batches.
"""
HOTSTUFF = """\
What is done to a group of members, and what follows. The files below `tests/scenarios/hotstuff` are tests:
each is played again on the engine, and must give the same trace. Lines above `----` are commands; those below begin
with the time in milliseconds and the member. `r` is a round, `vote v3 by n0 n1 n2` a certificate for the block of round
3, and names in brackets are batches.
"""


def test_the_page_of_hotstuff(golden):
    files = sorted((ROOT / "tests" / "scenarios" / "hotstuff").glob("*.txt"))
    page = ROOT / "docs" / "protocols" / "hotstuff-scenarios.md"
    golden(page, scenarios_page("HotStuff in scenarios", HOTSTUFF, files))


def test_the_page_of_pbft(golden):
    files = sorted((ROOT / "tests" / "scenarios" / "pbft").glob("*.txt"))
    page = ROOT / "docs" / "protocols" / "pbft-scenarios.md"
    golden(page, scenarios_page("PBFT in scenarios", PBFT, files))
