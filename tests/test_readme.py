"""What the README shows is run, word for word."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    """Return the code blocks that are opened with a language, or with none."""
    parts = README.split("```")
    return [part.partition("\n")[2] for part in parts[1::2] if part.partition("\n")[0] == language]


def test_the_embedding_example_runs() -> None:
    example = _blocks("python")[0]
    code = [line for line in example.splitlines() if line.strip()]
    assert len(code) <= 26
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    height, result = done.stdout.split(maxsplit=1)
    assert int(height) >= 1
    assert result.strip() == "b'5'"


def test_the_simulation_example_runs() -> None:
    _, example = _blocks("python")
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True () {")


def test_the_proofs_run() -> None:
    """The block of commands that prove something, each with less to do."""
    (commands,) = (block for block in _blocks("") if "sim run" in block)
    bftkit = str(Path(sys.executable).with_name("bftkit"))
    less = {
        "0:400": ["0:20"],
        "--views": ["--range", "0:200", "--views"],
        "mutants": ["mutants", "gate: everything may pass"],
    }
    for line in commands.strip().splitlines():
        words = [part for word in shlex.split(line, comments=True) for part in less.get(word, [word])]
        done = subprocess.run(
            [bftkit, *words[1:]], capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.processes
def test_the_commands_run(tmp_path: Path) -> None:
    """The block of commands about a cluster, in order, in an empty folder."""
    (commands,) = (block for block in _blocks("") if "testnet new" in block)
    environment = {**os.environ, "BFTKIT_CLUSTER": "./net", "NO_COLOR": "1"}
    bftkit = str(Path(sys.executable).with_name("bftkit"))
    port = _free_port_range()
    try:
        for line in commands.strip().splitlines():
            words = shlex.split(line)
            assert words[0] == "bftkit"
            if words[1:3] == ["testnet", "new"]:
                words += ["--base-port", str(port)]
            if words[1:3] == ["bench", "run"]:
                words[words.index("--seconds") + 1] = "2"
            done = subprocess.run(
                [bftkit, *words[1:]],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            if words[1] == "query":
                assert "blue" in done.stdout
    finally:
        subprocess.run([bftkit, "down", "./net"], cwd=tmp_path, env=environment, capture_output=True, check=False)


def _free_port_range() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 60_000)
