"""Where each key and value of a TOML text stands, which `tomllib` does not say.

The scanner expects text that `tomllib` has accepted; it only finds the ends of things and checks nothing. Should it
meet something that it cannot skip, it keeps the places found so far.
"""

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys and, inside arrays, numbers counted from 0."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'",
    re.DOTALL,
)
_QUOTED_KEY = re.compile(r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'')
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\r\n]+")


class Position(NamedTuple):
    """A place in a text."""

    line: int
    """Counted from 1."""
    column: int
    """Counted from 1, in characters."""
    width: int
    """Length in characters, up to the end of the line."""


class _Unskippable(Exception):
    """The text goes on in a way that the scanner does not know."""


class TomlPositions:
    """Find the keys and values of a TOML text by their path."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines[:-1]:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._at = 0
        self._keys: dict[KeyPath, tuple[int, int]] = {}
        self._values: dict[KeyPath, tuple[int, int]] = {}
        self._elements: dict[KeyPath, int] = {}
        try:
            self._scan()
        except (_Unskippable, tomllib.TOMLDecodeError, RecursionError):
            self._at = len(text)

    def key(self, path: KeyPath) -> Position:
        """Return where a key, or the header of a table, stands; of the nearest table around it if it is not there."""
        while path and path not in self._keys and path not in self._values:
            path = path[:-1]
        if not path:
            return Position(1, 1, 1)
        return self._position(*(self._keys.get(path) or self._values[path]))

    def value(self, path: KeyPath) -> Position:
        """Return where a value starts; where its key stands if the value is a table of its own."""
        span = self._values.get(path)
        return self._position(*span) if span else self.key(path)

    def line(self, number: int) -> str:
        """Return the text of a line, counted from 1, without its end."""
        return self._lines[number - 1].rstrip("\r") if 0 < number <= len(self._lines) else ""

    def _position(self, start: int, end: int) -> Position:
        line = bisect_right(self._starts, start)
        column = start - self._starts[line - 1] + 1
        return Position(line, column, max(1, min(end - start, len(self.line(line)) - column + 1)))

    def _scan(self) -> None:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._key_and_value(table)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        start = self._at
        is_element = self._text.startswith("[[", start)
        brackets = 2 if is_element else 1
        self._at += brackets
        path = self._inside_arrays(self._dotted_key(), is_element=is_element)
        self._expect("]" * brackets)
        self._keys[path] = (start, self._at)
        return path

    def _inside_arrays(self, names: tuple[str, ...], *, is_element: bool) -> KeyPath:
        """Insert the number of the current element wherever the path crosses an array of tables."""
        path: KeyPath = ()
        for depth, name in enumerate(names, start=1):
            path = (*path, name)
            if is_element and depth == len(names):
                self._elements[path] = self._elements.get(path, -1) + 1
            if path in self._elements:
                path = (*path, self._elements[path])
        return path

    def _key_and_value(self, table: KeyPath) -> None:
        start = self._at
        names = self._dotted_key()
        for depth in range(1, len(names) + 1):
            self._keys.setdefault((*table, *names[:depth]), (start, len(self._text[start : self._at].rstrip()) + start))
        self._expect("=")
        self._skip(_SPACE)
        self._value((*table, *names))

    def _dotted_key(self) -> tuple[str, ...]:
        names: list[str] = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at : self._at + 1] in ("'", '"'):
                names.append(tomllib.loads(f"k = {self._take(_QUOTED_KEY)}")["k"])
            else:
                names.append(self._take(_BARE_KEY))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return tuple(names)
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        start = self._at
        match self._text[start : start + 1]:
            case "'" | '"':
                self._take(_STRING)
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                self._at = start + len(self._take(_BARE_VALUE).rstrip())
        self._values[path] = (start, self._at)

    def _array(self, path: KeyPath) -> None:
        self._expect("[")
        self._skip(_BLANK)
        number = 0
        while not self._text.startswith("]", self._at):
            self._value((*path, number))
            number += 1
            self._separator()
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._expect("{")
        self._skip(_BLANK)
        while not self._text.startswith("}", self._at):
            self._key_and_value(path)
            self._separator()
        self._at += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if not found:
            raise _Unskippable
        self._at = found.end()
        return found.group()

    def _expect(self, token: str) -> None:
        if not self._text.startswith(token, self._at):
            raise _Unskippable
        self._at += len(token)
