"""`bftkit sim shrink`: a schedule that breaks a rule, with less and less in it."""

from pathlib import Path

import msgspec
import rich_click as click

from bftkit.cli.main import FINE
from bftkit.cli.options import emit, json_option
from bftkit.cli.progress import progress_of
from bftkit.cli.sim_options import case_of, case_options
from bftkit.cli.stopping import ends_on_signals

SHOWN_DECISIONS = 40
"""Decisions that are shown to people; the file has all of them."""


@click.command()
@case_options
@click.option("--runs", default=600, show_default=True, type=click.IntRange(1), help="Most schedules to try.")
@click.option(
    "--out", default=None, type=click.Path(path_type=Path), help="File for the case; SEED.case.json by default."
)
@json_option
def shrink(
    seed: int,
    *,
    engine: str,
    replicas: int,
    profile: str,
    settings: tuple[tuple[str, str], ...],
    runs: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """Make the schedule of SEED, which breaks a rule, as small as it can be while it still breaks that rule."""
    from bftkit.testing.journal import Journal
    from bftkit.testing.shrink import shrink_case

    case = case_of(seed, engine, replicas, profile, settings, None)
    with ends_on_signals(), progress_of("runs") as show:
        shrunk = shrink_case(
            case, most_runs=runs, progress=lambda done, left: show(done, runs, f"{left:,} decisions left")
        )
    path = out or Path(f"{seed}.case.json")
    shrunk.case.write(path)
    command = f"bftkit sim replay {seed} --decisions {path}"
    small = shrunk.case
    journal = Journal()
    if as_json:
        small.run(journal)
    document = {
        **msgspec.to_builtins(small),
        "settings": msgspec.to_builtins(small.settings),
        "trace": [msgspec.to_builtins(entry) for entry in journal.entries],
        "runs": shrunk.runs,
        "decisions_before": shrunk.decisions_before,
        "file": str(path),
        "replay": command,
    }
    lines = [
        f"  {stream} {what} {where} #{count} = {answer}" for (stream, what, where, count), answer in small.decisions
    ]
    if len(lines) > SHOWN_DECISIONS:
        lines = [*lines[:SHOWN_DECISIONS], f"  and {len(small.decisions) - SHOWN_DECISIONS} more"]
    text = (
        f"{shrunk.decisions_before:,} decisions became {len(small.decisions):,} in {shrunk.runs:,} runs\n"
        + "\n".join(lines)
        + f"\nbroken: {small.violation}\n{command}"
    )
    emit(document, text, as_json=as_json)
    return FINE
