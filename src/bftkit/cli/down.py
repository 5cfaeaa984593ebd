"""`bftkit down`: stop the nodes that `up --detach` started."""

from pathlib import Path

import rich_click as click

from bftkit.cli.options import emit, json_option


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True), default="net")
@json_option
def down(directory: Path, as_json: bool) -> None:
    """Stop the nodes in DIRECTORY that `up` started here, and no other process."""
    from bftkit.bench.processes import stop_recorded

    stopped = stop_recorded(directory)
    emit({"stopped": stopped}, f"stopped {', '.join(stopped)}" if stopped else "nothing was running", as_json=as_json)
