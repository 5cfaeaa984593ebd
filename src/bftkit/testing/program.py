"""Which program a campaign runs: sums over different programs mean nothing."""

from hashlib import blake2b
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path

from bftkit.errors import EngineError
from bftkit.plugins import ENTRY_POINT_GROUP, load_engine

DIGEST_BYTES = 8
"""Enough to tell the states of one tree apart."""


def program_of(engine: str) -> str:
    """Name the library and an engine: their versions, and a digest of their sources as they are on the disk now.

    EngineError where the engine is not installed.
    """
    digest = digest_of_sources([Path(root) for package in _packages(engine) for root in _roots(package)])
    return f"bftkit {version('bftkit')}, {engine} {load_engine(engine).version}, sources {digest}"


def digest_of_sources(roots: list[Path]) -> str:
    """Return a digest of every Python file in or below some places, in hexadecimal digits."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for root in roots:
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            name, content = path.relative_to(root.parent).as_posix().encode(), path.read_bytes()
            digest.update(b"%d %d " % (len(name), len(content)) + name + content)
    return digest.hexdigest()


def _packages(engine: str) -> list[str]:
    """Return the names of the library's package and the engine's, without repetition."""
    points = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == engine]
    return list(dict.fromkeys(["bftkit", *(point.module.partition(".")[0] for point in points)]))


def _roots(package: str) -> list[str]:
    """Return where a package is: its folder, or its one file."""
    spec = find_spec(package)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise EngineError(f"the sources of {package} are not to be found")
    return list(spec.submodule_search_locations or [spec.origin or ""])
