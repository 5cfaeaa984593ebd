"""`bftkit bench`: measure clusters of real processes on this machine."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import rich_click as click

from bftkit.cli.main import FINE, UNSAFE
from bftkit.cli.options import emit, json_option, tell
from bftkit.cli.stopping import ends_on_signals


@click.group()
def bench() -> None:
    """Measure."""


def _numbers(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter("say whole numbers, with commas between them") from None


@bench.command("run")
@click.option("--engine", "engines", default="pbft", show_default=True, help="Engines, with commas between them.")
@click.option("--replicas", default="4", show_default=True, callback=_numbers, help="How many nodes.")
@click.option("--payload", "payloads", default="128", show_default=True, callback=_numbers, help="Bytes of a command.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(1), help="How long each is measured.")
@click.option("--submit", type=click.Choice(["batch", "single"]), default="batch", show_default=True)
@click.option("--outstanding", default=6400, show_default=True, type=click.IntRange(1), help="Commands on their way.")
@click.option("--rate", default=None, type=float, help="Commands due each second: an open loop.")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1), help="Runs of each; the median counts.")
@click.option("--dir", "directory", default=None, type=click.Path(path_type=Path, exists=True), help="Where data goes.")
@json_option
def run(
    *,
    engines: str,
    replicas: list[int],
    payloads: list[int],
    seconds: float,
    submit: Any,
    outstanding: int,
    rate: float | None,
    repeat: int,
    directory: Path | None,
    as_json: bool,
) -> int:
    """Run clusters under load and report throughput, latency and cost, with a verdict on what they hold."""
    from bftkit.bench.machine import environment
    from bftkit.bench.report import is_safe, median_run, table
    from bftkit.bench.run import RunPlan, run_once

    found = environment(directory or Path(tempfile.gettempdir()))
    runs = []
    with ends_on_signals():
        for engine, members, payload in itertools.product(engines.split(","), replicas, payloads):
            plan = RunPlan(
                engine=engine,
                replicas=members,
                payload_bytes=payload,
                submit=submit,
                outstanding=outstanding,
                rate=rate,
                seconds=seconds,
            )
            tell(f"{engine}, {members} replicas, {payload} bytes, {submit}")
            runs.append(median_run([run_once(plan, _show, directory) for _ in range(repeat)]))
    emit({"runs": runs, "environment": found}, f"{table(runs)}\n{_words(found)}", as_json=as_json)
    return FINE if all(map(is_safe, runs)) else UNSAFE


def _show(event: dict[str, Any]) -> None:
    if event["event"] == "progress":
        latency = f"p50 {event['p50'] or 0:.1f} ms   p99 {event['p99'] or 0:.1f} ms"
        tell(f"  {event['throughput_tx_s']:>10,.0f} tx/s   {latency}")


def _words(found: dict[str, Any]) -> str:
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['python']}, {found['file_system']}; "
        "all processes and the load generator share this machine"
    )
