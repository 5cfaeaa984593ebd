"""`bftkit query`: ask the state machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import rich_click as click

from bftkit.cli.options import cluster_option, emit, json_option, timeout_option

if TYPE_CHECKING:
    from bftkit.runtime.client_reads import Reading


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("request", nargs=-1, required=True)
@click.option("--stale-ok", is_flag=True, help="Take an answer that may be old: what enough replicas hold just now.")
@cluster_option
@timeout_option
@json_option
def query(request: tuple[str, ...], stale_ok: bool, cluster_path: Path, timeout: float, as_json: bool) -> None:
    """Ask a REQUEST in the words of the application, such as: get colour.

    The answer reflects every command that anybody knew to be executed when it was asked.
    """
    from bftkit.cli.text import application_of, to_bytes, to_text

    application = application_of(cluster_path)
    asked = to_bytes(application, "query_from_text", request)
    reading = anyio.run(_query, cluster_path, asked, timeout, stale_ok)
    text = to_text(application, reading.answer)
    document = {
        "height": reading.height,
        "result": text,
        "result_hex": reading.answer.hex(),
        "certificate": None,
        "stale_ok": stale_ok,
    }
    emit(document, text, as_json=as_json)


async def _query(cluster_path: Path, request: bytes, timeout: float, stale_ok: bool) -> "Reading":
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, sessions=0, open_timeout_s=timeout) as client:
        return await client.read(request, timeout=timeout, stale_ok=stale_ok)
