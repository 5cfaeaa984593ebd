"""What `bftkit.testing` exports: each name is explained in the reference, and is what it seems to be."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from bftkit import testing

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "testing-names.md"
INTRODUCTION = (
    "What `from bftkit.testing import ...` gives, below the modules where it stands. How it goes together is shown in",
    "[Test an engine](../howto/test-an-engine.md),",
    "[Simulate your state machine](../howto/simulate-your-state-machine.md), and",
    "[Judge your own engine and your own histories](../howto/judge-engines-and-histories.md).",
)


def first_line(text: str) -> str:
    """Return the first sentence of a docstring on one line."""
    return inspect.cleandoc(text).partition("\n\n")[0].replace("\n", " ")


def explained(name: str, home: str) -> str:
    """Return what the docstring of a name says first; a constant's stands beneath it."""
    value = getattr(testing, name)
    if isinstance(value, type) or inspect.isfunction(value):
        return first_line(value.__doc__ or "")
    body = ast.parse(inspect.getsource(importlib.import_module(f"bftkit.testing.{home}"))).body
    for node, beneath in pairwise(body):
        match node, beneath:
            case (
                ast.Assign(targets=[ast.Name(found)]) | ast.AnnAssign(target=ast.Name(found)),
                ast.Expr(ast.Constant(str(text))),
            ) if found == name:
                return first_line(text)
    return ""


def page() -> str:
    """Return the reference page: every exported name, below the module where it lives."""
    lines = ["# The names of bftkit.testing", "", *INTRODUCTION]
    for home in sorted(set(testing._HOMES.values())):
        module = importlib.import_module(f"bftkit.testing.{home}")
        lines += ["", f"## bftkit.testing.{home}", "", first_line(module.__doc__ or ""), ""]
        lines += ["| name | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {explained(name, home)} |" for name, where in testing._HOMES.items() if where == home]
    return "\n".join(lines) + "\n"


def test_the_reference_says_what_each_name_is(golden):
    unexplained = [name for name, home in testing._HOMES.items() if not explained(name, home)]
    assert unexplained == []
    golden(PAGE, page())


def test_every_name_is_listed_in_each_of_the_three_places():
    assert set(testing._HOMES) == set(testing.__all__)
    imported = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(testing)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bftkit.testing.")
        for alias in node.names
    }
    assert imported == set(testing.__all__)


def test_no_name_is_hidden_by_a_module_of_the_same_name():
    modules = {each.name for each in pkgutil.iter_modules(testing.__path__)}
    assert modules & set(testing.__all__) == set()


def test_importing_the_kit_loads_none_of_it():
    program = "import bftkit.testing, sys; print(*(name for name in sys.modules if name.startswith('bftkit.testing.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
