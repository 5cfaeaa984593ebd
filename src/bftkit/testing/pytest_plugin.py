"""A plugin for pytest: golden scenarios, and files that follow from others.

Name it in the `conftest.py` at the root of your tests, `pytest_plugins = ["bftkit.testing.pytest_plugin"]`, or on the
command line, `pytest -p bftkit.testing.pytest_plugin`. It is not loaded by itself: an installed library should not
have a say in the tests of others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bftkit.core.engine import EngineSpec

REWRITE = "--rewrite-scenarios"
"""The flag that writes golden files anew, to be read as a difference."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    group = parser.getgroup("bftkit")
    group.addoption(REWRITE, action="store_true", help="write golden scenarios and the pages made of them anew")


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Callable[[Path, str], None]:
    """Compare a file with the text that it ought to hold; with the flag, write it."""

    def compare(path: Path, expected: str) -> None:
        if pytestconfig.getoption(REWRITE):
            path.write_text(expected, encoding="utf-8")
            return
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        assert found == expected, f"{path} is not what it ought to be; {REWRITE} writes it anew"

    return compare


@pytest.fixture
def check_scenario(golden: Callable[[Path, str], None]) -> Callable[..., None]:
    """Play a scenario file on an engine, given by name or specification, and compare the traces with those in it."""

    def check(path: Path, engine: str | EngineSpec, lies: Mapping[str, Any] | None = None) -> None:
        from bftkit.plugins import load_engine
        from bftkit.testing.scenario import replay_scenario

        spec = load_engine(engine) if isinstance(engine, str) else engine
        golden(path, replay_scenario(path.read_text(encoding="utf-8"), spec, lies))

    return check
