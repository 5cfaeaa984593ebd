"""One TOML file held against a Struct: what is in order in it, and everything that is not."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from bftkit.config_errors import Problem, Severity, did_you_mean
from bftkit.config_keys import meta_of, rule_of
from bftkit.config_text import type_in_words
from bftkit.toml_positions import KeyPath, TomlPositions

Values = dict[str, Any]
"""The part of a table that is in order."""


class ConfigFile:
    """One TOML file: its content, and a place to note what is wrong with it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.content: Values = {}
        self.positions = TomlPositions("")
        self.is_readable = False
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(Problem(file=str(path), message=f"the file cannot be read: {reason}"))
            return
        try:
            self.content = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            self._note_syntax(text, str(error))
            return
        # Only text that parses has places that can be relied on.
        self.positions = TomlPositions(text)
        self.is_readable = True

    def note(
        self, path: KeyPath, message: str, suggestion: str = "", *, severity: Severity = "error", at_key: bool = False
    ) -> None:
        """Note a finding about a value, or about its key."""
        position = self.positions.key(path) if at_key else self.positions.value(path)
        self.problems.append(
            Problem(
                file=str(self.path),
                line=position.line,
                column=position.column,
                width=position.width,
                source=self.positions.line(position.line),
                key=dotted(path),
                message=message,
                suggestion=suggestion,
                severity=severity,
            )
        )

    def table(self, path: KeyPath, raw: Any, layout: type[msgspec.Struct]) -> Values:
        """Return what is in order in a table, and note what is not."""
        if not isinstance(raw, dict):
            self.note(path, f"[{dotted(path)}] must be a table")
            return {}
        fields = {field.encode_name: field for field in msgspec.structs.fields(layout)}
        for name in raw:
            if name not in fields:
                where = f" in {_header(path)}" if path else ""
                self.note((*path, name), f'unknown key "{name}"{where}', did_you_mean(name, fields), at_key=True)
        found: Values = {}
        for name, field in fields.items():
            if name in raw:
                found |= self._field((*path, name), raw[name], field.type)
            elif field.required:
                known = f"{_header(path)} lacks the key" if path else "the file lacks the table"
                self.note(path, f'{known} "{name}"', at_key=True)
        return found

    def _field(self, path: KeyPath, raw: Any, annotation: Any) -> Values:
        name = str(path[-1])
        section = _section_type(annotation)
        if section is not None and get_origin(annotation) is tuple:
            if not isinstance(raw, list):
                self.note(path, f"{name} must be an array of tables, each begun with [[{name}]]")
                return {}
            return {name: [self.table((*path, number), item, section) for number, item in enumerate(raw)]}
        if section is not None:
            return {name: self.table(path, raw, section)}
        try:
            value = msgspec.convert(raw, annotation)
        except msgspec.ValidationError:
            self.note(
                path, f"{name} must be {type_in_words(annotation)}, not {_quoted(raw)}", _nearest(annotation, raw)
            )
            return {}
        rule = rule_of(annotation)
        complaint = rule(value) if rule else None
        if complaint:
            self.note(path, complaint)
            return {}
        return {name: value}

    def _note_syntax(self, text: str, message: str) -> None:
        place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        lines = text.split("\n")
        line, column = (int(place[1]), int(place[2])) if place else (len(lines), len(lines[-1]) + 1)
        reason = message[: place.start()] if place else message.removesuffix(" (at end of document)")
        self.problems.append(
            Problem(
                file=str(self.path),
                line=line,
                column=column,
                source=lines[line - 1].rstrip("\r") if line <= len(lines) else "",
                message=f"this is not TOML: {reason[:1].lower()}{reason[1:]}",
            )
        )


def dotted(path: KeyPath) -> str:
    """Write a path as people do: `members[2].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _header(path: KeyPath) -> str:
    """Write the header of the table at a path: `[[members]]` for any of the members."""
    is_element = isinstance(path[-1], int)
    name = ".".join(str(part) for part in path if not isinstance(part, int))
    return f"[[{name}]]" if is_element else f"[{name}]"


def _quoted(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def _nearest(annotation: Any, raw: Any) -> str:
    """Suggest the choice that a misspelt word is nearest to."""
    inner = get_args(annotation)[0] if meta_of(annotation) else annotation
    choices = [choice for choice in get_args(inner) if isinstance(choice, str)]
    return did_you_mean(raw, choices) if choices and isinstance(raw, str) else ""


def _section_type(annotation: Any) -> type[msgspec.Struct] | None:
    """Return the Struct that a table, or each element of an array of tables, is read into."""
    inner = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
    return inner if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None
