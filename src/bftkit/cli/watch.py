"""`bftkit watch`: what happens in a running cluster, as it happens."""

import time
from pathlib import Path
from typing import Any

import anyio
import rich_click as click

from bftkit.cli.main import FINE, UNREACHABLE
from bftkit.cli.options import cluster_option, emit, json_option, tell
from bftkit.cli.stopping import ends_on_signals

LOOK_EVERY_S = 0.5
"""Pause between two looks at the replicas."""

ROOT_DIGITS = 12
"""How much of a state root is shown."""


@click.command()
@cluster_option
@click.option("--seconds", default=None, type=click.FloatRange(min=0, min_open=True), help="Stop after so long.")
@click.option("--events", default=None, type=click.IntRange(1), help="Stop after so many events.")
@json_option
def watch(*, cluster_path: Path, seconds: float | None, events: int | None, as_json: bool) -> int:
    """Follow a cluster until Ctrl-C: heights, views, replicas that come and go; --json prints one document."""
    if as_json and seconds is None and events is None:
        raise click.UsageError("--json prints one document at the end: say with --seconds or --events when that is")
    watcher = Watcher(quiet=as_json)
    with ends_on_signals():
        try:
            anyio.run(watcher.follow, cluster_path, seconds, events)
        except KeyboardInterrupt:
            tell("stopped")
    if as_json:
        emit({"events": watcher.events, "replicas": list(watcher.known.values())}, "", as_json=True)
    return FINE if watcher.answered else UNREACHABLE


class Watcher:
    """Compares what replicas say with what they said before."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._started = time.monotonic()
        self.known: dict[str, dict[str, Any]] = {}
        """The last answer of each replica."""
        self.height = 0
        """Highest height that any replica has told of."""
        self.events: list[dict[str, Any]] = []
        self._in_vain: dict[str, int] = {}
        """For each replica, how many views it has seen that were not taken by a position each; the most of it."""
        self.answered = False
        """Whether any replica has ever answered."""

    async def follow(self, cluster_path: Path, seconds: float | None, events: int | None) -> None:
        """Look again and again, until the time is over, enough has happened, or nobody answers the first time."""
        from bftkit.runtime.client import Client

        end = self._started + seconds if seconds is not None else None
        async with Client.open(cluster_path, sessions=0) as client:
            while True:
                self.take(await client.status())
                over = end is not None and time.monotonic() >= end
                enough = events is not None and len(self.events) >= events
                if over or enough or not self.answered:
                    return
                await anyio.sleep(LOOK_EVERY_S)

    def take(self, answers: list[dict[str, Any]]) -> None:
        """Note what is new in the answers of all replicas."""
        self.answered = self.answered or any("error" not in answer for answer in answers)
        for answer in answers:
            name = answer["id"]
            before = self.known.get(name)
            self.known[name] = answer
            self._compare(name, before, answer)
        heights = [answer["height"] for answer in answers if answer.get("height") is not None]
        if heights and max(heights) > self.height:
            grown = max(heights) - self.height
            root = next(answer.get("state_root") or "" for answer in answers if answer.get("height") == max(heights))
            self.height = max(heights)
            self._say(
                "committed", "", f"height {self.height} (+{grown}), state {root[:ROOT_DIGITS]}", height=self.height
            )

    def _compare(self, name: str, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
        down, was_down = "error" in after, before is not None and "error" in before
        if down and not was_down:
            self._say("down", name, f"does not answer: {after['error']}")
        elif not down and (before is None or was_down):
            self._in_vain[name] = views_in_vain(after)
            self._say(
                "up", name, f"{after['engine']}, epoch {after['epoch']}, view {after['view']}, height {after['height']}"
            )
        elif not down and self._is_news(name, after):
            self._say("view", name, f"view {after['view']}, led by {after['leader'] or 'nobody'}", view=after["view"])
        elif not down and before is not None and after["epoch"] != before["epoch"]:
            self._say("epoch", name, f"epoch {after['epoch']}, {after['engine']}", epoch=after["epoch"])

    def _is_news(self, name: str, status: dict[str, Any]) -> bool:
        """Say whether a replica's view has changed; where each position takes a view, whether one was in vain."""
        before, in_vain = self._in_vain[name], views_in_vain(status)
        self._in_vain[name] = max(before, in_vain)
        return in_vain > before

    def _say(self, kind: str, name: str, text: str, **fields: Any) -> None:
        at = round(time.monotonic() - self._started, 2)
        self.events.append({"at_s": at, "kind": kind, "id": name or None, "text": text, **fields})
        if not self._quiet:
            click.echo(f"{at:8.2f} s  {kind:<9} {name:<5} {text}")


def views_in_vain(status: dict[str, Any]) -> int:
    """Return how many views a replica has seen, without those of positions where each position takes one."""
    from bftkit.errors import EngineError
    from bftkit.plugins import load_engine

    view: int = status["view"]
    try:
        taken = status.get("position", 0) if load_engine(status["engine"]).view_for_each_position else 0
    except EngineError:  # a cluster may run what is not installed here
        taken = 0
    return view - taken
