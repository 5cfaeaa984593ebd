"""A simulated run as a picture: who said what to whom, in one HTML file that needs nothing else.

One line for each instance, time downwards, an arrow for each message, marks for crashes, timers and decisions. It
opens at the end, where the violation is; what is not wanted can be filtered away. Time is not to scale: a row is a
moment at which something is seen, so that a busy millisecond can be read as well as a quiet minute.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.testing.journal import Journal

if TYPE_CHECKING:
    from bftkit.testing.world import World

PLACE = "__DATA__"
"""Where the events go in the page."""

_IN_SCRIPTS = (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))
"""What must not stand as it is inside a script element, whatever a message says."""


def chart_page(
    journal: Journal, *, title: str, violation: str | None = None, names: Sequence[str] | None = None
) -> str:
    """Return the page of a run.

    `names` are those of the instances, n0 and so on by default; what stands behind ": " is a note about one.
    """
    data: dict[str, Any] = {
        "title": title,
        "violation": violation or "",
        "names": list(names) if names is not None else _names(journal),
        "entries": journal.entries,
    }
    text = msgspec.json.encode(data).decode()
    for plain, escaped in _IN_SCRIPTS:
        text = text.replace(plain, escaped)
    template = files("bftkit.testing").joinpath("chart.html").read_text(encoding="utf-8")
    return template.replace(PLACE, text)


def _names(journal: Journal) -> list[str]:
    instances = [entry.who for entry in journal.entries if entry.kind != "answered"]
    instances += [entry.to for entry in journal.entries if entry.to is not None]
    return [f"n{index}" for index in range(max(instances, default=-1) + 1)]


def instance_names(world: "World") -> list[str]:
    """Return the names of a world's instances, with a note about those that need not keep to the rules."""
    suspects, members = world.checkers.suspects, len(world.instances)
    names = []
    for node in world.nodes:
        name = f"n{node.index}" if node.instance < members else f"n{node.index}, its twin"
        why = suspects.get(node.index)
        names.append(name if why is None else f"{name}: {why}")
    return names


def write_chart(
    path: str | Path,
    journal: Journal,
    *,
    title: str,
    violation: str | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Write the page of a run to a file; arguments as for `chart_page`."""
    page = chart_page(journal, title=title, violation=violation, names=names)
    Path(path).write_text(page, encoding="utf-8")
