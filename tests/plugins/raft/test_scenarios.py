"""Golden scenarios: what is done to a group of Raft's engines, and every message that follows.

`pytest --rewrite-scenarios` writes the traces anew, to be read as a difference.
"""

from pathlib import Path

import pytest

FILES = sorted((Path(__file__).resolve().parents[2] / "scenarios" / "raft").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_goes_as_it_is_written(path, check_scenario):
    check_scenario(path, "raft")


def test_there_are_scenarios():
    assert len(FILES) >= 11
