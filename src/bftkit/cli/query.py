"""`bftkit query`: ask the state machine."""

from pathlib import Path

import anyio
import rich_click as click

from bftkit.cli.options import cluster_option, emit, json_option, timeout_option


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("request", nargs=-1, required=True)
@cluster_option
@timeout_option
@json_option
def query(request: tuple[str, ...], cluster_path: Path, timeout: float, as_json: bool) -> None:
    """Ask a REQUEST in the words of the application, such as: get colour; enough replicas must agree."""
    from bftkit.cli.text import application_of, to_bytes, to_text

    application = application_of(cluster_path)
    result = anyio.run(_query, cluster_path, to_bytes(application, "query_from_text", request), timeout)
    text = to_text(application, result)
    emit({"result": text, "result_hex": result.hex()}, text, as_json=as_json)


async def _query(cluster_path: Path, request: bytes, timeout: float) -> bytes:
    from bftkit.runtime.client import Client

    async with Client.open(cluster_path, sessions=0, open_timeout_s=timeout) as client:
        return await client.query(request, timeout=timeout)
