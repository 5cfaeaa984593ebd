"""Places in TOML text: every path that `tomllib` finds has one, and it is right."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from bftkit.config_text import toml_key, toml_value
from bftkit.toml_positions import Position, TomlPositions

SAMPLE = '''# first = "[comment]"
title = "a # b \\" c" # [x]
long = """
[not.a.table]
key = 1 ""\\""""
raw = \'\'\'
a = 'b'
\'\'\'
dotted . "quoted key".x = 1979-05-27 07:32:00

[server]   # header
ports = [ 1, # one ]
  2,
  [3, "]"],
]
point = { x = 1, "y z" = { deep = [true] } }

[[members]]
name = "n0"
[members.address]
port = 1
[[members]]
name = "n1"
\t[[members.tags]]
\tkey = 1
\t[[members.tags]]
\tkey = 2
[last.one]
z = 1e3
'''


def text_at(position: Position) -> str:
    line = SAMPLE.split("\n")[position.line - 1]
    return line[position.column - 1 : position.column - 1 + position.width]


def test_the_sample_is_toml():
    assert len(tomllib.loads(SAMPLE)["members"]) == 2


def test_keys_are_found():
    positions = TomlPositions(SAMPLE)
    for path, text in {
        ("title",): "title",
        ("dotted", "quoted key", "x"): 'dotted . "quoted key".x',
        ("server",): "[server]",
        ("server", "point", "y z", "deep"): "deep",
        ("members", 0): "[[members]]",
        ("members", 1, "name"): "name",
        ("members", 0, "address"): "[members.address]",
        ("members", 0, "address", "port"): "port",
        ("members", 1, "tags", 1, "key"): "key",
        ("last", "one"): "[last.one]",
    }.items():
        assert text_at(positions.key(path)) == text, path
    assert positions.key(("members", 1)).line == positions.key(("members", 1, "name")).line - 1
    assert positions.key(("members", 1, "tags", 1)).line == positions.key(("members", 1, "tags", 0)).line + 2


def test_values_are_found():
    positions = TomlPositions(SAMPLE)
    for path, text in {
        ("title",): '"a # b \\" c"',
        ("long",): '"""',
        ("raw",): "'''",
        ("dotted", "quoted key", "x"): "1979-05-27 07:32:00",
        ("server", "ports", 1): "2",
        ("server", "ports", 2, 1): '"]"',
        ("server", "point", "x"): "1",
        ("server", "point", "y z", "deep", 0): "true",
        ("members", 1, "tags", 1, "key"): "2",
        ("last", "one", "z"): "1e3",
    }.items():
        assert text_at(positions.value(path)) == text, path
    assert positions.value(("server", "ports", 1)).line == positions.value(("server", "ports", 0)).line + 1


def test_what_is_not_there_is_looked_for_around_it():
    positions = TomlPositions(SAMPLE)
    assert text_at(positions.key(("members", 1, "weight"))) == "[[members]]"
    assert text_at(positions.value(("server",))) == "[server]"
    assert positions.key(("nowhere",)) == (1, 1, 1)


def test_lines_end_as_they_do_elsewhere():
    positions = TomlPositions("a = 1\r\n[t]\r\nb = 2\r\n")
    assert positions.key(("t", "b")) == (3, 1, 1)
    assert positions.line(2) == "[t]"
    assert positions.line(9) == ""


def test_text_that_is_no_toml_keeps_the_places_before_the_mistake():
    positions = TomlPositions("a = 1\nb = \nc = 3\n")
    assert positions.key(("a",)) == (1, 1, 1)
    assert TomlPositions('a = 1\n"\\q" = 2').key(("a",)) == (1, 1, 1)


def test_deep_nesting_ends_the_scan_and_not_the_program():
    positions = TomlPositions("a = 1\nb = " + "[" * 100_000)
    assert positions.key(("a",)) == (1, 1, 1)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=4)
SCALARS = st.one_of(st.booleans(), st.integers(-9, 99), st.floats(allow_nan=False, allow_infinity=False), NAMES)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
TABLES = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=3) | VALUES, max_size=4)


def paths_of(value, path=()):
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name), item
            yield from paths_of(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from paths_of(item, (*path, number))


@given(TABLES)
def test_every_key_and_value_of_a_written_file_is_found(content):
    scalars = [f"{toml_key(name)} = {toml_value(item)}" for name, item in content.items() if not isinstance(item, dict)]
    tables = [
        line
        for name, item in content.items()
        if isinstance(item, dict)
        for line in (f"[{toml_key(name)}]", *(f"{toml_key(key)} = {toml_value(value)}" for key, value in item.items()))
    ]
    text = "\n".join([*scalars, *tables])
    assert tomllib.loads(text) == content
    positions = TomlPositions(text)
    for path, value in paths_of(content):
        if isinstance(value, dict) and len(path) == 1:
            expected, position = f"[{toml_key(str(path[0]))}]", positions.key(path)
        else:
            expected, position = toml_value(value), positions.value(path)
        line = positions.line(position.line)
        assert line[position.column - 1 : position.column - 1 + position.width] == expected
        if not isinstance(path[-1], int) and len(path) > 1:
            assert line[positions.key(path).column - 1 :].startswith(toml_key(path[-1]))
