"""`bftkit sim twins`: faulty members as two instances under one key, through numbered scenarios."""

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import rich_click as click

from bftkit.cli.main import FINE, UNSAFE
from bftkit.cli.options import emit, json_option, tell
from bftkit.cli.sim_options import settings_option
from bftkit.cli.stopping import ends_on_signals

MOST_AT_ONCE = 10_000_000
"""More scenarios than this are played only where a range says which."""

TELL_EVERY_S = 2.0
"""How often progress is told."""

SHOWN = 10
"""Violations that are shown as text; the JSON document has all of them."""


def _range(_: click.Context, __: click.Parameter, value: str | None) -> range | None:
    if value is None:
        return None
    first, colon, beyond = value.partition(":")
    if not (colon and first.isdecimal() and beyond.isdecimal() and int(first) < int(beyond)):
        raise click.BadParameter("say A:B, two whole numbers with A below B; B itself is left out")
    return range(int(first), int(beyond))


@click.command()
@click.option("--engine", default="pbft", show_default=True, help="The engine.")
@click.option("--views", default=3, show_default=True, type=click.IntRange(1), help="Views of a scenario.")
@click.option("--members", default=4, show_default=True, type=click.IntRange(1), help="Members of the group.")
@click.option("--twins", default=None, type=click.IntRange(0), help="Faulty ones among them; as many as it bears.")
@click.option(
    "--lose",
    multiple=True,
    type=click.Choice(["votes", "proposals", "view changes"]),
    help="Messages that a view may lose, besides none; may be said several times.",
)
@click.option("--aimed", is_flag=True, help="Views may also lose them at one instance only.")
@click.option("--restarts", is_flag=True, help="An instance may restart in each view; twins forget everything then.")
@click.option("--seed", default=None, type=int, help="Shuffle the scenarios; without it they come in their order.")
@click.option("--range", "places", metavar="A:B", default=None, callback=_range, help="Only these, without B.")
@click.option("--jobs", default=None, type=click.IntRange(1), help="Processes; as many as there are cores.")
@click.option(
    "--scenario",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Play this file in place of numbered scenarios; may be said several times.",
)
@settings_option
@click.option("--trace", is_flag=True, help="Show what happens in the files.")
@json_option
def twins(
    *,
    engine: str,
    views: int,
    members: int,
    twins: int | None,
    lose: tuple[str, ...],
    aimed: bool,
    restarts: bool,
    seed: int | None,
    places: range | None,
    jobs: int | None,
    files: tuple[Path, ...],
    settings: tuple[tuple[str, str], ...],
    trace: bool,
    as_json: bool,
) -> int:
    """Run an engine through all small scenarios of partitions and leaders, with members that are two under one key.

    Scenarios are numbered: a range plays some of them, and a search that was stopped goes on from there.
    """
    from bftkit.testing.twins import TwinsPlan

    options = _options(engine, settings)
    if files:
        return _play_files(engine, files, options, trace=trace, as_json=as_json)
    if twins is None:
        twins = _most_twins(engine, members)
    losses = ("", *dict.fromkeys(lose))
    plan = TwinsPlan(engine, members, twins, views, losses, aimed, restarts, seed, options)
    problem = plan.problem()
    if problem is not None:
        raise click.UsageError(problem)
    size = plan.space().size
    if places is None and size > MOST_AT_ONCE:
        raise click.UsageError(f"there are {size:,} scenarios: say with --range which of them to play")
    if places is not None and places.stop > size:
        raise click.UsageError(f"there are {size:,} scenarios, and the range ends at {places.stop:,}")
    return _play_numbered(plan, places or range(size), jobs, settings, as_json=as_json)


def _options(engine: str, settings: tuple[tuple[str, str], ...]) -> Any:
    """Return an engine's options, or None where none is set."""
    from bftkit.plugins import load_engine
    from bftkit.testing.specs import scripted_options

    return scripted_options(load_engine(engine), settings) if settings else None


def _most_twins(engine: str, members: int) -> int:
    """Return how many byzantine members an engine bears."""
    from bftkit.core.quorum import FaultModel, Quorum
    from bftkit.plugins import load_engine

    model = load_engine(engine).fault_model
    return Quorum.of(model, members).faults if model is FaultModel.BYZANTINE else 0


# --- Numbered scenarios ---------------------------------------------------------------------------------------------


def _play_numbered(
    plan: Any, places: range, jobs: int | None, settings: tuple[tuple[str, str], ...], *, as_json: bool
) -> int:
    from bftkit.plugins import load_engine
    from bftkit.testing.twins import CHUNK, run_twins
    from bftkit.testing.workers import cores, worker_pool

    workers = min(jobs or cores(), -(-len(places) // CHUNK))
    began = time.monotonic()
    told = _Teller(places, began)
    pool = worker_pool(workers, partial(load_engine, plan.engine)) if workers > 1 else nullcontext()
    with ends_on_signals(), pool as executor:
        result = run_twins(plan, places, executor=executor, progress=told)
    seconds = time.monotonic() - began
    document = {
        "scenarios": result.scenarios,
        "violations": [_finding(plan, settings, violation) for violation in result.violations],
        "engine": plan.engine,
        "options": dict(settings),
        "members": plan.members,
        "twins": plan.twins,
        "views": plan.views,
        "losses": [kind for kind in plan.losses if kind],
        "aimed": plan.aimed,
        "restarts": plan.restarts,
        "seed": plan.seed,
        "range": [places.start, places.stop],
        "all_scenarios": plan.space().size,
        "views_reached": result.views,
        "events": result.events,
        "commits": result.commits,
        "seconds": round(seconds, 3),
        "scenarios_per_s": round(result.scenarios / seconds, 1),
        "jobs": workers,
    }
    emit(document, _words(document), as_json=as_json)
    return UNSAFE if result.violations else FINE


class _Teller:
    """Says on standard error how far a search is, and from where another one could go on."""

    def __init__(self, places: range, began: float) -> None:
        self._places = places
        self._began = self._told = began

    def __call__(self, result: Any, total: int) -> None:
        now = time.monotonic()
        if now - self._told < TELL_EVERY_S and result.scenarios < total:
            return
        self._told = now
        speed = result.scenarios / max(now - self._began, 0.001)
        text = (
            f"{result.scenarios:,} of {total:,} scenarios, {len(result.violations)} violations, {speed:,.0f} a second"
        )
        if result.scenarios < total:
            text += f"; the rest is --range {self._places[result.scenarios]}:{self._places.stop}"
        tell(text)


def _finding(plan: Any, settings: tuple[tuple[str, str], ...], violation: Any) -> dict[str, Any]:
    """Return a violation with the command that shows it again."""
    words = ["bftkit sim twins", f"--engine {plan.engine} --views {plan.views}"]
    words.append(f"--members {plan.members} --twins {plan.twins}")
    words += [f"--lose '{kind}'" for kind in plan.losses if kind]
    words += ["--aimed"] * plan.aimed + ["--restarts"] * plan.restarts
    words += [f"--option {name}={value}" for name, value in settings]
    words.append(f"--range {violation.index}:{violation.index + 1}")
    return {
        "index": violation.index,
        "problem": violation.problem,
        "scenario": violation.scenario,
        "replay": " ".join(words),
    }


def _words(document: dict[str, Any]) -> str:
    found = document["violations"]
    lines = [
        f"{document['scenarios']:,} scenarios of {document['engine']}, {document['views']} views, "
        f"{document['members']} members and {document['twins']} twins: "
        f"{len(found)} violations in {document['seconds']:.1f} s"
    ]
    for each in found[:SHOWN]:
        lines += ["", f"# {each['problem']}", f"# {each['replay']}", each["scenario"].rstrip()]
    if len(found) > SHOWN:
        lines += ["", f"... and {len(found) - SHOWN} more"]
    return "\n".join(lines)


# --- Files ----------------------------------------------------------------------------------------------------------


def _play_files(engine: str, files: tuple[Path, ...], options: Any, *, trace: bool, as_json: bool) -> int:
    from bftkit.testing.twins_play import run_twins_case
    from bftkit.testing.twins_scenarios import parse_scenario

    played, lines = [], []
    for path in files:
        try:
            scenario = parse_scenario(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise click.UsageError(f"{path}: {error}") from None
        case = run_twins_case(engine, scenario, options=options, traced=trace)
        found: dict[str, Any] = {"file": str(path), "problem": case.problem, "events": case.events}
        lines += [*case.trace, f"{path}: {case.problem or 'no violation'}"]
        played.append({**found, "trace": list(case.trace)} if trace else found)
    violations = [each for each in played if each["problem"] is not None]
    document = {"scenarios": len(played), "violations": violations, "engine": engine, "played": played}
    emit(document, "\n".join(lines), as_json=as_json)
    return UNSAFE if violations else FINE
