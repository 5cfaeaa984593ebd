"""`bftkit config`: look at configuration files."""

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from bftkit.cli.main import FINE, USAGE
from bftkit.cli.options import emit, json_option


@click.group()
def config() -> None:
    """Look at configuration files."""


@config.command("check")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def check(paths: tuple[Path, ...], as_json: bool) -> int:
    """Tell everything that is wrong with the files, or those in the folders, PATHS."""
    from bftkit.config import check_files, render
    from bftkit.plugins import load_engines

    problems = check_files(paths, load_engines())
    errors = sum(problem.severity == "error" for problem in problems)
    document: dict[str, Any] = {
        "ok": not errors,
        "errors": errors,
        "problems": [msgspec.structs.asdict(problem) for problem in problems],
    }
    summary = "1 error" if errors == 1 else f"{errors} errors"
    text = "\n".join(part for part in (render(problems), summary if errors else "no errors") if part)
    emit(document, text, as_json=as_json)
    return USAGE if errors else FINE
