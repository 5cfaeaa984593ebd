"""Options that several verbs share, and how they print."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CLUSTER = "net"


def cluster_option(function: F) -> F:
    """Add `--cluster`, the folder of a testnet or of a client."""
    return click.option(
        "--cluster",
        "cluster_path",
        envvar="BFTKIT_CLUSTER",
        default=DEFAULT_CLUSTER,
        show_default="$BFTKIT_CLUSTER, else ./net",
        type=click.Path(path_type=Path),
        help="Folder that `testnet new` wrote, or of a client; an address is not taken yet.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(function)


def timeout_option(function: F) -> F:
    """Add `--timeout`."""
    return click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for an answer.")(function)


def emit(document: Any, text: str, *, as_json: bool) -> None:
    """Print a result: the document as JSON, or its text."""
    click.echo(json.dumps(document) if as_json else text)


def tell(text: str) -> None:
    """Say on standard error what is going on."""
    click.echo(text, err=True)
