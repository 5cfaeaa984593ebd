"""What a client's folder holds, and the client made from it.

::

    client/client.toml               name, and where the rest is
    client/genesis.toml              the cluster: members, addresses, engine
    client/keys/signing.key          what commands are signed with: the client's identity
    client/keys/certificate.pem, certificate.key, authority.pem      for TLS
"""

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bftkit.config import GenesisConfig, epoch_config, load_genesis
from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.epoch import EpochConfig, Genesis
from bftkit.core.quorum import Quorum
from bftkit.errors import ConfigurationError
from bftkit.plugins import load_engines
from bftkit.replica.client_messages import client_domain
from bftkit.replica.read_queue import one_answer_is_enough
from bftkit.runtime.client_connector import RemoteConnector
from bftkit.runtime.client_settings import ClientSettings
from bftkit.runtime.credentials import CredentialFiles, read_credentials, read_signing_key
from bftkit.runtime.dialer import connect_client
from bftkit.runtime.session_policy import SessionPolicy
from bftkit.wire.auth import SigningKey
from bftkit.wire.handshake import LocalIdentity

CLIENT_FOLDER = "client"
"""The client's folder in that of a testnet."""
CLIENT_FILE = "client.toml"
SIGNING_KEY_FILE = "signing.key"
ENVELOPE_OVERHEAD_BYTES = 1024
"""What an envelope needs of a batch beside its commands, with room to spare."""


class ClientFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`client.toml`; paths are relative to it."""

    name: str
    """Name in the client's certificate."""
    genesis: str = "genesis.toml"
    keys: str = "keys"
    """Folder of the signing key and the TLS files."""
    insecure: bool = False
    """Connect without TLS; for tests on one machine only."""


def find_client_file(where: Path) -> Path:
    """Return the `client.toml` of a folder or of the testnet around it; ConfigurationError where there is none."""
    for path in (where, where / CLIENT_FILE, where / CLIENT_FOLDER / CLIENT_FILE):
        if path.is_file():
            return path
    raise ConfigurationError(f"there is no {CLIENT_FILE} in {where} or in {where / CLIENT_FOLDER}")


def read_client_file(path: Path) -> ClientFile:
    """Read a `client.toml`; ConfigurationError says what is wrong with it."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), ClientFile)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def cluster_of(where: Path) -> GenesisConfig:
    """Return the genesis that a client's folder, or a testnet's, names."""
    path = find_client_file(where)
    return load_genesis(path.parent / read_client_file(path).genesis, load_engines())


def client_parts(where: Path) -> dict[str, Any]:
    """Return the arguments of `Client` for a folder."""
    path = find_client_file(where)
    file = read_client_file(path)
    engines = load_engines()
    genesis = load_genesis(path.parent / file.genesis, engines)
    config = epoch_config(genesis, engines[genesis.cluster.engine], 0)
    keys = path.parent / file.keys
    key = read_signing_key(keys / SIGNING_KEY_FILE)
    credentials = None if file.insecure else read_credentials(keys)
    limits = genesis.limits
    run_bytes = min(SessionPolicy().run_bytes, limits.max_batch_bytes - ENVELOPE_OVERHEAD_BYTES)
    return {
        "key": key,
        "domain": client_domain(config.cluster, config.group),
        "quorum": Quorum.of(config.fault_model, len(config.members)),
        "connector": _connector(genesis, config, key, file.name, credentials),
        "settings": ClientSettings(
            names=tuple(member.name for member in config.membership().members),
            policy=SessionPolicy(window=limits.session_window, run_bytes=run_bytes),
            max_command_bytes=limits.max_command_bytes,
            one_answer_is_enough=one_answer_is_enough(engines[genesis.cluster.engine]),
        ),
    }


def _connector(
    genesis: GenesisConfig, config: EpochConfig, key: SigningKey, name: str, credentials: CredentialFiles | None
) -> RemoteConnector:
    members = {member.name: member.public_key for member in config.members}
    identity = LocalIdentity(
        cluster=config.cluster,
        role="admin" if credentials is not None and credentials.role == "admin" else "client",
        name=credentials.name if credentials is not None else name,
        key=key,
        nonce=b"",
        genesis=Genesis(config, EMPTY_CHECKPOINT).cluster_digest(),
    )
    addresses = {member.name: member.client_address for member in genesis.members}
    return RemoteConnector(
        [
            partial(
                connect_client,
                addresses[member.name],
                lambda: identity,
                members,
                expected_name=member.name,
                credentials=credentials,
            )
            for member in config.membership().members
        ]
    )
