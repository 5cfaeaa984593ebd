"""What the pages for authors of engines show is run, word for word."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bftkit.testing.conformance import PROPERTIES, conformance_cases
from tests.testing.broken_engines import forgetting

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"# ([\w.]+)\n")
COMMANDS = {"bftkit": [str(Path(sys.executable).with_name("bftkit"))], "pytest": [sys.executable, "-m", "pytest"]}


def test_the_page_about_testing_an_engine(tmp_path: Path) -> None:
    """Its blocks in order: files, which begin with their name, and commands."""
    page = (ROOT / "docs" / "howto" / "test-an-engine.md").read_text(encoding="utf-8")
    environment = {**os.environ, "NO_COLOR": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    files, commands = 0, 0
    for language, text in BLOCK.findall(page):
        named = NAME.match(text)
        if language == "console":
            for line in text.splitlines():
                assert line.startswith("$ ")
                command, *words = shlex.split(line[2:])
                run = [*COMMANDS[command], *words]
                done = subprocess.run(
                    run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
                commands += 1
        elif named is not None:
            (tmp_path / named.group(1)).write_text(text, encoding="utf-8")
            files += 1
        elif language == "text":
            broken = conformance_cases(forgetting(), properties=["restarts"])[0].failure()
            assert str(broken).startswith(text.removesuffix("...\n"))
    assert (files, commands) == (5, 5)
    assert "1 n0 COMMITS 2 [b]" in (tmp_path / "two_batches.txt").read_text(encoding="utf-8")


def run_console(text: str, folder: Path) -> int:
    """Run the commands of a block in order; return how many there were."""
    lines = text.splitlines()
    for line in lines:
        command, *words = shlex.split(line.removeprefix("$ "))
        done = subprocess.run(
            [*COMMANDS[command], *words],
            cwd=folder,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return len(lines)


@pytest.mark.parametrize(
    ("name", "commands"),
    [("run-a-campaign", 7), ("simulate-your-state-machine", 0), ("inject-faults", 0)],
)
def test_a_page_runs_from_its_beginning_to_its_end(name: str, commands: int, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / f"{name}.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    assert sum(run_console(text, tmp_path) for language, text in blocks if language == "console") == commands
    code = "\n".join(text for language, text in blocks if language == "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def install(project: str, folder: Path) -> None:
    """Let what a pyproject.toml says be installed, as far as finding its entry points goes."""
    described = tomllib.loads(project)["project"]
    information = folder / f"{described['name']}-{described['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {described['name']}\nVersion: {described['version']}\n", "utf-8")
    lines = []
    for group, points in described["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")


def test_the_page_about_judging_engines_and_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks in order: parts of files, which begin with their name, and commands when all files are there."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    page = (ROOT / "docs" / "howto" / "judge-engines-and-histories.md").read_text(encoding="utf-8")
    files: dict[str, str] = {}
    consoles = []
    for language, text in BLOCK.findall(page):
        named = NAME.match(text)
        if language == "console":
            consoles.append(text)
        else:
            assert named is not None
            files[named.group(1)] = files.get(named.group(1), "") + text
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    install(files["pyproject.toml"], tmp_path)
    assert sum(run_console(text, tmp_path) for text in consoles) == 3
    for name in ("histories.py", "by_itself.py", "own_faults.py"):
        done = subprocess.run(
            [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_page_of_promises(golden) -> None:
    golden(ROOT / "docs" / "reference" / "engine-promises.md", _promises())


def _promises() -> str:
    lines = [
        "# What engines promise",
        "",
        "`bftkit engine test NAME` and `bftkit.testing.conformance` try these promises on an engine; "
        "see [Test an engine](../howto/test-an-engine.md).",
        "Some are made by engines of one fault model only, and some take a group that can spare a member.",
    ]
    group = ""
    for each in PROPERTIES:
        if each.group != group:
            group = each.group
            lines += [
                "",
                f"## {group.capitalize()}",
                "",
                "| promise | what is promised | fault models |",
                "|---|---|---|",
            ]
        lines.append(f"| `{each.name}` | {each.promise} | {', '.join(each.models)} |")
    return "\n".join(lines) + "\n"
