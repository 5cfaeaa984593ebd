"""`bftkit demo`: see a cluster of processes lose its leader and nothing else."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import rich_click as click

from bftkit.cli.main import CHECK_FAILED, FINE, UNSAFE
from bftkit.cli.options import json_option
from bftkit.cli.stopping import ends_on_signals

CODES = {"ok": FINE, "incomplete": CHECK_FAILED, "violated": UNSAFE}
"""The exit code of each verdict."""


class Screen(Protocol):
    """Where the demonstration is told."""

    def tell(self, at: float, text: str) -> None:
        """Write a line about what happened at a time, in seconds from the start."""
        ...

    def show(self, at: float, status: Sequence[dict[str, Any]], rate: float) -> None:
        """Show what the replicas say, and commands per second."""
        ...


@click.command()
@click.option("--engine", default="pbft", show_default=True, help="An engine that `engine list` shows.")
@click.option("--swap", default=None, help="Change to this engine under load; not in this version.")
@click.option("--replicas", default=4, show_default=True, type=click.IntRange(1, 16), help="How many nodes.")
@click.option("--seconds", default=12.0, show_default=True, type=click.FloatRange(8, 600), help="How long it takes.")
@click.option("--no-kill", is_flag=True, help="Let the leader live.")
@json_option
def demo(engine: str, swap: str | None, replicas: int, seconds: float, no_kill: bool, as_json: bool) -> int:
    """Start real processes, put load on them, kill the leader, bring it back, and check what they hold."""
    from bftkit.bench.story import Story, StoryPlan

    live = sys.stdout.isatty() and not as_json
    screen: Any = _live_screen() if live else PlainScreen(sys.stderr if as_json else sys.stdout)
    plan = StoryPlan(engine=engine, replicas=replicas, seconds=seconds, kill=not no_kill)
    with ends_on_signals(), screen if live else nullcontext():
        screen.tell(0.0, f"bftkit demo · {replicas} replicas · engine {engine} · real processes")
        wish = "" if swap is None else f" to {swap}"
        screen.tell(0.0, f"- no swap{wish}: changing the engine of a running cluster is not in this version yet")
        figures = Story(plan, screen.tell, screen.show).run()
        for missing in figures["missing"]:
            screen.tell(figures["seconds"], f"! {missing}")
        screen.tell(figures["seconds"], _verdict(figures))
        screen.tell(figures["seconds"], _measured(figures))
    if as_json:
        import json

        click.echo(json.dumps(figures))
    else:
        click.echo("next: bftkit testnet new ./net · bftkit bench run · README")
    return CODES[figures["verdict"]]


def _verdict(figures: dict[str, Any]) -> str:
    agreeing = f"{figures['agreeing']}/{figures['replicas']} equal state root"
    unknown = f", {figures['unknown']:,} unknown" if figures["unknown"] else ""
    return (
        f"verdict {figures['verdict']}: {figures['committed']:,} commands committed, {figures['lost']:,} lost, "
        f"{figures['duplicated']:,} duplicated{unknown}, {agreeing}"
    )


def _measured(figures: dict[str, Any]) -> str:
    tls = "mTLS" if figures["tls"] else "no TLS"
    fsync = "fsync to disk" if figures["fsync"] else "no fsync to a disk"
    return f"{figures['throughput_tx_s']:,.0f} commands per second · {figures['processes']} processes · {tls} · {fsync}"


class PlainScreen:
    """Lines, for what is not a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def tell(self, at: float, text: str) -> None:
        """Write a line."""
        click.echo(f" t={at:.1f}s  {text}" if at else text, file=self._stream)
        self._stream.flush()

    def show(self, at: float, status: Sequence[dict[str, Any]], rate: float) -> None:
        """Show nothing: a table that changes is for terminals."""


def _live_screen() -> Any:
    from bftkit.cli.live_screen import LiveScreen

    return LiveScreen()
