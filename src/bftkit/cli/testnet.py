"""`bftkit testnet`: write the files of a new cluster."""

from pathlib import Path

import rich_click as click

from bftkit.cli.options import emit, json_option


@click.group()
def testnet() -> None:
    """Make a cluster's files."""


@testnet.command("new")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--replicas", default=4, show_default=True, type=click.IntRange(1, 100), help="How many nodes.")
@click.option("--engine", default="pbft", show_default=True, help="An engine that `engine list` shows.")
@click.option("--base-port", default=None, type=click.IntRange(0, 65535), help="First port; 0: ports that are free.")
@click.option("--application", default=None, help="The state machine, as package.module:Class.")
@click.option("--id", "cluster_id", default="testnet", show_default=True, help="Name of the cluster.")
@json_option
def new(
    directory: Path,
    replicas: int,
    engine: str,
    base_port: int | None,
    application: str | None,
    cluster_id: str,
    as_json: bool,
) -> None:
    """Write keys, certificates and configuration of a new cluster into DIRECTORY."""
    from bftkit.runtime.testnet import DEFAULT_BASE_PORT, NewCluster, write_testnet

    genesis = write_testnet(
        directory,
        NewCluster(
            replicas=replicas,
            engine=engine,
            base_port=DEFAULT_BASE_PORT if base_port is None else base_port,
            application=application or NewCluster().application,
            cluster_id=cluster_id,
        ),
    )
    members = [
        {"id": member.name, "peer_address": member.peer_address, "client_address": member.client_address}
        for member in genesis.members
    ]
    document = {"directory": str(directory), "engine": engine, "replicas": members}
    names = ", ".join(member.name for member in genesis.members)
    text = f"{directory}: {engine}, {names}\nnext: bftkit up {directory}"
    emit(document, text, as_json=as_json)
