"""The settings: what each is called, means and may be, and when a change of it takes effect.

Two files: `genesis.toml` is the same for all members of a group and says what they must agree on before they can agree
on anything; `bftkit.toml` belongs to one node. The meaning of each key stands in its type (see `key`), because
`config explain` and the comments in written files print it.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec

from bftkit.core.epoch import Limits
from bftkit.core.ids import PUBLIC_KEY_BYTES
from bftkit.core.leaders import MAX_WEIGHT

Applies = Literal["restart", "cluster change"]
RESTART: Final = "restart"
"""A change takes effect when the node starts again."""
CLUSTER_CHANGE: Final = "cluster change"
"""All members must share the value. Changing it for a running cluster is not possible yet: a node that differs is
refused by the others, by the name of the key."""

Rule = Callable[[Any], str | None]
"""Says what is wrong with a value of the right type, or None."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_APPLICATION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})")


def key(text: str, applies: Applies, rule: Rule | None = None, **bounds: Any) -> msgspec.Meta:
    """Describe a setting: its meaning in a sentence, when a change applies, a rule, and bounds (`ge`, `le`)."""
    return msgspec.Meta(description=text, extra={"applies": applies, "rule": rule}, **bounds)


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port", with an IPv6 host in brackets; ValueError if it is neither."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise ValueError('an address is "host:port" with a port from 1 to 65535, an IPv6 host in brackets')
    return found[1].strip("[]"), int(found[2])


def _name_rule(value: str) -> str | None:
    if _NAME.fullmatch(value):
        return None
    return "a name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit"


def _application_rule(value: str) -> str | None:
    return None if _APPLICATION.fullmatch(value) else 'an application is named "package.module:Class"'


def _address_rule(value: str) -> str | None:
    try:
        split_address(value)
    except ValueError as error:
        return str(error)
    return None


def _optional_address_rule(value: str) -> str | None:
    return _address_rule(value) if value else None


def _public_key_rule(value: str) -> str | None:
    if re.fullmatch(r"[0-9A-Fa-f]*", value) is None:
        return "a public key is written in hexadecimal digits only"
    if len(value) != 2 * PUBLIC_KEY_BYTES:
        return f"a public key has {2 * PUBLIC_KEY_BYTES} hexadecimal digits, this one has {len(value)}"
    return None


def _power_of_two_rule(value: int) -> str | None:
    if value & (value - 1) == 0:
        return None
    below = 1 << value.bit_length() - 1
    return f"{value} is not a power of two; the nearest are {below} and {2 * below}"


def _workers_rule(value: int) -> str | None:
    return "verifying in worker processes is not possible yet: the only value is 0" if value > 0 else None


def _weight_rule(value: int) -> str | None:
    return f"a member leads at most {MAX_WEIGHT} times as often as another" if value > MAX_WEIGHT else None


def _faults_rule(value: int | None) -> str | None:
    return None if value is None or value >= 0 else "there cannot be fewer than 0 faults"


def _file_rule(value: str) -> str | None:
    return None if value and "\0" not in value else "a path is missing"


LIMITS = Limits()


class ClusterSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[cluster]`: the name of the group and what it runs."""

    id: Annotated[str, key("Name of the cluster; it is part of every signature.", CLUSTER_CHANGE, _name_rule)]
    group: Annotated[int, key("Number of the group inside the cluster.", CLUSTER_CHANGE, ge=0, le=65_535)] = 0
    engine: Annotated[str, key("The consensus engine, by the name that `engine list` shows.", CLUSTER_CHANGE)] = "pbft"
    application: Annotated[
        str, key("The replicated state machine, as package.module:Class.", CLUSTER_CHANGE, _application_rule)
    ] = "bftkit.batteries.kv:KeyValue"
    min_faults: Annotated[
        int | None,
        key(
            "Faults that the group must survive; starting with fewer members is refused.", CLUSTER_CHANGE, _faults_rule
        ),
    ] = None


class LimitsSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[limits]`: bounds that all members must share."""

    max_command_bytes: Annotated[int, key("Longest single command, in bytes.", CLUSTER_CHANGE, ge=1, le=1 << 26)] = (
        LIMITS.max_command_bytes
    )
    max_batch_bytes: Annotated[
        int, key("Longest batch of commands, in bytes.", CLUSTER_CHANGE, ge=1024, le=1 << 27)
    ] = LIMITS.max_batch_bytes
    checkpoint_interval: Annotated[int, key("Positions between two checkpoints.", CLUSTER_CHANGE, ge=1, le=256)] = (
        LIMITS.checkpoint_interval
    )
    max_sessions: Annotated[
        int, key("Client sessions kept; the least recently used one goes first.", CLUSTER_CHANGE, ge=1, le=10_000_000)
    ] = LIMITS.max_sessions
    session_window: Annotated[
        int, key("Commands that one session may have in flight.", CLUSTER_CHANGE, ge=1, le=1 << 24)
    ] = LIMITS.session_window
    session_reply_bytes: Annotated[
        int, key("Results kept for one session, in bytes.", CLUSTER_CHANGE, ge=1024, le=1 << 30)
    ] = LIMITS.session_reply_bytes

    def limits(self) -> Limits:
        """Return the same bounds as the replica takes them."""
        return Limits(**msgspec.structs.asdict(self))


class MemberSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[[members]]`: one voting replica."""

    name: Annotated[str, key("Name of the replica, also in its certificate.", CLUSTER_CHANGE, _name_rule)]
    peer_address: Annotated[str, key("Where other replicas reach it, host:port.", RESTART, _address_rule)]
    client_address: Annotated[str, key("Where clients reach it, host:port.", RESTART, _address_rule)]
    public_key: Annotated[str, key("Its Ed25519 public key, 64 hexadecimal digits.", CLUSTER_CHANGE, _public_key_rule)]
    weight: Annotated[
        int,
        key("How often it leads, relative to others; up to 8.", CLUSTER_CHANGE, _weight_rule, ge=1),
    ] = 1


class GenesisConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`genesis.toml`."""

    cluster: ClusterSection
    engine_options: dict[str, Any] = {}
    """Options of the engine; once loaded, every option is there, with its default where the file is silent."""
    limits: LimitsSection = LimitsSection()
    members: tuple[MemberSection, ...]


class NodeSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[node]`: which replica this is."""

    name: Annotated[str, key("Which of the members this node is.", RESTART, _name_rule)]
    genesis: Annotated[str, key("Path of the genesis file.", RESTART, _file_rule)] = "genesis.toml"
    data: Annotated[str, key("Folder of log and snapshots.", RESTART, _file_rule)] = "data"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], key("Least severe events that are logged.", RESTART)
    ] = "info"


class KeysSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[keys]`: files with keys and certificates. Private ones may be readable by their owner only."""

    consensus: Annotated[str, key("Private key that signs votes.", RESTART, _file_rule)] = "keys/consensus.key"
    tls_key: Annotated[str, key("Private key of the connections.", RESTART, _file_rule)] = "keys/certificate.key"
    tls_certificate: Annotated[str, key("Certificate for connections.", RESTART, _file_rule)] = "keys/certificate.pem"
    authority: Annotated[str, key("Certificate of the cluster's authority.", RESTART, _file_rule)] = (
        "keys/authority.pem"
    )


class RuntimeSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[runtime]`: how this node uses its machine."""

    workers: Annotated[
        int, key("Processes that parse and verify; only 0 yet: the event loop does it.", RESTART, _workers_rule, ge=0)
    ] = 0
    lanes: Annotated[int, key("Inbound queues, a power of two.", RESTART, _power_of_two_rule, ge=1, le=1024)] = 1
    insecure: Annotated[bool, key("Connect without TLS; for tests on one machine only.", RESTART)] = False
    uvloop: Annotated[bool, key("Use uvloop where it is installed.", RESTART)] = True
    outbox_bytes: Annotated[
        int, key("Bytes that may wait for one slow peer; then bulk is dropped.", RESTART, ge=65_536, le=1 << 32)
    ] = 16_777_216


class MetricsSection(msgspec.Struct, frozen=True, kw_only=True):
    """`[metrics]`: what monitoring may read."""

    address: Annotated[
        str, key("Where metrics are served, host:port; empty: nowhere.", RESTART, _optional_address_rule)
    ] = ""


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`bftkit.toml` as it is written; paths are relative to the file."""

    node: NodeSection
    keys: KeysSection = KeysSection()
    runtime: RuntimeSection = RuntimeSection()
    metrics: MetricsSection = MetricsSection()


class KeyDoc(msgspec.Struct, frozen=True):
    """What `config explain` says about one key."""

    key: str
    """Its full name, such as `runtime.lanes`."""
    file: str
    """The file that it stands in."""
    type: str
    """What a value looks like, in words."""
    default: str
    """The value of a file that is silent, in TOML; empty if the key is required or unset."""
    required: bool
    applies: Applies
    text: str
    """What it means."""


def meta_of(annotation: Any) -> msgspec.Meta | None:
    """Return the description that a field's type carries."""
    return next((item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, msgspec.Meta)), None)


def rule_of(annotation: Any) -> Rule | None:
    """Return the rule that a field's type carries."""
    meta = meta_of(annotation)
    return (meta.extra or {}).get("rule") if meta else None
