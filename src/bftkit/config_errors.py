"""What is wrong with a configuration file: where, what, and what was probably meant."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Literal

import msgspec

Severity = Literal["error", "warning"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One finding in one file."""

    file: str
    """The path as it was opened."""
    line: int = 0
    """Counted from 1; 0 if the finding has no place in the text."""
    column: int = 0
    """Counted from 1, in characters."""
    width: int = 1
    """How many characters the caret underlines."""
    source: str = ""
    """The text of the line."""
    key: str = ""
    """The setting concerned, such as `members[2].public_key`."""
    message: str
    """What is wrong, in one sentence."""
    suggestion: str = ""
    """What to do about it; empty if nothing sensible can be said."""
    severity: Severity = "error"
    """A warning does not keep the node from starting."""

    def render(self) -> str:
        """Return the finding as a compiler would print it, several lines without a newline at the end."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        lines = [f"{place}: {self.severity}: {self.message}"]
        if self.line:
            number = f"{self.line:5d}"
            # Tabs are kept in the margin, so that the caret stands under the key in any terminal.
            margin = "".join("\t" if character == "\t" else " " for character in self.source[: self.column - 1])
            lines.append(f"{number} | {self.source}")
            lines.append(f"{' ' * len(number)} | {margin}{'^' * max(1, self.width)}")
        if self.suggestion:
            lines.append(f"      = help: {self.suggestion}")
        return "\n".join(lines)


def render(problems: Sequence[Problem]) -> str:
    """Return all findings as text, errors first, each file from top to bottom."""
    ordered = sorted(problems, key=lambda problem: (problem.severity != "error", problem.file, problem.line))
    return "\n".join(problem.render() for problem in ordered)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a suggestion for a misspelt word: the nearest known one, or else the list of all."""
    choices = sorted(known)
    nearest = get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    if nearest:
        return f'did you mean "{nearest[0]}"?'
    return f"known here: {', '.join(choices)}" if choices else ""
