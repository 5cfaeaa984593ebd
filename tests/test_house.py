"""The rules of STYLE.md that a program can check. Each failure names the place and, where it helps, the way out."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.sets import SetWatch
from tests.house.sources import ROOT, check, engine_packages, product, project, sources, text_files
from tests.house.thresholds import is_threshold

LONGEST_FILE = 500
LONGEST_FUNCTION = 70
FORBIDDEN_NAMES = {"base", "common", "helpers", "misc", "utils"}
EVENT_LOOPS = {"anyio", "asyncio", "cryptography", "ssl", "trio"}
"""What importing a pure package may not load."""
ABOVE = {"mutants", "plugin"}
"""Modules and folders of an engine that the rest of it never imports."""
EXTRAS = {"click", "rich", "rich_click", "structlog", "trio", "uvicorn", "uvloop", "watchfiles"}
"""What `import bftkit` may not load."""
OPTIONAL = EXTRAS | {"dask", "hypothesis", "opentelemetry", "prometheus_client", "pytest", "starlette"}
"""What a package may need and an installation may lack."""


# --- Sizes and names ---------------------------------------------------------------------------------------------


def test_files_are_short():
    lengths = ((source, source.text.count("\n")) for source in sources())
    check(
        (f"{source.name}: {length} lines" for source, length in lengths if length > LONGEST_FILE),
        f"A file has at most {LONGEST_FILE} lines; one that nears the limit is two nouns.",
    )


def test_functions_are_short():
    def too_long() -> Iterator[str]:
        for source in sources():
            for node in ast.walk(source.tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > LONGEST_FUNCTION:
                        yield f"{source.at(node)} {node.name}: {length} lines"

    check(too_long(), f"A function has at most {LONGEST_FUNCTION} lines.")


def test_no_module_is_a_drawer():
    def drawers() -> Iterator[str]:
        for source in sources():
            names = {part.removesuffix(".py").strip("_") for part in source.path.relative_to(ROOT).parts}
            if names & FORBIDDEN_NAMES:
                yield source.name

    check(drawers(), f"No module or package is called {', '.join(sorted(FORBIDDEN_NAMES))}: say what is in it.")


def test_every_public_module_says_what_it_is_for():
    check(
        (
            source.name
            for source in sources()
            if (source.path.name == "__init__.py" or not source.path.name.startswith("_"))
            and (source.is_product or source.text.strip())
            and not ast.get_docstring(source.tree)
        ),
        "Every public module begins with a docstring.",
    )


# --- What product code may not do --------------------------------------------------------------------------------


def test_product_code_asserts_nothing():
    check(
        (
            source.at(node)
            for source in product()
            if not source.package.startswith("bftkit.testing")
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Assert)
        ),
        "Product code raises an error of its own; only `bftkit.testing` asserts.",
    )


def test_only_the_runtime_and_what_stands_on_it_awaits():
    check(
        (
            source.at(node)
            for source in product()
            if source.is_pure or source.package.startswith(("bftkit.wire", "bftkit.storage"))
            for node in ast.walk(source.tree)
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        ),
        "Core, replica, engines, wire and storage are plain functions.",
    )


def test_pure_code_never_iterates_over_a_set():
    check(
        (source.at(node) for source in product() if source.is_pure for node in SetWatch(source.tree).found),
        "The order of a set depends on the hash seed: use a dict, or sorted().",
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("for x in {1, 2}: pass", True),
        ("for x in set(y): pass", True),
        ("z = [x for x in a | {1}]", True),
        ("z = list(frozenset(y))", True),
        ("def f(y: set[int]):\n    for x in y: pass", True),
        ("def f():\n    seen = set()\n    for x in seen: pass", True),
        ("class S:\n    seen: set[int]\ndef f(s):\n    return tuple(s.seen)", True),
        ("for x in sorted({1, 2}): pass", False),
        ("z = any(x for x in set(y))", False),
        ("z = {x for x in set(y)}", False),
        ("for x in {1: 2}: pass", False),
        ("def f(y: list[int]):\n    for x in y: pass", False),
    ],
)
def test_the_watch_for_sets_sees_what_it_should(text, found):
    assert bool(SetWatch(ast.parse(text)).found) is found


def test_thresholds_are_computed_in_one_place():
    check(
        (
            source.at(node)
            for source in product()
            if source.name != "src/bftkit/core/quorum.py"
            for node in ast.walk(source.tree)
            if is_threshold(node)
        ),
        "Quorums and numbers of faults come from `bftkit.core.quorum`.",
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2 * f + 1", True),
        ("self.f + 1", True),
        ("3 * faults", True),
        ("(n - 1) // 3", True),
        ("len(self.members) // 2 + 1", True),
        ("2 * timeout_ms + 1", False),
        ("timeout_ms // 3", False),
        ("n + 1", False),
    ],
)
def test_the_watch_for_thresholds_sees_what_it_should(text, found):
    assert any(is_threshold(node) for node in ast.walk(ast.parse(text))) is found


# --- What importing costs, and what it gives ---------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """Name the top-level modules that a fresh interpreter has loaded after the statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_pure_part_loads_no_event_loop():
    modules = [source.module for source in product() if source.is_pure and not ABOVE & set(source.module.split("."))]
    assert "bftkit.core" in modules
    statement = f"import bftkit.core, {', '.join(modules)}"
    assert not loaded_by(statement) & (EVENT_LOOPS | EXTRAS)


def test_importing_the_library_loads_no_extra():
    assert not loaded_by("import bftkit") & EXTRAS


def test_every_exported_name_exists():
    def missing() -> Iterator[str]:
        for source in product():
            if source.path.name == "__init__.py":
                try:
                    package = importlib.import_module(source.module)
                    names = getattr(package, "__all__", ())
                    absent = [name for name in names if not hasattr(package, name)]
                except ModuleNotFoundError as error:
                    if (error.name or "").partition(".")[0] not in OPTIONAL:
                        raise
                    continue
                yield from (f"{source.name}: {name}" for name in absent)
                yield from (f"{source.name}: {name} twice" for name in set(names) if list(names).count(name) > 1)

    check(missing(), "Every name in `__all__` exists, once.")


# --- What is written ---------------------------------------------------------------------------------------------

# The brackets keep these patterns from finding themselves.
UNWANTED = {
    r"\bissue[s]?\s+#\d": "a number of an issue: say the reason itself",
    r"(?<![\w.])/work[/]": "a path of somebody's machine",
    r"pypi[.]org|pythonhosted[.]org|registry[.][\w-]+[.](?:org|io|com)|index-url[ =]": "a registry's host",
}
MARKERS = re.compile(r"\bTO[D]O\b|\bFIX[M]E\b")
MEASURED_ELSEWHERE = {"uv.lock"}


def test_no_text_mentions_what_only_its_author_can_see():
    def mentions() -> Iterator[str]:
        for path in text_files():
            if path.name in MEASURED_ELSEWHERE:
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            for pattern, why in UNWANTED.items():
                for match in re.finditer(pattern, text, re.IGNORECASE):
                    line = text.count("\n", 0, match.start()) + 1
                    yield f"{path.relative_to(ROOT)}:{line}: {match.group()!r}, {why}"

    check(mentions(), "A text is for every reader.")


def test_nothing_is_left_for_later_in_a_comment():
    check(
        (
            f"{source.name}:{number}"
            for source in sources()
            for number, line in enumerate(source.text.splitlines(), 1)
            if MARKERS.search(line)
        ),
        "Do it, or drop it; plans live outside the source.",
    )


def test_decision_records_have_their_parts():
    def incomplete() -> Iterator[str]:
        seen: dict[str, str] = {}
        for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
            number = path.name[:4]
            if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name):
                yield f"{path.name}: the name is NNNN-words-with-hyphens.md"
            if number in seen:
                yield f"{path.name}: {seen[number]} has the same number"
            seen[number] = path.name
            headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            yield from (
                f"{path.name}: no section '{part}'"
                for part in ("Status", "Context", "Decision", "Consequences")
                if part not in headings
            )

    check(incomplete(), "A decision record follows docs/decisions/0000-template.md.")


def test_changelog_fragments_are_of_a_known_kind():
    kinds = {kind["directory"] for kind in project()["tool"]["towncrier"]["type"]}
    fragments = [path for path in (ROOT / "changelog.d").glob("*") if path.name not in {"README.md", ".gitignore"}]
    check(
        (
            path.name
            for path in fragments
            if not re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(sorted(kinds))})\.md", path.name)
        ),
        f"A fragment is called +words.KIND.md, where KIND is one of {', '.join(sorted(kinds))}.",
    )


# --- What belongs together ---------------------------------------------------------------------------------------


def test_license_is_the_one_that_is_declared():
    declared = project()["project"]
    assert declared["license"] == "Apache-2.0"
    assert declared["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)


def test_every_engine_is_known_to_every_tool():
    settings = project()
    tool = settings["tool"]
    contracts = {contract["id"]: contract for contract in tool["importlinter"]["contracts"]}
    places = {
        "the wheel's packages": [Path(name).name for name in tool["hatch"]["build"]["targets"]["wheel"]["packages"]],
        "the entry points": [where.split(".")[0] for where in settings["project"]["entry-points"]["bftkit"].values()],
        "coverage": tool["coverage"]["run"]["source_pkgs"],
        "importlinter's root packages": tool["importlinter"]["root_packages"],
        "contract pure": contracts["pure"]["source_modules"],
        "contract engines-see-the-core": re.findall(r"\w+", " ".join(contracts["engines-see-the-core"]["layers"])),
        "contract engines-are-strangers": contracts["engines-are-strangers"]["modules"],
        "contract no-engine-by-name": contracts["no-engine-by-name"]["forbidden_modules"],
    }
    check(
        (
            f"{engine} is missing in {where}"
            for engine in engine_packages()
            for where, names in places.items()
            if engine not in names
        ),
        "A new engine is added to each of these places in pyproject.toml.",
    )


def test_the_source_distribution_names_nothing_that_is_not_there():
    names = project()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    missing = [name for name in names if not any(ROOT.glob(name.removeprefix("/")))]
    assert missing == []


def test_the_one_command_of_the_checks_can_be_run():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
