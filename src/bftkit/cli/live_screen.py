"""The demonstration in a terminal: lines that stay, and below them a table that changes."""

from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

REFRESHES_PER_S = 8
ROOT_DIGITS = 12


class LiveScreen:
    """Fits into 80 columns and 24 lines; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, refresh_per_second=REFRESHES_PER_S, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, at: float, text: str) -> None:
        """Write a line above the table."""
        self._live.console.print(Text(f" t={at:4.1f}s  {text}" if at else text))

    def show(self, at: float, status: Sequence[dict[str, Any]], rate: float) -> None:
        """Renew the table; the first time starts the thread that draws it, once all processes are there."""
        self._live.start()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("replica", "view", "leader", "height", "applied", "state root"):
            table.add_column(column, style="dim")
        for replica in status:
            if "error" in replica:
                table.add_row(replica["id"], Text("gone", style="red"))
                continue
            name = Text(replica["id"], style="bold" if replica["id"] == replica["leader"] else "")
            root = replica["state_root"][:ROOT_DIGITS]
            numbers = (str(replica["view"]), replica["leader"] or "-", f"{replica['height']:,}")
            table.add_row(name, *numbers, f"{replica['applied']:,}", root)
        self._live.update(Group(Text(f"\n t={at:4.1f}s  {rate:,.0f} commands per second"), table))
