"""`bftkit submit`: have one command ordered and executed."""

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import rich_click as click

from bftkit.cli.options import cluster_option, emit, json_option, timeout_option

if TYPE_CHECKING:
    from bftkit.runtime.client import Receipt


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True)
@cluster_option
@timeout_option
@json_option
def submit(command: tuple[str, ...], cluster_path: Path, timeout: float, as_json: bool) -> None:
    """Submit a COMMAND in the words of the application, such as: put colour blue."""
    from bftkit.cli.text import application_of, to_bytes, to_text

    application = application_of(cluster_path)
    receipt = anyio.run(_submit, cluster_path, to_bytes(application, "command_from_text", command), timeout)
    (session_height, session_index), sequence = receipt.command_id
    text = to_text(application, receipt.result)
    document = {
        "height": receipt.height,
        "result": text,
        "result_hex": receipt.result.hex(),
        "certificate": receipt.certificate,
        "command_id": [[session_height, session_index], sequence],
    }
    emit(document, f"{text} (height {receipt.height})", as_json=as_json)


async def _submit(cluster_path: Path, command: bytes, timeout: float) -> "Receipt":
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, open_timeout_s=timeout) as client:
        return await client.submit(command, timeout=timeout)
