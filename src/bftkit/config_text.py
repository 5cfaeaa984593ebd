"""Settings as text: commented TOML files, the answers of `config explain`, and what members compare."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec

from bftkit.config_keys import CLUSTER_CHANGE, GenesisConfig, KeyDoc, MemberSection, NodeFile, meta_of

WIDTH = 100
"""Where comments in written files are wrapped."""


def toml_value(value: Any) -> str:
    """Write a boolean, number, string, list or table of them as an inline TOML value.

    Raises:
        TypeError: TOML has no such value, such as None.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON escapes are TOML escapes; DEL is the one character that only TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{toml_key(name)} = {toml_value(item)}' for name, item in value.items())}}}"
    raise TypeError(f"TOML has no value for {type(value).__name__}")


def toml_key(name: str) -> str:
    """Write the name of a key, quoted where TOML wants it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _section(header: str, section: msgspec.Struct, *, comments: bool = True) -> list[str]:
    """Write one table; keys that are not set stand there as comments."""
    lines = [header]
    for field in msgspec.structs.fields(section):
        value, meta = getattr(section, field.name), meta_of(field.type)
        if comments and meta is not None:
            lines += _comment(f"{meta.description} ({(meta.extra or {}).get('applies', '')})")
        lines.append(f"# {field.name} =" if value is None else f"{field.name} = {toml_value(value)}")
    return lines


def render_genesis(genesis: GenesisConfig) -> str:
    """Return a commented `genesis.toml` that loads as the same settings."""
    lines = _comment("What all members of the group must agree on: this file is the same everywhere, byte for byte.")
    lines += _comment(
        f'A key that is marked "{CLUSTER_CHANGE}" cannot be changed for a running cluster yet: a node whose value '
        "differs is refused by the others, by the name of the key."
    )
    lines += ["", *_section("[cluster]", genesis.cluster), "", "[engine_options]"]
    lines += [f"{toml_key(name)} = {toml_value(value)}" for name, value in genesis.engine_options.items()]
    lines += ["", *_section("[limits]", genesis.limits)]
    for number, member in enumerate(genesis.members):
        lines += ["", *_section("[[members]]", member, comments=number == 0)]
    return "\n".join(lines) + "\n"


def render_node(node: NodeFile) -> str:
    """Return a commented `bftkit.toml` that loads as the same settings."""
    lines = _comment("This node's own settings; paths are relative to this file.")
    for field in msgspec.structs.fields(node):
        lines += ["", *_section(f"[{field.name}]", getattr(node, field.name))]
    return "\n".join(lines) + "\n"


def consensus_settings(genesis: GenesisConfig) -> list[tuple[str, str]]:
    """List the settings that members must agree on, with their values as text, sorted by key.

    Addresses are left out: a replica may move. Two members compare the lists, or their digest, when they connect; the
    first entry that differs is the one to name.
    """
    found = [("cluster." + name, value) for name, value in msgspec.structs.asdict(genesis.cluster).items()]
    found += [("engine_options." + name, value) for name, value in genesis.engine_options.items()]
    found += [("limits." + name, value) for name, value in msgspec.structs.asdict(genesis.limits).items()]
    for member in genesis.members:
        found += [
            (f"members.{member.name}.public_key", member.public_key.lower()),
            (f"members.{member.name}.weight", member.weight),
        ]
    return sorted((name, "" if value is None else toml_value(value)) for name, value in found)


def key_docs(options_types: Mapping[str, type[msgspec.Struct]] | None = None) -> dict[str, KeyDoc]:
    """Describe every key by its full name; options of the given engines are called `engine_options.NAME`."""
    found: dict[str, KeyDoc] = {}
    for file, layout in (("genesis.toml", GenesisConfig), ("bftkit.toml", NodeFile)):
        for table in msgspec.structs.fields(layout):
            section = MemberSection if table.name == "members" else table.type
            if isinstance(section, type) and issubclass(section, msgspec.Struct):
                found |= {doc.key: doc for doc in _docs_of(file, table.name, section)}
    for engine, options_type in sorted((options_types or {}).items()):
        for doc in _docs_of("genesis.toml", "engine_options", options_type):
            earlier = found.get(doc.key)
            text = f"{earlier.text} {engine}: {doc.text}" if earlier else f"{engine}: {doc.text}"
            found[doc.key] = msgspec.structs.replace(doc, text=text.strip())
    return found


def _docs_of(file: str, table: str, section: type[msgspec.Struct]) -> Iterator[KeyDoc]:
    for field in msgspec.structs.fields(section):
        meta = meta_of(field.type)
        default = None if field.default is msgspec.NODEFAULT else field.default
        yield KeyDoc(
            key=f"{table}.{field.name}",
            file=file,
            type=type_in_words(field.type),
            default="" if default is None else toml_value(default),
            required=field.required,
            applies=(meta.extra or {}).get("applies", CLUSTER_CHANGE) if meta else CLUSTER_CHANGE,
            text=(meta.description or "") if meta else "",
        )


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "nothing"}


def type_in_words(annotation: Any) -> str:
    """Say what a value of this type looks like: "a whole number, at least 1"."""
    meta = meta_of(annotation)
    if meta is not None:
        bounds = [f"at least {meta.ge}"] * (meta.ge is not None) + [f"at most {meta.le}"] * (meta.le is not None)
        return ", ".join([type_in_words(get_args(annotation)[0]), *bounds])
    if annotation in _WORDS:
        return _WORDS[annotation]
    choices = get_args(annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(f'"{choice}"' for choice in choices)
    words = [type_in_words(choice) for choice in choices if choice is not type(None)]
    return " or ".join(words) if words else getattr(annotation, "__name__", str(annotation))
