"""What happened in one simulated run, event by event, for people to read: kept on request only."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bftkit.core.batch import BatchBody

_KINDS = {
    "s": "starts",
    "c": "crashes",
    "e": "stops for good",
    "t": "timer",
    "x": "executes",
    "r": "reports",
    "a": "answered",
    "q": "read",
    "f": "fault",
}
"""Names of the lines of a trace; messages are noted in another way."""

LONGEST_TEXT = 400
"""Characters of a message's fields that are kept."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened."""

    at_us: int
    """Virtual time in microseconds."""
    kind: str
    """"message" when it arrives, "lost" when it never will, "starts", "crashes", "timer", ..."""
    who: int
    """The instance concerned; for a message, who sent it; for "answered" and "read", the client."""
    to: int | None = None
    """Who gets the message."""
    sent_us: int | None = None
    """When it was sent."""
    what: str = ""
    """Type of the message, name of the timer, event of the report."""
    text: str = ""
    """More of it: the fields of a message, in short."""


class Journal:
    """Collects the entries of one run."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.peek: Callable[[bytes], Any] = lambda frame: frame
        """Opens an encoded message; the world of an encoded run knows how."""

    def line(self, at_us: int, kind: str, who: int, number: int, what: Any) -> None:
        """Take a line of the trace."""
        name = _KINDS.get(kind)
        if name is not None:
            text = what.hex()[:12] if isinstance(what, bytes) else str(what)
            self.entries.append(Entry(at_us, name, who, what=text, text=str(number)))

    def message(self, at_us: int, sender: int, receiver: int, sent_us: int, message: Any) -> None:
        """Note a message that has arrived."""
        message = self._opened(message)
        self.entries.append(Entry(at_us, "message", sender, receiver, sent_us, type(message).__name__, _words(message)))

    def lost(self, at_us: int, sender: int, receiver: int, message: Any) -> None:
        """Note a message that never arrives."""
        message = self._opened(message)
        self.entries.append(Entry(at_us, "lost", sender, receiver, at_us, type(message).__name__, _words(message)))

    def _opened(self, message: Any) -> Any:
        return self.peek(message) if type(message) is bytes else message

    def lines(self) -> Iterator[bytes]:
        """Encode each entry as one line of JSON."""
        for entry in self.entries:
            yield msgspec.json.encode(entry)

    def write(self, path: str | Path) -> None:
        """Write all entries to a file, one line of JSON for each."""
        Path(path).write_bytes(b"".join(line + b"\n" for line in self.lines()))


def _words(message: Any) -> str:
    """Return the fields of a message in short: numbers as they are, bytes by their first digits."""
    if isinstance(message, bytes):
        return f"{len(message)} bytes"
    if isinstance(message, BatchBody):
        return f"batch {message.ref.digest.hex()[:8]}, {message.ref.count} commands of n{message.ref.origin}"
    return _short(message)[:LONGEST_TEXT]


def _short(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()[:8]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_short, value)) + "]"
    if isinstance(value, msgspec.Struct):
        fields = (
            f"{name}={_short(getattr(value, name))}" for name in value.__struct_fields__ if not name.startswith("sign")
        )
        return f"{type(value).__name__}({', '.join(fields)})"
    return str(value)
