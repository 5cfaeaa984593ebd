"""Settings as text: what is written loads as the same, and every key is described."""

import tomllib
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.config_keys import (
    ClusterSection,
    GenesisConfig,
    LimitsSection,
    MemberSection,
    NodeFile,
    NodeSection,
    key,
)
from bftkit.config_text import (
    consensus_settings,
    key_docs,
    render_genesis,
    render_node,
    toml_key,
    toml_value,
    type_in_words,
)
from bftkit.core.epoch import Limits


def member(number):
    return MemberSection(
        name=f"n{number}",
        peer_address=f"127.0.0.1:{7000 + number}",
        client_address=f"127.0.0.1:{7100 + number}",
        public_key=bytes([number + 1] * 32).hex(),
    )


GENESIS = GenesisConfig(
    cluster=ClusterSection(id="testnet"), engine_options={"timeout_ms": 5}, members=tuple(map(member, range(4)))
)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_any_text_is_written_as_toml(text):
    assert tomllib.loads(f"{toml_key(text)} = {toml_value(text)}") == {text: text}


@pytest.mark.parametrize("value", [True, False, 0, -7, 1.5, 1e300, [], [1, "a"], {"a b": {"c": [False]}}])
def test_values_are_written_as_toml(value):
    assert tomllib.loads(f"k = {toml_value(value)}")["k"] == value


def test_toml_has_no_none():
    with pytest.raises(TypeError):
        toml_value(None)


def test_a_written_genesis_is_the_same_settings():
    content = tomllib.loads(render_genesis(GENESIS))
    assert msgspec.convert(content, GenesisConfig) == GENESIS


def test_a_written_node_file_is_the_same_settings():
    node = NodeFile(node=NodeSection(name="n0", data='with "quotes" and \\'))
    assert msgspec.convert(tomllib.loads(render_node(node)), NodeFile) == node


def test_written_files_explain_every_key_and_when_it_applies():
    text = render_genesis(GENESIS) + render_node(NodeFile(node=NodeSection(name="n0")))
    joined = text.replace("\n# ", " ")
    for doc in key_docs().values():
        assert f"{doc.text} ({doc.applies})" in joined, doc.key


def test_a_written_genesis_promises_no_change_of_a_running_cluster():
    text = render_genesis(GENESIS).replace("\n# ", " ")
    assert "cannot be changed for a running cluster yet" in text
    assert "proposes" not in text


def test_every_key_is_described():
    docs = key_docs()
    assert {"cluster.engine", "limits.checkpoint_interval", "members.weight", "node.name", "runtime.lanes"} <= set(docs)
    for doc in docs.values():
        assert doc.text.endswith("."), doc.key
        assert doc.applies in ("restart", "cluster change")
        assert doc.required == (doc.key in ("cluster.id", "node.name") or doc.key.startswith("members.")) or (
            doc.key == "members.weight"
        )


def test_a_description_says_type_default_and_effect():
    doc = key_docs()["runtime.lanes"]
    assert (doc.file, doc.default, doc.applies) == ("bftkit.toml", "1", "restart")
    assert doc.type == "a whole number, at least 1, at most 1024"
    assert key_docs()["node.log_level"].type == 'one of "debug", "info", "warning", "error"'
    assert key_docs()["cluster.min_faults"].default == ""


class Options(msgspec.Struct):
    """Options of an engine under test."""

    timeout_ms: Annotated[int, key("How long to wait.", "cluster change", ge=1)] = 10


def test_options_of_engines_are_described_side_by_side():
    doc = key_docs({"one": Options, "two": Options})["engine_options.timeout_ms"]
    assert doc.text == "one: How long to wait. two: How long to wait."
    assert (doc.default, doc.type) == ("10", "a whole number, at least 1")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(bool, "true or false"), (int | None, "a whole number"), (int | str, "a whole number or a text"), (list, "list")],
)
def test_types_in_words(annotation, words):
    assert type_in_words(annotation) == words


def test_the_limits_of_the_file_are_the_limits_of_the_replica():
    assert LimitsSection().limits() == Limits()
    assert LimitsSection(max_sessions=5).limits() == Limits(max_sessions=5)


def changed(**sections):
    return dict(consensus_settings(msgspec.structs.replace(GENESIS, **sections)))


def test_members_compare_what_they_must_agree_on():
    settings = dict(consensus_settings(GENESIS))
    assert settings["cluster.id"] == '"testnet"'
    assert settings["engine_options.timeout_ms"] == "5"
    assert settings["members.n2.weight"] == "1"
    assert list(settings) == sorted(settings)
    assert changed(engine_options={"timeout_ms": 6}) != settings
    assert changed(limits=LimitsSection(checkpoint_interval=64)) != settings
    assert changed(members=GENESIS.members[:3]) != settings


def test_a_replica_may_move_and_members_may_be_listed_in_any_order():
    moved = msgspec.structs.replace(GENESIS.members[0], peer_address="10.0.0.9:7000", client_address="10.0.0.9:7001")
    assert changed(members=(*reversed(GENESIS.members[1:]), moved)) == dict(consensus_settings(GENESIS))


def test_the_case_of_a_key_does_not_matter():
    loud = tuple(msgspec.structs.replace(entry, public_key=entry.public_key.upper()) for entry in GENESIS.members)
    assert changed(members=loud) == dict(consensus_settings(GENESIS))
