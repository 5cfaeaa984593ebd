"""Write the files of a new cluster: keys, certificates, genesis, and a folder for each node and for a client.

::

    net/genesis.toml                 what all members agree on (each folder has its copy)
    net/n0/bftkit.toml, n0/keys/     a node: everything it needs, so the folder can be moved to its machine
    net/n0/keys/first-start          says that n0 has never started; its first start removes it
    net/client/client.toml, keys/    a client
    net/authority/                   the private authority that made the certificates; it stays with the operator
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from bftkit.config import (
    GENESIS_FILE,
    NODE_FILE,
    ClusterSection,
    GenesisConfig,
    KeysSection,
    LimitsSection,
    MemberSection,
    NodeFile,
    NodeSection,
    RuntimeSection,
    load_genesis,
    render_genesis,
    render_node,
)
from bftkit.core.engine import EngineSpec
from bftkit.errors import ConfigurationError
from bftkit.plugins import load_engine
from bftkit.runtime.credentials import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    Authority,
    create_authority,
    issue,
    write_authority,
    write_credentials,
    write_signing_key,
)
from bftkit.runtime.first_start import allow_first_start
from bftkit.wire.auth import SigningKey

DEFAULT_BASE_PORT = 27100
"""First port of a testnet: node i uses this one plus 2 i for its peers, and the next for its clients."""
HOST = "127.0.0.1"
CLIENT_NAME = "client"


class NewCluster(msgspec.Struct, frozen=True, kw_only=True):
    """What a new cluster is to be like."""

    replicas: int = 4
    engine: str = "pbft"
    base_port: int = DEFAULT_BASE_PORT
    """0: ports that are free now."""
    application: str = ClusterSection(id="x").application
    cluster_id: str = "testnet"
    options: dict[str, Any] = {}
    """Options of the engine that differ from their defaults."""
    limits: LimitsSection = LimitsSection()
    insecure: bool = False
    """Without TLS; for tests only."""


def write_testnet(directory: Path, cluster: NewCluster) -> GenesisConfig:
    """Write a new cluster into a folder that does not exist or is empty; return its genesis.

    ConfigurationError where the folder is in use, or the cluster could not run.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(f"{directory} exists and is not empty")
    spec = load_engine(cluster.engine)
    if cluster.replicas < spec.min_members:
        raise ConfigurationError(f"{cluster.engine} needs at least {spec.min_members} members, not {cluster.replicas}")
    names = member_names(cluster.replicas)
    keys = {name: SigningKey.generate() for name in names}
    ports = choose_ports(cluster.base_port, 2 * cluster.replicas)
    genesis = GenesisConfig(
        cluster=ClusterSection(id=cluster.cluster_id, engine=cluster.engine, application=cluster.application),
        engine_options=cluster.options,
        limits=cluster.limits,
        members=tuple(
            MemberSection(
                name=name,
                peer_address=f"{HOST}:{ports[2 * index]}",
                client_address=f"{HOST}:{ports[2 * index + 1]}",
                public_key=keys[name].public_key.hex(),
            )
            for index, name in enumerate(names)
        ),
    )
    text = render_genesis(genesis)
    checked = _write_genesis(directory, text, {cluster.engine: spec})
    authority = create_authority(cluster.cluster_id)
    write_authority(authority, _folder(directory / "authority"))
    for name in names:
        _write_node(directory / name, name, keys[name], authority, text, insecure=cluster.insecure)
    _write_client(directory / "client", authority, text, insecure=cluster.insecure)
    return checked


def _write_genesis(directory: Path, text: str, engines: Mapping[str, EngineSpec]) -> GenesisConfig:
    """Write the genesis and read it again as everybody will; what would be refused does not stay."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / GENESIS_FILE
    path.write_text(text, encoding="utf-8")
    try:
        return load_genesis(path, engines)
    except ConfigurationError:
        path.unlink()
        directory.rmdir()
        raise


def member_names(replicas: int) -> list[str]:
    """Return names whose order as text is their order as numbers: n0, n1, and n00 where there are more than ten."""
    width = len(str(max(0, replicas - 1)))
    return [f"n{index:0{width}}" for index in range(replicas)]


def choose_ports(base_port: int, count: int) -> Sequence[int]:
    """Return a row of ports, or for base 0 so many that nobody uses at the moment."""
    if base_port:
        if base_port + count > 65536:
            raise ConfigurationError(f"{count} ports from {base_port} on are more than there are")
        return range(base_port, base_port + count)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def _write_node(
    directory: Path, name: str, key: SigningKey, authority: Authority, genesis: str, *, insecure: bool
) -> None:
    keys = _folder(_folder(directory) / "keys")
    _folder(directory / "data")
    write_signing_key(keys / "consensus.key", key)
    allow_first_start(keys)
    write_credentials(issue(authority, "node", name), keys)
    (directory / GENESIS_FILE).write_text(genesis, encoding="utf-8")
    node = NodeFile(
        node=NodeSection(name=name),
        keys=KeysSection(
            consensus="keys/consensus.key",
            tls_key=f"keys/{CERTIFICATE_KEY_FILE}",
            tls_certificate=f"keys/{CERTIFICATE_FILE}",
            authority=f"keys/{AUTHORITY_FILE}",
        ),
        runtime=RuntimeSection(insecure=insecure),
    )
    (directory / NODE_FILE).write_text(render_node(node), encoding="utf-8")


def _write_client(directory: Path, authority: Authority, genesis: str, *, insecure: bool) -> None:
    keys = _folder(_folder(directory) / "keys")
    write_signing_key(keys / "signing.key", SigningKey.generate())
    write_credentials(issue(authority, "client", CLIENT_NAME), keys)
    (directory / GENESIS_FILE).write_text(genesis, encoding="utf-8")
    lines = [
        "# A client of this cluster; paths are relative to this file.",
        f'name = "{CLIENT_NAME}"',
        f'genesis = "{GENESIS_FILE}"',
        'keys = "keys"',
        "# Connect without TLS; for tests on one machine only.",
        f"insecure = {'true' if insecure else 'false'}",
    ]
    (directory / "client.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
