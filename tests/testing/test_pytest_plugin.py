"""The plugin, as another project uses it: in a process and a folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """\
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path, check_scenario):
    check_scenario(path, "solo")


def test_page(golden):
    golden(Path(__file__).with_name("page.md"), "as it should be")
"""
SCENARIO = "cluster 1\nsubmit a of 0\nrun 2\n----\n"
TRACE = "    0 n0 Durable p1 -> n0\n    1 n0 COMMITS 1 [a]\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["bftkit.testing.pytest_plugin"]\n', encoding="utf-8")
    (tmp_path / "test_all.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "one.txt").write_text(SCENARIO, encoding="utf-8")
    return tmp_path


def run(project: Path, *flags: str) -> str:
    """Run the project's tests, and return what was printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout


def test_what_differs_fails_and_the_flag_writes_it_anew(project):
    first = run(project)
    assert "2 failed" in first
    assert "--rewrite-scenarios writes it anew" in first
    assert (project / "one.txt").read_text(encoding="utf-8") == SCENARIO
    assert "2 passed" in run(project, "--rewrite-scenarios")
    assert (project / "one.txt").read_text(encoding="utf-8") == SCENARIO + TRACE
    assert (project / "page.md").read_text(encoding="utf-8") == "as it should be"
    assert "2 passed" in run(project)
