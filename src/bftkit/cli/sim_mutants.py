"""`bftkit sim mutants`: broken variants of the code, which the proving ground must find."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from bftkit.cli.main import CHECK_FAILED, FINE
from bftkit.cli.options import emit, json_option, tell
from bftkit.cli.stopping import ends_on_signals
from bftkit.errors import ConfigurationError

if TYPE_CHECKING:
    from bftkit.testing.mutants import MutantResult

SHOWN = 90
"""Characters of a finding that a table shows."""


def _verdict(result: "MutantResult") -> str:
    """Say what came of a mutant, in a word."""
    if result.caught:
        return "found"
    return "STALE" if result.stale else "SURVIVES"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--jobs", default=None, type=click.IntRange(1), help="Processes; as many as there are cores.")
@json_option
def mutants(names: tuple[str, ...], *, jobs: int | None, as_json: bool) -> int:
    """Break the code on purpose, one rule at a time, and see that each is found: all mutants, or those NAMED."""
    from bftkit.testing.mutants import load_mutants, run_mutants
    from bftkit.testing.workers import cores, worker_pool

    known = load_mutants()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"there is no mutant {unknown[0]!r}; `bftkit sim mutants --json` lists them all")
    count = len(names) or len(known)
    done = 0

    def progress(result: "MutantResult") -> None:
        nonlocal done
        done += 1
        tell(f"{done} of {count}: {result.name}: {_verdict(result)}, {result.seconds:.1f} s")

    jobs = min(jobs or cores(), count)
    with ends_on_signals(), worker_pool(jobs) if jobs > 1 else nullcontext() as pool:
        results = run_mutants(names or None, executor=pool, progress=progress)
    document: dict[str, Any] = {"mutants": [msgspec.to_builtins(result) for result in results]}
    lines = [f"{_verdict(one):<9}{one.seconds:6.1f} s  {one.name:<56} {one.finding[:SHOWN]}" for one in results]
    survivors = sum(not one.caught for one in results)
    lines.append(f"{len(results)} mutants, {survivors} survive")
    emit(document, "\n".join(lines), as_json=as_json)
    return CHECK_FAILED if survivors else FINE
