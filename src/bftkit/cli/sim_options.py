"""What the verbs of the simulator have in common: options, and how a broken rule is told."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from bftkit.errors import ConfigurationError

if TYPE_CHECKING:
    from bftkit.testing.campaign_state import Finding
    from bftkit.testing.shrink import Case

F = TypeVar("F", bound=Callable[..., Any])

USUAL_ENGINE = "pbft"
USUAL_PROFILE = "all"


def whole_numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read numbers with commas between them."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter("say whole numbers, with commas between them") from None


def profile_option(default: str | None) -> Callable[[F], F]:
    """Add `--profile`."""
    return click.option(
        "--profile",
        default=default,
        show_default=USUAL_PROFILE,
        help="What goes wrong: calm, network, crash, disk, clock, byzantine or all.",
    )


def engine_option(default: str | None) -> Callable[[F], F]:
    """Add `--engine`."""
    return click.option(
        "--engine", default=default, show_default=USUAL_ENGINE, help="An engine that `engine list` shows."
    )


def _settings(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read NAME=VALUE, any number of times."""
    pairs = [value.partition("=") for value in values]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.BadParameter("say NAME=VALUE")
    return tuple((name, value) for name, _, value in pairs)


def settings_option(function: F) -> F:
    """Add `--option`."""
    return click.option(
        "--option",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_settings,
        help="Set an option of the engine; may be said several times.",
    )(function)


def told(findings: "Sequence[Finding]") -> str:
    """Return broken rules as people read them."""
    return "\n".join(
        f"seed {each.seed}, {each.replicas} replicas: {each.property}\n    {each.replay}" for each in findings
    )


def counts(found: Mapping[str, int]) -> str:
    """Return counts as people read them, the largest first."""
    return ", ".join(f"{name} {found[name]:,}" for name in sorted(found, key=lambda each: (-found[each], each)))


def case_options(function: F) -> F:
    """Add what names one schedule: SEED, `--engine`, `--replicas`, `--profile` and `--option`."""
    function = settings_option(profile_option(USUAL_PROFILE)(function))
    function = click.option(
        "--replicas", default=4, show_default=True, type=click.IntRange(1, 31), help="Members of the group."
    )(function)
    function = engine_option(USUAL_ENGINE)(function)
    return click.argument("seed", type=click.IntRange(0))(function)


def case_of(
    seed: int, engine: str, replicas: int, profile: str, settings: tuple[tuple[str, str], ...], file: Path | None
) -> "Case":
    """Return the case of a seed, with every decision that it takes, or the one that a file holds.

    ConfigurationError where the file contradicts what was said on the command line.
    """
    from bftkit.testing.shrink import Case, record_case

    if file is None:
        return record_case(seed, engine=engine, replicas=replicas, profile=profile, settings=settings)[0]
    case = Case.read(file)
    said = {"engine": engine, "replicas": replicas, "profile": profile, "settings": settings}
    held = {"engine": case.engine, "replicas": case.replicas, "profile": case.profile.name, "settings": case.settings}
    if case.seed != seed:
        raise ConfigurationError(f"{file} is about seed {case.seed}, not {seed}")
    for name, value in said.items():
        if _was_said(name) and value != held[name]:
            raise ConfigurationError(f"{file} is about {_in_words(name, held[name])}, not {_in_words(name, value)}")
    return case


def _was_said(parameter: str) -> bool:
    """Say whether whoever runs this command has given a value, beside the default."""
    source = get_current_context().get_parameter_source(parameter)
    return source not in (None, ParameterSource.DEFAULT)


def _in_words(parameter: str, value: Any) -> str:
    if parameter == "settings":
        return f"options {', '.join(f'{name}={each}' for name, each in value)}" if value else "no options"
    return f"{value} replicas" if parameter == "replicas" else f"{parameter} {value}"
