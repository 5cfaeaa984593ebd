"""`bftkit node`: run one node in the foreground."""

import sys
from pathlib import Path
from typing import Any

import rich_click as click

from bftkit.cli.main import FINE
from bftkit.errors import ConfigurationError


@click.group()
def node() -> None:
    """Run nodes."""


@node.command("run")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), default="auto", show_default=True)
def run(folder: Path, log_format: str) -> int:
    """Run the node whose configuration is in FOLDER until SIGTERM or Ctrl-C."""
    from bftkit.runtime.node_process import run_node, tell_failure

    log = _logger(log_format)
    try:
        run_node(folder, log)
    except ConfigurationError:
        # Many lines, written for people.
        raise
    except Exception as error:
        return tell_failure(error, log)
    return FINE


def _logger(log_format: str) -> Any:
    """Return a function that logs an event to standard error, for people or for machines."""
    import structlog

    readable = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    logger = structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=[stamp, renderer])

    def log(event: str, *, level: str = "info", **fields: Any) -> None:
        logger.msg(event, level=level, **fields)

    return log
