"""A node as files describe it: configuration, keys, genesis, disk, network."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from bftkit.config import NodeConfig, consensus_settings, engine_options, epoch_config, load_node_config
from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.engine import EngineSpec
from bftkit.core.epoch import Genesis
from bftkit.core.ids import canonical
from bftkit.errors import ConfigurationError, EngineError
from bftkit.plugins import installed_engines, load_engine
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.client_port import ClientPort
from bftkit.runtime.clock import Clock, SystemClock
from bftkit.runtime.connection import NetworkTuning
from bftkit.runtime.credentials import CredentialFiles, credential_files, read_signing_key
from bftkit.runtime.first_start import FirstStart
from bftkit.runtime.node_parts import NodeParts
from bftkit.runtime.tcp import TcpTransport
from bftkit.storage.files import FileStorage
from bftkit.wire.auth import SigningKey
from bftkit.wire.handshake import LocalIdentity, digest_settings


class LazyEngines(Mapping[str, EngineSpec]):
    """The installed engines by name; one is imported when somebody looks at it."""

    def __init__(self) -> None:
        self._names = installed_engines()

    def __getitem__(self, name: str) -> EngineSpec:
        if name not in self._names:
            raise KeyError(name)
        return load_engine(name)

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def node_parts(path: str, clock: Clock | None = None) -> NodeParts:
    """Return what a configuration file makes of a node.

    Its certificate is judged and its connections are timed by the clock, or the machine's. ConfigurationError where the
    file, its genesis or its keys cannot be used.
    """
    clock = clock or SystemClock()
    config = load_node_config(path, LazyEngines())
    spec = _engine(config)
    genesis = Genesis(epoch_config(config.genesis, spec, 0), EMPTY_CHECKPOINT)
    membership = genesis.config.membership()
    own = membership.index(config.node.name)
    if own is None:
        raise ConfigurationError(f"{path}: {config.node.name} is no member of the genesis")
    key = read_signing_key(Path(config.keys.consensus))
    if key.public_key != membership.public_key(own):
        raise ConfigurationError(
            f"{config.keys.consensus} is not the key that the genesis names for {config.node.name}"
        )
    credentials = _credentials(config, clock)
    hello = _Hello(config, genesis, key)
    members = {member.name: member.public_key for member in membership.members}
    addresses = {member.name: member for member in config.genesis.members}
    tuning = NetworkTuning(outbox_bytes=config.runtime.outbox_bytes)
    transport = TcpTransport(
        hello,
        addresses[config.node.name].peer_address,
        {name: member.peer_address for name, member in addresses.items() if name != config.node.name},
        members,
        credentials=credentials,
        tuning=tuning,
        clock=clock,
    )
    # Clients have an outbox of their own length: what may wait for a peer is too much for each of a thousand clients.
    address = addresses[config.node.name].client_address
    port = ClientPort(hello, address, members, credentials=credentials, clock=clock)
    data = Path(config.node.data)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return NodeParts(
        settings=ReplicaSettings(own, spec, genesis, engine_options(config.genesis, spec)),
        key=key,
        storage=FileStorage(data),
        transport=transport,
        port=port,
        first_start=FirstStart(Path(config.keys.consensus).parent, data),
        metrics_address=config.metrics.address,
        lanes=config.runtime.lanes,
        clock=clock,
        facts={"insecure": config.runtime.insecure, "tls": not config.runtime.insecure},
    )


def _engine(config: NodeConfig) -> EngineSpec:
    try:
        return load_engine(config.genesis.cluster.engine)
    except EngineError as error:
        raise ConfigurationError(str(error)) from error


def _credentials(config: NodeConfig, clock: Clock) -> CredentialFiles | None:
    if config.runtime.insecure:
        return None
    keys = config.keys
    files = credential_files(
        Path(keys.tls_certificate), Path(keys.tls_key), Path(keys.authority), now=clock.wall_time()
    )
    if (files.cluster_id, files.role, files.name) != (config.genesis.cluster.id, "node", config.node.name):
        raise ConfigurationError(
            f"{keys.tls_certificate} is for {files.role} {files.name} of cluster {files.cluster_id}, "
            f"not for node {config.node.name} of {config.genesis.cluster.id}"
        )
    return files


class _Hello:
    """Says who this node is, in its present epoch."""

    def __init__(self, config: NodeConfig, genesis: Genesis, key: SigningKey) -> None:
        settings = dict(consensus_settings(config.genesis))
        self._identity = LocalIdentity(
            cluster=config.genesis.cluster.id,
            role="peer",
            name=config.node.name,
            key=key,
            nonce=b"",
            genesis=genesis.cluster_digest(),
            epoch=genesis.config.epoch,
            config_digest=sha256(canonical(sorted(settings.items()))).digest(),
            config=digest_settings({name: value.encode() for name, value in settings.items()}),
        )

    def __call__(self) -> LocalIdentity:
        return self._identity
