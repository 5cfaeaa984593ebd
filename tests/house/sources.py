"""The files of the repository, read and parsed once for all rules."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("src", "plugins")


@dataclass(frozen=True)
class Source:
    """One Python file, read and parsed once."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def package(self) -> str:
        """The dotted folder inside its import root: `bftkit.core`, `bftkit_pbft`; elsewhere the folder's name."""
        parts = self.path.relative_to(ROOT).parts
        return ".".join(parts[1:-1]) if parts[0] in PRODUCT else parts[0]

    @property
    def is_product(self) -> bool:
        return self.path.relative_to(ROOT).parts[0] in PRODUCT

    @property
    def module(self) -> str:
        """The dotted name by which product code is imported."""
        return self.package if self.path.name == "__init__.py" else f"{self.package}.{self.path.stem}"

    @property
    def is_pure(self) -> bool:
        """Whether it belongs to the core, the replica or an engine."""
        if not self.is_product:
            return False
        top, _, rest = self.package.partition(".")
        return top != "bftkit" or rest.partition(".")[0] in {"core", "replica"}

    def at(self, node: ast.AST) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 1)}"


@cache
def text_files() -> list[Path]:
    """Every file that is, or is about to be, under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked source distribution
        found = [path for path in ROOT.rglob("*") if not {".venv", ".nox", "__pycache__"} & set(path.parts)]
    return sorted(path for path in found if path.is_file())


@cache
def sources() -> list[Source]:
    found = []
    for path in text_files():
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            found.append(Source(path, text, ast.parse(text, filename=str(path))))
    return found


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def product() -> Iterator[Source]:
    return (source for source in sources() if source.is_product)


def engine_packages() -> list[str]:
    return sorted({source.package.partition(".")[0] for source in sources() if source.name.startswith("plugins/")})


def check(found: Iterable[str], rule: str) -> None:
    """Fail with every offence at once, so that one run shows all there is to do."""
    offences = list(found)
    if offences:
        pytest.fail(f"{rule}\n  " + "\n  ".join(offences), pytrace=False)
