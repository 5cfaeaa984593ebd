"""The key-value store against a dictionary; its root against its content."""

import os
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.batteries.kv import (
    KeyValue,
    Result,
    Status,
    add,
    compare_and_set,
    delete,
    get,
    put,
    read,
    result,
    size,
)
from bftkit.core.batch import CommittedBatch
from bftkit.errors import ApplicationError, Rejected

KEYS = st.sampled_from([b"", b"a", b"b", b"key", b"\x00\xff"])
NOT_NUMBERS = [b"", b"x", b"1e3", b"99999999999999999999"]
VALUES = st.sampled_from([*NOT_NUMBERS, b"7", b"-12", b"9223372036854775807"])
NUMBERS = st.one_of(st.integers(-10, 10), st.sampled_from([-(1 << 63), (1 << 63) - 1]))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("cas"), KEYS, st.none() | VALUES, VALUES),
        st.tuples(st.just("add"), KEYS, NUMBERS),
    ),
    max_size=60,
)
BUILDERS: dict[str, Callable[..., bytes]] = {"put": put, "delete": delete, "cas": compare_and_set, "add": add}


def apply(store, commands):
    return [result(data) for data in store.apply(CommittedBatch(1, 1, commands))]


def contents(store):
    return dict(msgspec.msgpack.decode(store.snapshot(), type=list[tuple[bytes, bytes]]))


def store_of(mapping):
    store = KeyValue()
    apply(store, [put(key, value) for key, value in mapping.items()])
    return store


def expected(model, operation, key, *arguments):
    """Execute an operation on a plain dictionary."""
    found = model.get(key)
    match operation:
        case "put":
            model[key] = arguments[0]
            return Result(Status.OK)
        case "delete":
            return Result(Status.OK if model.pop(key, None) is not None else Status.ABSENT)
        case "cas":
            if found != arguments[0]:
                return Result(Status.DIFFERENT, found)
            model[key] = arguments[1]
            return Result(Status.OK)
    before = b"0" if found is None else found
    if before not in NOT_NUMBERS:
        total = int(before) + arguments[0]
        if -(2**63) <= total < 2**63:
            model[key] = str(total).encode()
            return Result(Status.OK, model[key])
    return Result(Status.NO_NUMBER, before)


@given(OPERATIONS, st.integers(1, 7))
def test_the_store_equals_a_dictionary(operations, batch):
    store, model = KeyValue(), dict[bytes, bytes]()
    for start in range(0, len(operations), batch):
        part = operations[start : start + batch]
        results = apply(store, [BUILDERS[name](*arguments) for name, *arguments in part])
        assert results == [expected(model, *operation) for operation in part]
        assert len(store) == len(model)
        store.state_root()
    assert contents(store) == model
    # The way there leaves no trace in the root.
    assert store.state_root() == store_of(dict(sorted(model.items()))).state_root()


CONTENTS = st.dictionaries(st.binary(max_size=3), st.binary(max_size=3), max_size=8)


@given(CONTENTS, CONTENTS)
def test_roots_are_equal_if_and_only_if_contents_are(left, right):
    assert (store_of(left).state_root() == store_of(right).state_root()) == (left == right)
    assert store_of(left).state_root() == store_of(dict(reversed(left.items()))).state_root()


@given(CONTENTS)
def test_a_snapshot_restores_the_same_state(mapping):
    store, copy = store_of(mapping), store_of({b"old": b"gone"})
    copy.restore(store.snapshot())
    assert contents(copy) == mapping
    assert copy.state_root() == store.state_root()
    assert copy.snapshot() == store.snapshot()
    apply(copy, [put(b"next", b"1")])
    apply(store, [put(b"next", b"1")])
    assert copy.state_root() == store.state_root()


def test_an_emptied_store_has_the_root_of_an_empty_one():
    store = store_of({b"a": b"1", b"b": b"2"})
    assert store.state_root() != bytes(32)
    apply(store, [delete(b"a"), delete(b"b")])
    assert store.state_root() == KeyValue().state_root() == bytes(32)


@given(st.binary(max_size=40))
def test_any_bytes_have_a_result(command):
    store = KeyValue()
    (answer,) = apply(store, [command])
    try:
        store.check(command)
    except Rejected:
        assert answer == Result(Status.MALFORMED)
        assert not len(store)
    else:
        assert answer.status is not Status.MALFORMED


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"put a b",
        put(b"a", b"b") + b"\x00",
        put(b"a", b"b")[:-1],
        msgspec.msgpack.encode([0, b"key"]),
        msgspec.msgpack.encode([0, b"key", b"value", b"more"]),
        msgspec.msgpack.encode([0, "key", b"value"]),
        msgspec.msgpack.encode([9, b"key"]),
        msgspec.msgpack.encode([3, b"key", 1 << 63]),
    ],
)
def test_malformed_commands_change_nothing(command):
    store = KeyValue()
    answers = apply(store, [put(b"k", b"v"), command, delete(b"k")])
    assert [answer.status for answer in answers] == [Status.OK, Status.MALFORMED, Status.OK]


def test_queries():
    store = store_of({b"a": b"1", b"b": b"2"})
    assert result(store.query(get(b"a"))) == Result(Status.OK, b"1")
    assert result(store.query(get(b"c"))) == Result(Status.ABSENT)
    assert result(store.query(size())) == Result(Status.OK, b"2")
    assert result(store.query(b"?")) == Result(Status.MALFORMED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([(b"b", b"1"), (b"a", b"2")]),
        msgspec.msgpack.encode([(b"a", b"1"), (b"a", b"2")]),
        msgspec.msgpack.encode([("a", b"1")]),
    ],
)
def test_what_is_no_snapshot_is_refused_and_changes_nothing(data):
    store = store_of({b"a": b"1"})
    root = store.state_root()
    with pytest.raises(ApplicationError):
        store.restore(data)
    assert store.state_root() == root


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("put k v", put(b"k", b"v")),
        ("delete k", delete(b"k")),
        ("cas k old new", compare_and_set(b"k", b"old", b"new")),
        ("add k -5", add(b"k", -5)),
    ],
)
def test_people_type_commands(text, command):
    assert KeyValue.command_from_text(text.split()) == command


@pytest.mark.parametrize("text", ["", "put k", "add k many", "add k 9223372036854775808", "fetch k"])
def test_what_is_no_command_is_refused_with_the_list_of_commands(text):
    with pytest.raises(Rejected, match="put KEY VALUE"):
        KeyValue.command_from_text(text.split())


def test_people_type_queries_and_read_results():
    store = store_of({b"k": "wörd".encode()})
    assert KeyValue.result_to_text(store.query(KeyValue.query_from_text(["get", "k"]))) == "ok: wörd"
    assert KeyValue.result_to_text(store.query(KeyValue.query_from_text(["get", "x"]))) == "absent"
    assert KeyValue.result_to_text(store.query(KeyValue.query_from_text(["size"]))) == "ok: 1"
    with pytest.raises(Rejected):
        KeyValue.query_from_text(["all"])
    with pytest.raises(ApplicationError):
        KeyValue.result_to_text(b"?")


def test_the_root_and_the_snapshot_do_not_depend_on_the_hash_seed():
    script = (
        "from bftkit.batteries.kv import *; from bftkit.core.batch import CommittedBatch as B; s = KeyValue();"
        "s.apply(B(1, 1, [put(b'%d' % i, b'v') for i in range(300)] + [delete(b'%d' % i) for i in range(0, 300, 7)]));"
        "print(s.state_root().hex(), s.snapshot().hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 300


def test_a_read_through_the_log_sees_what_stands_before_it():
    store = KeyValue()
    answers = apply(store, [read(b"k"), put(b"k", b"1"), read(b"k"), put(b"k", b"2"), delete(b"k"), read(b"k")])
    assert answers[0] == answers[5] == Result(Status.ABSENT)
    assert answers[2] == Result(Status.OK, b"1")
    root = store.state_root()
    apply(store, [read(b"k")])
    assert store.state_root() == root
    assert KeyValue.command_from_text(["read", "k"]) == KeyValue.command_from_text(["get", "k"]) == read(b"k")
    store.check(read(b"k"))
