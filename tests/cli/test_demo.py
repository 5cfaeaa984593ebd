"""What the demonstration prints; the processes themselves are tested in tests/integration."""

import io
from typing import Any

from rich.console import Console

from bftkit.cli.demo import CODES, PlainScreen, _measured, _verdict
from bftkit.cli.live_screen import LiveScreen

STATUS: list[dict[str, Any]] = [
    {"id": "n0", "error": "gone away"},
    {"id": "n1", "leader": "n1", "view": 3, "height": 12, "applied": 1234, "state_root": "ab" * 32},
]
FIGURES = {
    "verdict": "violated",
    "committed": 1234567,
    "lost": 2,
    "duplicated": 0,
    "unknown": 100,
    "agreeing": 3,
    "replicas": 4,
}


def test_plain_lines():
    stream = io.StringIO()
    screen = PlainScreen(stream)
    screen.tell(0.0, "head")
    screen.tell(3.04, "x killed leader n0")
    screen.show(4.0, STATUS, 5.0)
    assert stream.getvalue() == "head\n t=3.0s  x killed leader n0\n"


def test_the_verdict_names_everything_that_is_wrong():
    assert _verdict(FIGURES) == (
        "verdict violated: 1,234,567 commands committed, 2 lost, 0 duplicated, 100 unknown, 3/4 equal state root"
    )


def test_only_violated_safety_has_the_code_of_violated_safety():
    assert CODES == {"ok": 0, "incomplete": 1, "violated": 4}


def test_what_was_measured_is_said_and_nothing_else():
    figures = {"throughput_tx_s": 1234.5, "processes": 4, "tls": True, "fsync": True}
    assert _measured(figures) == "1,234 commands per second · 4 processes · mTLS · fsync to disk"
    figures |= {"tls": False, "fsync": False}
    assert _measured(figures).endswith("no TLS · no fsync to a disk")


def test_the_live_table_fits_into_a_small_terminal():
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=24, force_terminal=True, color_system=None)
    with LiveScreen(console) as screen:
        screen.tell(0.0, "head")
        screen.show(4.0, STATUS, 12_345.0)
        screen.tell(4.1, "x killed")
    shown = stream.getvalue()
    assert "12,345 commands per second" in shown
    assert "gone" in shown
    assert "abababababab" in shown
    assert "ababababababa" not in shown
    assert shown.index("x killed") > shown.index("head")
