"""`bftkit sim run`: a campaign of schedules on all cores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from bftkit.cli.main import CHECK_FAILED, FINE, UNSAFE
from bftkit.cli.options import emit, json_option, tell
from bftkit.cli.progress import progress_of
from bftkit.cli.sim_options import (
    USUAL_ENGINE,
    USUAL_PROFILE,
    counts,
    engine_option,
    profile_option,
    settings_option,
    told,
    whole_numbers,
)
from bftkit.cli.stopping import ends_on_signals

if TYPE_CHECKING:
    from bftkit.testing.campaign import CampaignResult, Progress

SHOWN_FINDINGS = 20
"""Broken rules that are shown to people; the JSON document has more of them."""


def _seeds(_: click.Context, __: click.Parameter, value: str) -> range:
    first, colon, beyond = value.partition(":")
    if not (colon and first.isdecimal() and beyond.isdecimal() and int(first) < int(beyond)):
        raise click.BadParameter("say A:B with whole numbers, A below B; B itself is not run")
    return range(int(first), int(beyond))


def _shard(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    part, slash, parts = value.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise click.BadParameter("say I/N with whole numbers, I from 1 to N")
    return int(part), int(parts)


@click.command("run")
@engine_option(USUAL_ENGINE)
@click.option("--seeds", default="0:100", show_default=True, callback=_seeds, help="A:B, without B itself.")
@profile_option(USUAL_PROFILE)
@settings_option
@click.option(
    "--replicas",
    default=None,
    show_default="4, or what the engine takes",
    callback=whole_numbers,
    help="Members of the group; several sizes, with commas between them, are dealt round among the seeds.",
)
@click.option("--jobs", default=None, show_default="all cores", type=click.IntRange(1), help="Processes.")
@click.option("--shard", default=None, callback=_shard, help="Run the I-th of N parts of the seeds, as I/N.")
@click.option("--resume", default=None, type=click.Path(path_type=Path), help="File to go on from; begun if missing.")
@click.option(
    "--least-events-per-s",
    "least",
    default=None,
    type=click.FloatRange(min=0, min_open=True),
    help="End with code 1 where one core handles fewer events in a second of its time.",
)
@json_option
def run(
    *,
    engine: str,
    seeds: range,
    profile: str,
    settings: tuple[tuple[str, str], ...],
    replicas: tuple[int, ...] | None,
    jobs: int | None,
    shard: tuple[int, int] | None,
    resume: Path | None,
    least: float | None,
    as_json: bool,
) -> int:
    """Run one schedule for each seed, and tell which rules were broken."""
    from bftkit.testing.campaign import run_campaign

    with ends_on_signals(), progress_of("schedules") as show:

        def on_progress(progress: "Progress") -> None:
            words = f"{progress.events_per_s:,.0f} events/s per core, {progress.violated:,} violated"
            show(progress.done, progress.planned, words)

        result = run_campaign(
            seeds,
            engine=engine,
            replicas=replicas,
            profile=profile,
            settings=settings,
            jobs=jobs,
            shard=shard,
            resume=resume,
            progress=on_progress,
        )
    emit(document_of(result), _words(result), as_json=as_json)
    slow = least is not None and result.events_per_s < least
    if slow:
        tell(f"{result.events_per_s:,.0f} events/s per core are fewer than {least:,.0f}")
    if not result.ok:
        return UNSAFE
    return CHECK_FAILED if slow else FINE


def document_of(result: "CampaignResult") -> dict[str, Any]:
    """Return a campaign's result as plain values."""
    figures = result.figures
    return {
        "engine": result.plan.engine,
        "replicas": list(result.plan.replicas),
        "profile": result.plan.profile,
        "options": dict(result.plan.settings),
        "seeds": list(result.seeds),
        "schedules": figures.schedules,
        "events": figures.events,
        "events_per_s": round(result.events_per_s, 1),
        "violated": figures.violated,
        "violations": msgspec.to_builtins(figures.findings),
        "faults_hit": dict(sorted(figures.faults_hit.items())),
        "failpoints_not_hit": list(result.failpoints_not_hit),
        "behaviours_not_hit": list(result.behaviours_not_hit),
        "commits": figures.commits,
        "swaps": 0,
        "commands": figures.commands,
        "acknowledged": figures.acknowledged,
        "virtual_s": figures.virtual_ms // 1000,
        "counters": dict(sorted(figures.counters.items())),
        "trace_hash": figures.trace_hash,
        "cpu_s": round(figures.cpu_s, 3),
        "elapsed_s": round(result.elapsed_s, 3),
    }


def _words(result: "CampaignResult") -> str:
    plan, figures = result.plan, result.figures
    sizes = " or ".join(map(str, plan.replicas))
    verdict = f"{figures.violated:,} broke a rule" if figures.violated else "no rule was broken"
    lines = [
        f"{figures.schedules:,} schedules of {plan.engine}, {sizes} replicas, profile {plan.profile}: {verdict}",
        f"{figures.events:,} events, {result.events_per_s:,.0f} per second and core; {figures.commits:,} commits, "
        f"{figures.acknowledged:,} commands acknowledged; {result.elapsed_s:.1f} s",
    ]
    if figures.faults_hit:
        lines.append(f"faults: {counts(figures.faults_hit)}")
    if result.failpoints_hit:
        lines.append(f"failpoints never hit: {', '.join(result.failpoints_not_hit) or 'none'}")
    if result.behaviours_hit:
        lines.append(f"lies never told: {', '.join(result.behaviours_not_hit) or 'none'}")
    if figures.findings:
        lines.append(told(figures.findings[:SHOWN_FINDINGS]))
    if figures.violated > SHOWN_FINDINGS:
        lines.append("and more")
    return "\n".join(lines)
