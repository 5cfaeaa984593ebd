"""Charts of runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bftkit.testing
from bftkit.testing.chart import chart_page, instance_names, write_chart
from bftkit.testing.journal import Entry, Journal
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, seeded_world

TEMPLATE = Path(bftkit.testing.__file__).with_name("chart.html").read_text(encoding="utf-8")


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
    assert page.startswith("<!doctype html>")


def test_a_schedule_of_five_thousand_events_stays_below_two_megabytes():
    journal = Journal()
    outcome = finish(seeded_world(0, engine="pbft", replicas=7, journal=journal))
    assert outcome.events > 5_000
    assert len(journal.entries) > 5_000
    journal.entries = journal.entries[:5_000]
    assert len(chart_page(journal, title="long").encode()) < 2_000_000


def test_the_page_asks_for_nothing_from_outside():
    page = chart_page(journal_of(), title="empty")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "src=" not in page
    assert "@import" not in page
    assert "url(" not in page


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


def test_without_a_violation_none_is_shown():
    assert data_of(chart_page(journal_of(), title="good"))["violation"] == ""


def test_liars_and_twins_are_named_as_such():
    world = seeded_world(1, engine="pbft", profile=Profile(liars=1, twins=True))
    names = instance_names(world)
    (twin,) = [index for index, places in enumerate(world.instances) if len(places) == 2]
    assert names[twin] == f"n{twin}: twins"
    assert names[4] == f"n{twin}, its twin: twins"
    assert sorted(set(names) - {names[twin], names[4]}) == [f"n{index}" for index in range(4) if index != twin]


def test_the_page_speaks_of_every_kind_of_event_by_its_name():
    """Kinds that the script treats in a way of their own are those that journals know."""
    journal = Journal()
    finish(seeded_world(1, engine="pbft", profile=Profile(crashes=4, loss=0.1, liars=1), journal=journal))
    kinds = {entry.kind for entry in journal.entries}
    assert kinds == {"message", "lost", "starts", "crashes", "timer", "executes", "reports", "answered", "fault"}
    for kind in kinds | {"stops for good"}:
        assert f'"{kind}"' in TEMPLATE or f"{kind}:" in TEMPLATE, kind
