"""The command line: verbs, exit codes, and one JSON document."""

import json
import subprocess
import sys
from typing import Any

import click
import pytest

from bftkit.cli.main import CHECK_FAILED, FINE, UNREACHABLE, UNSAFE, USAGE, Bftkit, cli, run
from bftkit.errors import ConfigurationError, NotReady, OutcomeUnknown, Rejected, SafetyViolation


def test_version_and_help(capsys):
    assert run(["--version"]) == FINE
    assert capsys.readouterr().out.startswith("bftkit ")
    assert run(["--help"]) == FINE
    text = capsys.readouterr().out
    assert all(verb in text for verb in Bftkit.verbs)


def test_every_verb_can_be_loaded_and_explains_itself():
    assert isinstance(cli, Bftkit)
    for verb in Bftkit.verbs:
        command: Any = cli.get_command(click.Context(cli), verb)
        assert command.help, verb
        for name in getattr(command, "commands", {}):
            assert command.commands[name].help, f"{verb} {name}"


@pytest.mark.parametrize("arguments", [["nonsense"], ["bench", "run", "--seconds", "many"], ["demo", "--nonsense"]])
def test_wrong_usage_is_2(arguments, capsys):
    assert run(arguments) == USAGE
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), USAGE),
        (NotReady("x"), UNREACHABLE),
        (OutcomeUnknown(("s", 1)), UNREACHABLE),
        (Rejected("x"), CHECK_FAILED),
        (SafetyViolation("x"), UNSAFE),
    ],
)
def test_errors_become_exit_codes(error, code, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(cli, "main", fail)
    assert run(["engine", "list"]) == code
    assert str(error) in capsys.readouterr().err
    assert run(["engine", "list", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == {"error": str(error), "kind": type(error).__name__}


def test_optimised_python_is_refused():
    done = subprocess.run(
        [sys.executable, "-O", "-c", "from bftkit.cli.main import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == USAGE
    assert "python -O" in done.stderr


def test_the_help_loads_no_event_loop():
    program = "import sys\nfrom bftkit.cli.main import run\nrun(['--version'])\nprint('anyio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_engines_are_listed(capsys):
    assert run(["engine", "list", "--json"]) == FINE
    found = json.loads(capsys.readouterr().out)["engines"]
    listed = {each["name"]: each["fault_model"] for each in found}
    assert {"hotstuff": "byzantine", "pbft": "byzantine"}.items() <= listed.items()
    assert run(["engine", "list"]) == FINE
    assert "pbft" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["submit"], ["query"], ["cluster", "status"]])
def test_a_cluster_is_named_by_its_folder_and_the_help_says_so(capsys, verb):
    assert run([*verb, "--help"]) == 0
    assert "address is not taken yet" in " ".join(capsys.readouterr().out.replace("│", " ").split())
