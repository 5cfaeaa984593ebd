"""Configuration files: what is right loads, what is wrong is told all at once, with its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.config import (
    ClusterSection,
    GenesisConfig,
    MemberSection,
    NodeFile,
    NodeSection,
    RuntimeSection,
    check_files,
    engine_options,
    epoch_config,
    load_genesis,
    load_node_config,
    render_genesis,
    render_node,
    split_address,
)
from bftkit.config_file import ConfigFile
from bftkit.config_keys import LimitsSection, key
from bftkit.core.quorum import FaultModel
from bftkit.errors import ConfigurationError


class Options(msgspec.Struct, frozen=True):
    """Options of an engine under test."""

    timeout_ms: Annotated[int, key("How long to wait.", "cluster change", ge=1)] = 1000
    window: int = 256

    def __post_init__(self) -> None:
        if self.window > self.timeout_ms:
            raise ValueError("window must not exceed timeout_ms")


class Engine(NamedTuple):
    """What the loader asks of an engine."""

    fault_model: FaultModel
    options_type: type[msgspec.Struct] = Options
    version: str = "1"
    successive_leaders: Callable[[Options], int] = lambda options: 1


ENGINES = {"pbft": Engine(FaultModel.BYZANTINE), "raft": Engine(FaultModel.CRASH)}


def member(number, **changes):
    fields = {
        "name": f"n{number}",
        "peer_address": f"127.0.0.1:{7000 + number}",
        "client_address": f"127.0.0.1:{7100 + number}",
        "public_key": f"{number + 1:02x}" * 32,
    }
    return MemberSection(**{**fields, **changes})


def genesis(replicas=4, **cluster):
    return GenesisConfig(cluster=ClusterSection(id="testnet", **cluster), members=tuple(map(member, range(replicas))))


GENESIS = render_genesis(genesis())
NODE = render_node(NodeFile(node=NodeSection(name="n0")))


@pytest.fixture
def folder(tmp_path):
    """A folder with everything in order."""
    (tmp_path / "keys").mkdir()
    for name in ("consensus.key", "certificate.key", "certificate.pem", "authority.pem"):
        (tmp_path / "keys" / name).write_bytes(b"x")
        (tmp_path / "keys" / name).chmod(0o600)
    (tmp_path / "genesis.toml").write_text(GENESIS)
    (tmp_path / "bftkit.toml").write_text(NODE)
    return tmp_path


def problems_in(folder, *, node=NODE, genesis=GENESIS, engines=ENGINES):
    """Return what is wrong, as (key, message) pairs."""
    (folder / "genesis.toml").write_text(genesis)
    (folder / "bftkit.toml").write_text(node)
    return check_files([folder / "bftkit.toml"], engines)


def only_problem(folder, **files):
    (problem,) = problems_in(folder, **files)
    return problem


def test_files_in_order_load(folder):
    config = load_node_config(folder / "bftkit.toml", ENGINES)
    assert config.node.name == "n0"
    assert config.genesis.cluster.id == "testnet"
    assert len(config.genesis.members) == 4
    assert config.warnings == ()
    assert check_files([folder], ENGINES) == []


def test_paths_are_relative_to_the_file(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    config = load_node_config(Path(folder.name) / "bftkit.toml", ENGINES)
    assert config.path == str(folder / "bftkit.toml")
    assert config.node.data == str(folder / "data")
    assert config.node.genesis == str(folder / "genesis.toml")
    assert config.keys.consensus == str(folder / "keys" / "consensus.key")


def test_what_was_written_loads_as_the_same(folder):
    written = msgspec.structs.replace(genesis(7, min_faults=2, group=3), limits=LimitsSection(checkpoint_interval=9))
    (folder / "genesis.toml").write_text(render_genesis(written))
    loaded = load_genesis(folder / "genesis.toml", ENGINES)
    assert loaded == msgspec.structs.replace(written, engine_options={"timeout_ms": 1000, "window": 256})
    (folder / "genesis.toml").write_text(render_genesis(loaded))
    assert load_genesis(folder / "genesis.toml", ENGINES) == loaded


def test_options_get_their_defaults_and_their_type(folder):
    (folder / "genesis.toml").write_text(GENESIS.replace("[engine_options]", "[engine_options]\nwindow = 9"))
    loaded = load_genesis(folder / "genesis.toml", ENGINES)
    assert loaded.engine_options == {"timeout_ms": 1000, "window": 9}
    assert engine_options(loaded, ENGINES["pbft"]) == Options(window=9)
    with pytest.raises(ConfigurationError, match="window"):
        engine_options(msgspec.structs.replace(loaded, engine_options={"window": "9"}), ENGINES["pbft"])


def test_an_epoch_starts_from_a_genesis_file(folder):
    loaded = load_genesis(folder / "genesis.toml", ENGINES)
    config = epoch_config(loaded, ENGINES["pbft"], epoch=1)
    assert (config.cluster, config.engine, config.engine_version, config.epoch) == ("testnet", "pbft", "1", 1)
    assert config.membership().public_key(2) == b"\x03" * 32
    assert msgspec.msgpack.decode(config.options, type=Options) == Options()


def test_five_mistakes_are_reported_together(folder):
    text = (
        GENESIS.replace('engine = "pbft"', 'engine = "pbtf"')
        .replace("checkpoint_interval = 128", 'checkpoint_interval = "128"')
        .replace("[limits]", "[limits]\nmax_comand_bytes = 7")
        .replace('name = "n2"', 'name = "n1"')
        .replace("04" * 32, "zz" * 32)
    )
    found = problems_in(folder, genesis=text)
    assert {problem.key for problem in found} == {
        "cluster.engine",
        "limits.checkpoint_interval",
        "limits.max_comand_bytes",
        "members[2].name",
        "members[3].public_key",
    }
    lines = text.split("\n")
    for problem in found:
        assert problem.source == lines[problem.line - 1]
        assert problem.source[problem.column - 1 :].startswith(
            {"limits.max_comand_bytes": "max_comand_bytes"}.get(problem.key, '"')
        )
    suggestions = {problem.key: problem.suggestion for problem in found}
    assert suggestions["cluster.engine"] == 'did you mean "pbft"?'
    assert suggestions["limits.max_comand_bytes"] == 'did you mean "max_command_bytes"?'
    assert suggestions["members[2].name"].startswith("it is already members[1].name on line")
    with pytest.raises(ConfigurationError) as caught:
        load_node_config(folder / "bftkit.toml", ENGINES)
    assert set(found) == set(caught.value.problems)
    assert "^^^^^^^^^^^^^^^^" in str(caught.value)


MISTAKES = {
    'id = "testnet"': ('id = "Test Net"', "cluster.id"),
    "group = 0": ("group = -1", "cluster.group"),
    'engine = "pbft"': ('engine = "paxos"', "cluster.engine"),
    'application = "bftkit.batteries.kv:KeyValue"': ('application = "kv"', "cluster.application"),
    "max_sessions = 10000": ("max_sessions = 0", "limits.max_sessions"),
    "session_window = 65536": ("session_windows = 65536", "limits.session_windows"),
    'peer_address = "127.0.0.1:7001"': ('peer_address = "127.0.0.1"', "members[1].peer_address"),
    'client_address = "127.0.0.1:7102"': ('client_address = "127.0.0.1:7000"', "members[2].client_address"),
    f'public_key = "{"04" * 32}"': ('public_key = "04"', "members[3].public_key"),
}


@given(st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1))
def test_any_set_of_mistakes_is_reported_whole(tmp_path_factory, chosen):
    text = GENESIS
    for right in chosen:
        assert text.count(right) == 1
        text = text.replace(right, MISTAKES[right][0])
    path = tmp_path_factory.mktemp("mistakes") / "genesis.toml"
    path.write_text(text)
    found = check_files([path], ENGINES)
    assert sorted(problem.key for problem in found) == sorted(MISTAKES[right][1] for right in chosen)
    for problem in found:
        assert text.split("\n")[problem.line - 1] in {MISTAKES[right][0] for right in chosen}


# --- Members -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key", "word"),
    [
        ({"name": "n0"}, "members[3].name", '"n0" is used twice'),
        ({"public_key": "01" * 32}, "members[3].public_key", "is used twice"),
        ({"peer_address": "127.0.0.1:7000"}, "members[3].peer_address", "is used twice"),
        ({"peer_address": "127.0.0.1:7101"}, "members[3].peer_address", "is used twice"),
        ({"client_address": "127.0.0.1:7003"}, "members[3].client_address", "is used twice"),
        ({"name": "N3"}, "members[3].name", "a name has"),
        ({"weight": 0}, "members[3].weight", "at least 1"),
        ({"weight": 9}, "members[3].weight", "at most 8 times as often"),
        ({"client_address": "127.0.0.1:0"}, "members[3].client_address", "port from 1 to 65535"),
        ({"client_address": "127.0.0.1:65536"}, "members[3].client_address", "port from 1 to 65535"),
        ({"public_key": "04" * 31}, "members[3].public_key", "this one has 62"),
    ],
)
def test_members_that_cannot_be(folder, changes, key, word):
    broken = msgspec.structs.replace(genesis(), members=(*map(member, range(3)), member(3, **changes)))
    problem = only_problem(folder, genesis=render_genesis(broken))
    assert problem.key == key
    assert word in problem.message


def test_keys_that_differ_in_case_are_the_same(folder):
    twins = (*map(member, range(3)), member(3, public_key="AB" * 32), member(4, public_key="ab" * 32))
    problem = only_problem(folder, genesis=render_genesis(msgspec.structs.replace(genesis(), members=twins)))
    assert problem.key == "members[4].public_key"


@pytest.mark.parametrize(
    ("engine", "replicas", "min_faults", "severity", "word"),
    [
        ("pbft", 4, None, None, ""),
        ("pbft", 3, None, "error", "3 members cannot survive 1 byzantine fault: that takes 4"),
        ("pbft", 3, 0, "warning", "survive no byzantine fault"),
        ("pbft", 6, 2, "error", "that takes 7"),
        ("pbft", 7, 2, None, ""),
        ("pbft", 1, 0, "warning", "survive no byzantine fault"),
        ("raft", 3, None, None, ""),
        ("raft", 3, 1, None, ""),
        ("raft", 4, None, "warning", "no more crashes than 3"),
        ("raft", 4, 2, "error", "that takes 5"),
        ("raft", 1, None, None, ""),
        ("raft", 1, -1, "error", "fewer than 0"),
    ],
)
def test_the_number_of_members_must_fit_the_faults(folder, engine, replicas, min_faults, severity, word):
    text = render_genesis(genesis(replicas, engine=engine, min_faults=min_faults))
    found = problems_in(folder, genesis=text)
    assert [problem.severity for problem in found] == ([severity] if severity else [])
    assert all(word in problem.message for problem in found)
    if severity == "warning":
        assert load_node_config(folder / "bftkit.toml", ENGINES).warnings == tuple(found)


def test_weights_that_could_stop_the_group_are_refused(folder):
    """Between the turns of a member that leads half the time no two others lead in succession."""
    heavy = msgspec.structs.replace(genesis(engine="chain"), members=(member(0, weight=8), *map(member, (1, 2, 3))))
    engines = {"chain": Engine(FaultModel.BYZANTINE, successive_leaders=lambda options: options.timeout_ms // 500)}
    (problem,) = problems_in(folder, genesis=render_genesis(heavy), engines=engines)
    assert (problem.key, problem.severity) == ("members[0].weight", "error")
    assert "3, 1, 1, 1 would do" in problem.message


def test_a_group_without_members_is_refused(folder):
    text = "members = []\n" + GENESIS[: GENESIS.index("[[members]]")]
    assert any("at least one member" in problem.message for problem in problems_in(folder, genesis=text))


# --- Structure ---------------------------------------------------------------------------------------------------


def test_missing_keys_and_tables_are_named(folder):
    text = GENESIS.replace('id = "testnet"', "").replace('name = "n3"', "")
    assert {problem.message for problem in problems_in(folder, genesis=text)} == {
        '[cluster] lacks the key "id"',
        '[[members]] lacks the key "name"',
    }
    found = problems_in(folder, node="[runtime]\n")
    assert 'the file lacks the table "node"' in {problem.message for problem in found}


def test_unknown_tables_are_refused(folder):
    problem = only_problem(folder, node=NODE.replace("[metrics]", "[metric]").replace('address = ""', ""))
    assert (problem.key, problem.suggestion) == ("metric", 'did you mean "metrics"?')
    assert problem.source == "[metric]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node = 3", "[node] must be a table"),
        ('[node]\nname = "n0"\ngenesis = ["x"]', "genesis must be a text, not an array"),
        ('[node]\nname = "n0"\n[runtime]\nworkers = true', "workers must be a whole number"),
        ('[node]\nname = "n0"\n[runtime]\nworkers = 2', "not possible yet: the only value is 0"),
        ('[node]\nname = "n0"\n[runtime]\nlanes = 12', "12 is not a power of two; the nearest are 8 and 16"),
        (
            '[node]\nname = "n0"\nlog_level = "warnning_"',
            'log_level must be one of "debug", "info", "warning", "error"',
        ),
        ('[node]\nname = "n0"\n[metrics]\naddress = "here"', 'an address is "host:port"'),
        ('[node]\nname = "n0"\ndata = ""', "a path is missing"),
    ],
)
def test_values_of_the_wrong_kind(folder, text, message):
    assert message in only_problem(folder, node=text).message


def test_members_must_be_an_array(folder):
    text = GENESIS[: GENESIS.index("[[members]]")] + "[members]\nx = 1\n"
    assert "must be an array of tables, each begun with [[members]]" in problems_in(folder, genesis=text)[0].message


def test_options_that_the_engine_does_not_know_are_refused(folder):
    text = GENESIS.replace("[engine_options]", "[engine_options]\ntimeout = 5\nwindow = 1.5")
    found = {problem.key: problem for problem in problems_in(folder, genesis=text)}
    assert set(found) == {"engine_options.timeout", "engine_options.window"}
    assert found["engine_options.timeout"].suggestion == 'did you mean "timeout_ms"?'


def test_what_the_engine_itself_refuses_is_told_at_the_key(folder):
    problem = only_problem(folder, genesis=GENESIS.replace("[engine_options]", "[engine_options]\nwindow = 9999"))
    assert problem.key == "engine_options.window"
    assert "window must not exceed timeout_ms" in problem.message


def test_a_command_must_fit_into_a_batch(folder):
    problem = only_problem(folder, genesis=GENESIS.replace("max_batch_bytes = 262144", "max_batch_bytes = 2048"))
    assert problem.key == "limits.max_command_bytes"


@pytest.mark.parametrize(
    ("text", "line"), [("[node]\nname = \n", 2), ("[node\n", 1), ('[node]\nname = "n0', 2), ("a = 1\na = 2\n", 2)]
)
def test_a_mistake_of_syntax_has_a_place(folder, text, line):
    problem = only_problem(folder, node=text)
    assert problem.message.startswith("this is not TOML: ")
    assert problem.line == line
    assert problem.source == text.split("\n")[line - 1]


def test_files_that_cannot_be_read(folder, tmp_path):
    (problem,) = check_files([tmp_path / "nothing.toml"], ENGINES)
    assert "cannot be read" in problem.message
    (folder / "bftkit.toml").write_bytes(b"\xff\xfe")
    (problem,) = check_files([folder / "bftkit.toml"], ENGINES)
    assert "not UTF-8" in problem.message
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_genesis(tmp_path / "nothing.toml", ENGINES)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_loader_fail(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "bftkit.toml"
    path.write_bytes(data)
    assert check_files([path], ENGINES)


# --- The node and its keys ---------------------------------------------------------------------------------------


def test_the_node_must_be_a_member(folder):
    problem = only_problem(folder, node=NODE.replace('name = "n0"', 'name = "n7"'))
    assert problem.key == "node.name"
    assert 'no member "n7"' in problem.message


def test_the_genesis_must_be_there(folder):
    problem = only_problem(folder, node=NODE.replace('genesis = "genesis.toml"', 'genesis = "../x.toml"'))
    assert problem.key == "node.genesis"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
@pytest.mark.parametrize("name", ["consensus", "tls_key"])
def test_private_keys_are_for_their_owner_only(folder, name, mode):
    file = folder / "keys" / {"consensus": "consensus.key", "tls_key": "certificate.key"}[name]
    file.chmod(mode)
    problem = only_problem(folder)
    assert problem.key == f"keys.{name}"
    assert problem.suggestion == f"chmod 600 {file}"


def test_certificates_may_be_read_by_all(folder):
    (folder / "keys" / "certificate.pem").chmod(0o644)
    (folder / "keys" / "authority.pem").chmod(0o644)
    assert problems_in(folder) == []


def test_without_tls_only_the_consensus_key_is_needed(folder):
    for name in ("consensus.key", "certificate.key", "certificate.pem", "authority.pem"):
        (folder / "keys" / name).unlink()
    assert {problem.key for problem in problems_in(folder)} == {
        "keys.consensus",
        "keys.tls_key",
        "keys.tls_certificate",
        "keys.authority",
    }
    insecure = render_node(NodeFile(node=NodeSection(name="n0"), runtime=RuntimeSection(insecure=True)))
    assert only_problem(folder, node=insecure).key == "keys.consensus"


# --- Folders -----------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_the_files_in_it(folder):
    (folder / "bftkit.toml").rename(folder / "keys" / "bftkit.toml")
    found = check_files([folder], ENGINES)
    assert {problem.file for problem in found} == {str(folder / "keys" / "bftkit.toml")}
    assert "node.genesis" in {problem.key for problem in found}


def test_an_empty_folder_is_a_finding(tmp_path):
    (problem,) = check_files([tmp_path], ENGINES)
    assert "there is no bftkit.toml" in problem.message


def test_a_mistake_in_the_genesis_is_told_once(folder):
    (folder / "genesis.toml").write_text(GENESIS.replace("group = 0", "group = -1"))
    assert len(check_files([folder, folder / "genesis.toml", folder / "bftkit.toml"], ENGINES)) == 1


def test_a_file_that_does_not_parse_has_no_content(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("= 1")
    problems: list = []
    assert ConfigFile(path, problems).content == {}
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:7000", ("127.0.0.1", 7000)),
        ("[::1]:80", ("::1", 80)),
        ("node.example:65535", ("node.example", 65535)),
    ],
)
def test_addresses_are_split(address, expected):
    assert split_address(address) == expected


@pytest.mark.parametrize(
    "address", ["", "host", ":80", "host:", "::1:80", "host:0", "host:99999", "a b:80", "host:８０"]
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)


def test_limits_that_no_frame_holds_are_refused(folder):
    large = GENESIS.replace("max_batch_bytes = 262144", "max_batch_bytes = 4000000")
    assert only_problem(folder, genesis=large).key == "limits.max_batch_bytes"
    large = large.replace("max_command_bytes = 65536", "max_command_bytes = 2000000")
    assert [problem.key for problem in problems_in(folder, genesis=large)] == [
        "limits.max_batch_bytes",
        "limits.max_command_bytes",
    ]
    exact = GENESIS.replace("max_command_bytes = 65536", "max_command_bytes = 262144")
    assert only_problem(folder, genesis=exact).key == "limits.max_command_bytes"
