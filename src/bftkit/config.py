"""Load and check configuration files: every error at once, with file, line, caret and what was probably meant."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bftkit.config_errors import Problem, did_you_mean, render
from bftkit.config_file import ConfigFile, Values, dotted
from bftkit.config_keys import (
    ClusterSection,
    GenesisConfig,
    KeyDoc,
    KeysSection,
    LimitsSection,
    MemberSection,
    MetricsSection,
    NodeFile,
    NodeSection,
    RuntimeSection,
    split_address,
)
from bftkit.config_text import consensus_settings, key_docs, render_genesis, render_node
from bftkit.core.epoch import EpochConfig
from bftkit.core.ids import canonical
from bftkit.core.leaders import weights_problem
from bftkit.core.membership import Member
from bftkit.core.quorum import FaultModel, Quorum, members_needed
from bftkit.errors import ConfigurationError
from bftkit.toml_positions import KeyPath
from bftkit.wire.framing import CAPS, FrameType

__all__ = [
    "ClusterSection",
    "EngineChoice",
    "GenesisConfig",
    "KeyDoc",
    "KeysSection",
    "LimitsSection",
    "MemberSection",
    "MetricsSection",
    "NodeConfig",
    "NodeFile",
    "NodeSection",
    "Problem",
    "RuntimeSection",
    "check_files",
    "consensus_settings",
    "engine_options",
    "epoch_config",
    "key_docs",
    "load_genesis",
    "load_node_config",
    "render",
    "render_genesis",
    "render_node",
    "split_address",
]

NODE_FILE = "bftkit.toml"
"""The name of a node's file in its folder."""
ENVELOPE_BYTES = 256
"""What a client's envelope and the batch around it need beside one command, at most."""
LONGEST_BATCH_BYTES = min(CAPS[FrameType.BODY] - 4096, CAPS[FrameType.REQUEST] - 4096)
"""The longest blob whose frame, with the header of the batch, is within its cap."""
GENESIS_FILE = "genesis.toml"
"""The usual name of the file that all members share."""


class EngineChoice(Protocol):
    """What has to be known about an installed engine; an `EngineSpec` will do."""

    @property
    def fault_model(self) -> FaultModel:
        """What a faulty member may do."""
        ...

    @property
    def options_type(self) -> type[msgspec.Struct]:
        """The Struct that `[engine_options]` is read into."""
        ...

    @property
    def successive_leaders(self) -> Callable[[Any], int]:
        """With given options, how many successive views with live leaders it takes to decide anything."""
        ...


class VersionedEngine(EngineChoice, Protocol):
    """An engine with its version; an `EngineSpec` will do."""

    @property
    def version(self) -> str:
        """The version that members must share."""
        ...


Engines = Mapping[str, EngineChoice]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one node, its group's included, with absolute paths."""

    path: str
    """The file that they come from."""
    node: NodeSection
    keys: KeysSection
    runtime: RuntimeSection
    metrics: MetricsSection
    genesis: GenesisConfig
    warnings: tuple[Problem, ...] = ()
    """What deserves a look and does not keep the node from starting."""


def load_node_config(path: str | Path, engines: Engines) -> NodeConfig:
    """Read a node's file and the genesis that it names, and check both.

    Raises:
        ConfigurationError: with every problem in `problems`, and all of them rendered as its message.
    """
    problems: list[Problem] = []
    config = _read_node(Path(path), engines, problems)
    _raise_errors(problems)
    if config is None:
        raise ConfigurationError(f"{path} was not read, and nobody said why")
    return msgspec.structs.replace(config, warnings=tuple(problems))


def load_genesis(path: str | Path, engines: Engines) -> GenesisConfig:
    """Read and check a genesis file.

    Raises:
        ConfigurationError: with every problem in `problems`, and all of them rendered as its message.
    """
    problems: list[Problem] = []
    genesis = _read_genesis(Path(path), engines, problems)
    _raise_errors(problems)
    if genesis is None:
        raise ConfigurationError(f"{path} was not read, and nobody said why")
    return genesis


def check_files(paths: Sequence[str | Path], engines: Engines) -> list[Problem]:
    """Return what is wrong with these files; a folder stands for the configuration files in it and just below it."""
    problems: list[Problem] = []
    for path in map(Path, paths):
        if not path.is_dir():
            _check_file(path, engines, problems)
            continue
        found = [path / GENESIS_FILE, path / NODE_FILE, *sorted(path.glob(f"*/{NODE_FILE}"))]
        present = [file for file in found if file.is_file()]
        for file in present:
            _check_file(file, engines, problems)
        if not present:
            message = f"there is no {NODE_FILE} and no {GENESIS_FILE} in this folder"
            problems.append(Problem(file=str(path), message=message))
    return list(dict.fromkeys(problems))


def engine_options(genesis: GenesisConfig, engine: EngineChoice) -> Any:
    """Return the options of the engine as its own Struct.

    Raises:
        ConfigurationError: the options are not those of this engine.
    """
    try:
        return msgspec.convert(genesis.engine_options, engine.options_type)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"engine options: {error}") from error


def epoch_config(genesis: GenesisConfig, engine: VersionedEngine, epoch: int) -> EpochConfig:
    """Return the configuration of an epoch that runs by this genesis file."""
    return EpochConfig(
        cluster=genesis.cluster.id,
        group=genesis.cluster.group,
        epoch=epoch,
        engine=genesis.cluster.engine,
        engine_version=engine.version,
        fault_model=engine.fault_model,
        options=canonical(engine_options(genesis, engine)),
        members=tuple(
            Member(member.name, bytes.fromhex(member.public_key), member.weight) for member in genesis.members
        ),
        limits=genesis.limits.limits(),
    )


def _raise_errors(problems: Sequence[Problem]) -> None:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise ConfigurationError(render(problems), problems)


def _errors(problems: Sequence[Problem]) -> int:
    return sum(problem.severity == "error" for problem in problems)


def _check_file(path: Path, engines: Engines, problems: list[Problem]) -> None:
    probe: list[Problem] = []
    content = ConfigFile(path, probe).content
    if "members" in content or "cluster" in content or (not content and path.name == GENESIS_FILE):
        _read_genesis(path, engines, problems)
    else:
        _read_node(path, engines, problems)


def _read_genesis(path: Path, engines: Engines, problems: list[Problem]) -> GenesisConfig | None:
    before = _errors(problems)
    file = ConfigFile(path, problems)
    if not file.is_readable:
        return None
    values = file.table((), file.content, GenesisConfig)
    cluster, limits = values.get("cluster", {}), {**_DEFAULT_LIMITS, **values.get("limits", {})}
    values["engine_options"] = _check_engine(file, cluster, engines)
    members = values.get("members", [])
    _check_duplicates(file, members)
    engine = engines.get(cluster.get("engine", _DEFAULT_ENGINE))
    if engine is not None and "members" in values:
        _check_quorum(file, len(members), engine.fault_model, cluster.get("min_faults"))
        if _errors(problems) == before:
            _check_weights(file, members, engine, values["engine_options"])
    for name, message in limits_problems(limits["max_command_bytes"], limits["max_batch_bytes"]):
        file.note(("limits", name), message)
    return msgspec.convert(values, GenesisConfig) if _errors(problems) == before else None


def limits_problems(max_command_bytes: int, max_batch_bytes: int) -> list[tuple[str, str]]:
    """Return what no frame or batch could hold under these limits: pairs of a limit's name and a message."""
    problems: list[tuple[str, str]] = []
    if max_batch_bytes > LONGEST_BATCH_BYTES:
        message = f"a batch travels in one frame: at most {LONGEST_BATCH_BYTES} bytes"
        problems.append(("max_batch_bytes", message))
    if max_command_bytes + ENVELOPE_BYTES > min(max_batch_bytes, LONGEST_BATCH_BYTES):
        message = f"the longest command does not fit into the longest batch with its envelope of {ENVELOPE_BYTES} bytes"
        problems.append(("max_command_bytes", message))
    return problems


_DEFAULT_LIMITS = msgspec.structs.asdict(LimitsSection())
_DEFAULT_ENGINE = ClusterSection(id="x").engine


def _check_engine(file: ConfigFile, cluster: Values, engines: Engines) -> Values:
    """Check the engine's name and options; return all its options, defaults included."""
    name = cluster.get("engine", _DEFAULT_ENGINE)
    if name not in engines:
        hint = did_you_mean(name, engines) or "no engine is installed"
        file.note(("cluster", "engine"), f'the engine "{name}" is not installed', hint)
        return {}
    options_type = engines[name].options_type
    before = _errors(file.problems)
    found = file.table(("engine_options",), file.content.get("engine_options", {}), options_type)
    if _errors(file.problems) > before:
        return {}
    try:
        options: Values = msgspec.to_builtins(msgspec.convert(found, options_type))
    except msgspec.ValidationError as error:
        reason = str(error).removesuffix(" - at `$`")
        place: KeyPath = ("engine_options",)
        # An engine's own check speaks of a value in words; if it names one of the keys, the caret goes there.
        named = [key for key in found if re.search(rf"\b{re.escape(key)}\b", reason)]
        file.note((*place, named[0]) if named else place, f"the engine refuses its options: {reason}")
        return {}
    return {key: value for key, value in options.items() if value is not None}


def _check_duplicates(file: ConfigFile, members: Sequence[Values]) -> None:
    """Refuse two members with one name, key or address."""
    for words, keys, normal in _UNIQUE:
        seen: dict[str, KeyPath] = {}
        for path, value in _member_values(members, keys):
            first = seen.setdefault(normal(value), path)
            if first != path:
                line = file.positions.value(first).line
                file.note(path, f'{words} "{value}" is used twice', f"it is already {dotted(first)} on line {line}")


_UNIQUE: tuple[tuple[str, tuple[str, ...], Callable[[str], str]], ...] = (
    ("the name", ("name",), str),
    ("the public key", ("public_key",), str.lower),
    ("the address", ("peer_address", "client_address"), str.lower),
)


def _member_values(members: Sequence[Values], keys: Sequence[str]) -> Iterator[tuple[KeyPath, str]]:
    for number, member in enumerate(members):
        for name in keys:
            if name in member:
                yield ("members", number, name), member[name]


def _check_quorum(file: ConfigFile, members: int, fault_model: FaultModel, min_faults: int | None) -> None:
    """Refuse a group that cannot survive what it must; warn of one that gains nothing from its size."""
    place: KeyPath = ("cluster", "min_faults") if min_faults is not None else ("members",)
    if members < 1:
        file.note(("members",), "a group needs at least one member")
        return
    wanted = min_faults if min_faults is not None else int(fault_model is FaultModel.BYZANTINE)
    needed = members_needed(fault_model, wanted)
    if members < needed:
        hint = f"add {needed - members} members" if needed - members > 1 else "add 1 member"
        if min_faults is None:
            hint += ", or say min_faults = 0 in [cluster] if no fault has to be survived"
        message = f"{members} members cannot survive {wanted} {fault_model.value} faults: that takes {needed}"
        file.note(place, message.replace(" 1 byzantine faults", " 1 byzantine fault"), hint, at_key=min_faults is None)
        return
    faults = Quorum.of(fault_model, members).faults
    if fault_model is FaultModel.BYZANTINE and not faults:
        message = f"{members} members survive no byzantine fault"
        file.note(place, message, f"use {members_needed(fault_model, 1)} or more", severity="warning", at_key=True)
    elif fault_model is FaultModel.CRASH and members % 2 == 0:
        message = f"{members} members survive no more crashes than {members - 1} would"
        file.note(place, message, "use an odd number of members", severity="warning", at_key=True)


def _check_weights(file: ConfigFile, members: Sequence[Values], engine: EngineChoice, options: Values) -> None:
    """Refuse weights with which a few silent members could stop the others for good."""
    weights = [member["weight"] for member in sorted(members, key=lambda member: str(member["name"]))]
    faults = Quorum.of(engine.fault_model, len(members)).faults
    successive = engine.successive_leaders(msgspec.convert(options, engine.options_type))
    problem = weights_problem(weights, faults, successive)
    if problem is not None:
        heaviest = max(range(len(members)), key=lambda number: members[number]["weight"])
        file.note(("members", heaviest, "weight"), problem)


def _read_node(path: Path, engines: Engines, problems: list[Problem]) -> NodeConfig | None:
    before = _errors(problems)
    file = ConfigFile(path, problems)
    if not file.is_readable:
        return None
    values = file.table((), file.content, NodeFile)
    folder = path.absolute().parent
    node = values.get("node", {})
    genesis = None
    genesis_path = folder / node.get("genesis", GENESIS_FILE)
    if genesis_path.is_file():
        genesis = _read_genesis(genesis_path, engines, problems)
    else:
        file.note(("node", "genesis"), f"there is no genesis file at {genesis_path}")
    names = [member.name for member in genesis.members] if genesis else []
    if genesis and "name" in node and node["name"] not in names:
        file.note(("node", "name"), f'the genesis has no member "{node["name"]}"', did_you_mean(node["name"], names))
    keys = {**msgspec.structs.asdict(KeysSection()), **values.get("keys", {})}
    keys = {name: str(folder / value) for name, value in keys.items()}
    _check_key_files(file, keys, insecure=values.get("runtime", {}).get("insecure", False))
    if genesis is None or _errors(problems) > before:
        return None
    settings = msgspec.convert(values, NodeFile)
    return NodeConfig(
        path=str(path.absolute()),
        node=msgspec.structs.replace(settings.node, genesis=str(genesis_path), data=str(folder / settings.node.data)),
        keys=KeysSection(**keys),
        runtime=settings.runtime,
        metrics=settings.metrics,
        genesis=genesis,
    )


_PRIVATE_KEYS = ("consensus", "tls_key")


def _check_key_files(file: ConfigFile, keys: Mapping[str, str], *, insecure: bool) -> None:
    """Refuse key files that are missing or that others may read; without TLS, its files may be missing."""
    for name, value in keys.items():
        target = Path(value)
        place: KeyPath = ("keys", name)
        if not target.is_file():
            if name == "consensus" or not insecure:
                file.note(place, f"keys.{name}: there is no file {value}")
        elif name in _PRIVATE_KEYS and target.stat().st_mode & 0o077:
            message = f"keys.{name}: others may read {value}; a private key is for its owner only"
            file.note(place, message, f"chmod 600 {value}")
