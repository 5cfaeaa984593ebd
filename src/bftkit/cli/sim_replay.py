"""`bftkit sim replay`: one schedule once more, with everything that happened in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from bftkit.cli.main import FINE, UNSAFE
from bftkit.cli.options import emit, json_option
from bftkit.cli.sim_options import case_of, case_options, counts

if TYPE_CHECKING:
    from bftkit.testing.journal import Entry, Journal
    from bftkit.testing.simulation import Outcome


@click.command()
@case_options
@click.option(
    "--decisions",
    default=None,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Follow a case that `sim shrink` wrote, in place of what the seed draws.",
)
@click.option(
    "--trace", default=None, type=click.Path(path_type=Path), help="Write every event here, as lines of JSON."
)
@click.option(
    "--chart", default=None, type=click.Path(path_type=Path), help="Draw who said what to whom here, as HTML."
)
@click.option("--last", default=0, show_default=True, type=click.IntRange(0), help="Show so many of the last events.")
@json_option
def replay(
    seed: int,
    *,
    engine: str,
    replicas: int,
    profile: str,
    settings: tuple[tuple[str, str], ...],
    decisions: Path | None,
    trace: Path | None,
    chart: Path | None,
    last: int,
    as_json: bool,
) -> int:
    """Run the schedule of SEED again, event by event, and say what came of it."""
    from bftkit.testing.chart import instance_names, write_chart
    from bftkit.testing.journal import Journal
    from bftkit.testing.simulation import finish

    case = case_of(seed, engine, replicas, profile, settings, decisions)
    journal = Journal()
    world = case.world(journal)
    outcome = finish(world)
    if trace is not None:
        journal.write(trace)
    if chart is not None:
        write_chart(
            chart,
            journal,
            title=f"{case.engine}, seed {case.seed}, {case.replicas} members",
            violation=outcome.violations[0] if outcome.violations else None,
            names=instance_names(world),
        )
    emit(
        _document(outcome, journal, as_json=as_json),
        _words(outcome, journal.entries[-last:] if last else []),
        as_json=as_json,
    )
    return UNSAFE if outcome.violations else FINE


def _document(outcome: "Outcome", journal: "Journal", *, as_json: bool) -> dict[str, Any]:
    """Return the outcome and the trace as plain values."""
    plain: dict[str, Any] = msgspec.to_builtins(outcome)
    return {**plain, "trace": [msgspec.to_builtins(entry) for entry in journal.entries]} if as_json else plain


def _words(outcome: "Outcome", entries: "list[Entry]") -> str:
    lines = [line_of(entry) for entry in entries]
    profile = outcome.profile
    lines.append(
        f"seed {outcome.seed}: {outcome.engine}, {outcome.replicas} replicas, profile {profile.name}; "
        f"{outcome.events:,} events in {outcome.virtual_ms:,} ms of virtual time, {outcome.commits:,} commits, "
        f"trace {outcome.trace_hash}"
    )
    if outcome.faults_hit:
        lines.append(f"faults: {counts(outcome.faults_hit)}")
    lines += [f"broken: {violation}" for violation in outcome.violations] or ["no rule was broken"]
    return "\n".join(lines)


def line_of(entry: "Entry") -> str:
    """Return one event as a line for people."""
    who = f"n{entry.who}" if entry.kind != "answered" else f"client {entry.who}"
    to = f" -> n{entry.to}" if entry.to is not None else ""
    return f"{entry.at_us / 1_000:12.3f} ms  {who}{to}  {entry.kind} {entry.what} {entry.text}".rstrip()
