"""Every check of a change, in four sessions: `uv run nox`, or one of them with `uv run nox -s lint`.

Each session owns a virtual environment below `.nox` that is made from `uv.lock`, never from the index's newest. With a
warm cache that costs a second or two. No interpreter is ever downloaded: one that is missing is skipped, and nox says
so.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests", "package"]

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13"]
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
WHOLE = THIS_PYTHON if THIS_PYTHON in PYTHONS else PYTHONS[0]
"""The interpreter that runs the whole tree of tests: the one that runs nox."""
PURE = ["core", "plugins", "replica", "storage", "wire"]
"""The test folders that the other interpreters run."""

NIGHTLY = "0:10000"
"""Seeds of a campaign when nothing else is said: each engine's schedules of one night, on a few cores."""
SIZES = {"pbft": "4,7", "raft": "3,5", "hotstuff": "4,7"}
"""The groups that a campaign simulates, by engine."""
LARGEST = 31
"""Members of the largest group that is simulated, for a few of the seeds."""

SMOKE = "import bftkit, sys; sys.exit('site-packages' not in bftkit.__file__)"


def synchronize(session: nox.Session) -> None:
    """Make the session's environment equal to the lock file, the project itself included (editable)."""
    where = session.virtualenv.location
    session.run_install(
        *("uv", "sync", "--frozen", "--quiet", f"--python={where}"),
        env={"UV_PROJECT_ENVIRONMENT": where, "UV_PYTHON_DOWNLOADS": "never"},
    )


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check format, rules, imports between layers, and spelling."""
    synchronize(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports", "--no-logo")
    session.run("codespell")


@nox.session(reuse_venv=True)
def typing(session: nox.Session) -> None:
    """Check the types of sources, tests and this file."""
    synchronize(session)
    session.run("mypy", "--strict")


@nox.session(python=PYTHONS, reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Run the tests: all of them on the Python that runs nox, the pure part on the others."""
    synchronize(session)
    paths: list[str] = []
    if session.python != WHOLE:
        session.log(f"pure part only; the whole tree runs on Python {WHOLE}")
        paths = [f"tests/{name}" for name in PURE if (ROOT / "tests" / name).is_dir()]
    session.run("pytest", "-n", "2", "--dist", "worksteal", *(session.posargs or paths))


@nox.session(reuse_venv=False)
def package(session: nox.Session) -> None:
    """Build sdist and wheel, install where no source is in sight, and run the engines' tests against that."""
    temporary = Path(session.create_tmp()).resolve()
    shutil.rmtree(temporary)
    outside = temporary / "outside"
    outside.mkdir(parents=True)
    pins = temporary / "pins.txt"
    session.run_install("uv", "build", "--quiet", "--out-dir", str(temporary / "dist"))
    (wheel,) = (temporary / "dist").glob("*.whl")
    session.run_install(
        *("uv", "export", "--frozen", "--quiet", "--no-emit-project", "--no-hashes", "--output-file", str(pins))
    )
    tools = ["hypothesis", "pytest", "pytest-timeout", "pytest-xdist", "trio", "trustme"]
    session.install("--constraint", str(pins), f"bftkit[cli] @ {wheel.as_uri()}", *tools)
    shutil.copy(ROOT / "pyproject.toml", outside)
    shutil.copytree(ROOT / "tests", outside / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    with session.chdir(outside):
        session.run("python", "-P", "-c", SMOKE)
        session.run("bftkit", "--version")
        session.run("pytest", "-n", "2", "tests/plugins")


@nox.session(reuse_venv=True, default=False)
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches the tests reach."""
    synchronize(session)
    session.run("pytest", "-n", "2", "--cov", "--cov-report=", *session.posargs)
    session.run("coverage", "report")


@nox.session(reuse_venv=True, default=False)
def changelog(session: nox.Session) -> None:
    """Show what the fragments below `changelog.d` would become."""
    synchronize(session)
    session.run("towncrier", "build", "--draft", "--version", "unreleased")


def campaign_runs(seeds: str, options: list[str]) -> dict[str, list[str]]:
    """Return the commands of a campaign by name: schedules of each engine, large groups, twins, mutants."""
    first = int(seeds.partition(":")[0])
    runs = {}
    for engine, sizes in SIZES.items():
        command = ["sim", "run", "--engine", engine, *options]
        runs[engine] = [*command, "--seeds", seeds, "--replicas", sizes]
        runs[f"{engine} of {LARGEST}"] = [*command, "--seeds", f"{first}:{first + 10}", "--replicas", str(LARGEST)]
    for engine in ("pbft", "hotstuff"):
        runs[f"{engine} with twins"] = ["sim", "twins", "--engine", engine, "--views", "3"]
    return {**runs, "mutants": ["sim", "mutants"]}


@nox.session(reuse_venv=True, default=False)
def campaign(session: nox.Session) -> None:
    """Look for broken rules all night: `-- A:B` says which seeds, what follows goes to every `bftkit sim run`."""
    synchronize(session)
    seeds, *options = session.posargs or [NIGHTLY]
    folder = Path(session.create_tmp()).resolve()
    red = []
    for name, words in campaign_runs(seeds, options).items():
        with (folder / f"{name}.json").open("w") as document:
            try:
                session.run("bftkit", *words, "--json", stdout=document, stderr=sys.stderr)
            except CommandFailed:
                red.append(name)
    session.log(f"what came of it stands in {folder}")
    if red:
        session.error(f"not as it ought to be: {', '.join(red)}")
