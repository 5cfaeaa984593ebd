"""The command `bftkit`: finds the verb, and turns its end into an exit code.

Each verb has a file of its own, which is imported only when that verb is asked for.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, ClassVar

import rich_click as click

from bftkit.errors import (
    BftkitError,
    ConfigurationError,
    EngineError,
    HandshakeRefused,
    NotReady,
    OutcomeUnknown,
    SafetyViolation,
    UnsupportedFormat,
)

FINE = 0
CHECK_FAILED = 1
"""A check failed, or a command was refused."""
USAGE = 2
"""The command line or a configuration cannot be used."""
UNREACHABLE = 3
"""The cluster does not answer."""
UNSAFE = 4
"""Something was lost, done twice, or differs between replicas."""

_CODES: tuple[tuple[type[BftkitError], int], ...] = (
    (SafetyViolation, UNSAFE),
    (ConfigurationError, USAGE),
    (EngineError, USAGE),
    (UnsupportedFormat, USAGE),
    (NotReady, UNREACHABLE),
    (OutcomeUnknown, UNREACHABLE),
    (HandshakeRefused, UNREACHABLE),
)


class LazyGroup(click.RichGroup):
    """A group of verbs that are imported when they are needed."""

    verbs: ClassVar[Mapping[str, str]] = {}
    """The name of each verb, and where it is: "module:attribute"."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names, in the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        place = self.verbs.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(f"bftkit.cli.{module}"), attribute)
        return command


class Bftkit(LazyGroup):
    """All verbs."""

    verbs: ClassVar[Mapping[str, str]] = {
        "demo": "demo:demo",
        "testnet": "testnet:testnet",
        "up": "up:up",
        "down": "down:down",
        "node": "node:node",
        "submit": "submit:submit",
        "query": "query:query",
        "watch": "watch:watch",
        "cluster": "cluster:cluster",
        "engine": "engine:engine",
        "config": "config_check:config",
        "bench": "bench:bench",
        "sim": "sim:sim",
    }


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"bftkit {version('bftkit')}")
        ctx.exit()


@click.group(cls=Bftkit, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Keep replicas agreeing: start clusters, talk to them, measure them."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return the exit code."""
    try:
        code: Any = cli.main(list(arguments), prog_name="bftkit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return CHECK_FAILED
    except BftkitError as error:
        return _explain(error, as_json="--json" in arguments)
    return code if isinstance(code, int) else FINE


def _explain(error: BftkitError, *, as_json: bool) -> int:
    """Say what went wrong on standard error, and in the one JSON document where that was asked for."""
    click.echo(f"bftkit: {error}", err=True)
    if as_json:
        click.echo(json.dumps({"error": str(error), "kind": type(error).__name__}))
    return next((code for kind, code in _CODES if isinstance(error, kind)), CHECK_FAILED)


def main() -> None:
    """Run the command line of this process and exit."""
    if sys.flags.optimize:
        sys.stderr.write("bftkit: python -O leaves out checks that keep replicas safe; run it without\n")
        sys.exit(USAGE)
    sys.exit(run(sys.argv[1:]))
