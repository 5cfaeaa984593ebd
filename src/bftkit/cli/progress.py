"""Progress on standard error: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bftkit.cli.options import tell

LINE_EVERY_S = 2.0
"""How often a line is written where no bar can be drawn."""

Show = Callable[[int, int, str], None]
"""Takes how much is done, how much there is, and a few words more."""


@contextmanager
def progress_of(what: str) -> Iterator[Show]:
    """Give a function that shows how far the work has come; `what` names its units."""
    if sys.stderr.isatty():
        with _bar(what) as show:
            yield show
    else:
        yield _Lines(what).show


@contextmanager
def _bar(what: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what)

        def show(done: int, planned: int, words: str) -> None:
            progress.update(task, completed=done, total=planned, description=f"{what}  {words}")

        yield show


class _Lines:
    """Lines, for what is not a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = time.monotonic()

    def show(self, done: int, planned: int, words: str) -> None:
        """Write a line, unless the last one was a moment ago."""
        now = time.monotonic()
        if now - self._told >= LINE_EVERY_S or done == planned:
            self._told = now
            tell(f"{done:,} of {planned:,} {self._what}  {words}")
