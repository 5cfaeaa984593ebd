"""Charts of runs."""

from __future__ import annotations

import json
import re

from bftkit.testing.chart import chart_page, write_chart
from bftkit.testing.journal import Entry, Journal
from bftkit.testing.simulation import finish, seeded_world


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def journal_of(*entries: Entry) -> Journal:
    journal = Journal()
    journal.entries.extend(entries)
    return journal


def test_a_run_becomes_one_page_with_all_its_events(tmp_path):
    journal = Journal()
    world = seeded_world(3, engine="pbft", journal=journal)
    outcome = finish(world)
    write_chart(tmp_path / "chart.html", journal, title="seed 3", violation="none")
    page = (tmp_path / "chart.html").read_text(encoding="utf-8")
    data = data_of(page)
    assert data["title"] == "seed 3"
    assert data["violation"] == "none"
    assert len(data["entries"]) == len(journal.entries) > 100
    assert data["names"][:4] == ["n0", "n1", "n2", "n3"]
    assert outcome.events
    assert len(page) < 4_000_000


def test_the_page_asks_for_nothing_from_outside():
    page = chart_page(journal_of(), title="empty")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "src=" not in page
    assert "@import" not in page


def test_hostile_text_stays_text():
    hostile = "</script><script>alert('x')</script>&\u2028"
    page = chart_page(journal_of(Entry(1, "reports", 0, what=hostile)), title=hostile, violation=hostile)
    assert page.count("<script") == 2
    assert "alert('x')</script>" not in page
    data = data_of(page)
    assert data["title"] == data["violation"] == data["entries"][0]["what"] == hostile


def test_names_may_be_given_and_twins_have_a_line_each():
    message = Entry(5, "message", 0, 4, 1, "Prepare")
    assert data_of(chart_page(journal_of(message), title="x"))["names"] == ["n0", "n1", "n2", "n3", "n4"]
    assert data_of(chart_page(journal_of(message), title="x", names=["a", "b"]))["names"] == ["a", "b"]
