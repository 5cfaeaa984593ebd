"""What happened in a run, event by event."""

from __future__ import annotations

import msgspec
import pytest

from bftkit.core.batch import make_batch
from bftkit.testing.journal import LONGEST_TEXT, Entry, Journal
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, seeded_world


class Vote(msgspec.Struct):
    """A message with something of everything."""

    view: int
    digest: bytes
    parts: tuple[object, ...] = ()
    signature: bytes = b"secret"


@pytest.mark.parametrize(
    ("kind", "what", "name", "text"),
    [
        ("s", 12, "starts", "12"),
        ("c", "torn", "crashes", "torn"),
        ("e", "stopped", "stops for good", "stopped"),
        ("t", "pbft/view", "timer", "pbft/view"),
        ("x", b"\x01\x23" * 16, "executes", "012301230123"),
        ("r", "view", "reports", "view"),
        ("a", 3, "answered", "3"),
        ("f", "partitions", "fault", "partitions"),
    ],
)
def test_each_line_of_a_trace_has_a_name(kind, what, name, text):
    journal = Journal()
    journal.line(5, kind, 2, 7, what)
    assert journal.entries == [Entry(5, name, 2, what=text, text="7")]


def test_the_trace_s_own_lines_about_messages_are_left_out():
    journal = Journal()
    journal.line(5, "m", 2, 1, "Prepare")
    assert journal.entries == []


def test_a_message_is_kept_with_its_way_its_type_and_its_fields_in_short():
    journal = Journal()
    journal.message(9, 0, 3, 4, Vote(1, b"\xab" * 32, ([1, b"\xcd" * 32], Vote(2, b""))))
    journal.lost(9, 0, 3, Vote(1, b""))
    fields = "Vote(view=1, digest=abababab, parts=[[1, cdcdcdcd], Vote(view=2, digest=, parts=[])])"
    assert journal.entries == [
        Entry(9, "message", 0, 3, 4, "Vote", fields),
        Entry(9, "lost", 0, 3, 9, "Vote", "Vote(view=1, digest=, parts=[])"),
    ]


def test_a_long_message_is_cut():
    journal = Journal()
    journal.message(1, 0, 1, 0, Vote(1, b"", tuple(range(1_000))))
    assert len(journal.entries[0].text) == LONGEST_TEXT


def test_a_body_is_named_by_its_batch():
    journal = Journal()
    body = make_batch(0, 2, [b"\x90"], 5)
    journal.message(1, 2, 0, 0, body)
    assert journal.entries[0].text == f"batch {body.ref.digest.hex()[:8]}, 5 commands of n2"


def test_a_frame_is_opened_where_somebody_knows_how():
    journal = Journal()
    journal.message(1, 0, 1, 0, b"frame")
    journal.peek = lambda frame: Vote(len(frame), b"")
    journal.message(1, 0, 1, 0, b"frame")
    assert [(entry.what, entry.text) for entry in journal.entries] == [
        ("bytes", "5 bytes"),
        ("Vote", "Vote(view=5, digest=, parts=[])"),
    ]


def test_each_line_of_the_file_is_one_event(tmp_path):
    journal = Journal()
    journal.line(1, "t", 0, 0, "pbft/view")
    journal.message(2, 0, 1, 1, Vote(1, b""))
    journal.write(tmp_path / "trace.jsonl")
    lines = (tmp_path / "trace.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Entry) for line in lines] == journal.entries
    assert msgspec.json.decode(lines[0]) == {"at_us": 1, "kind": "timer", "who": 0, "what": "pbft/view", "text": "0"}


def test_keeping_a_journal_changes_nothing():
    journal = Journal()
    watched = finish(seeded_world(5, engine="pbft", journal=journal))
    assert watched == finish(seeded_world(5, engine="pbft"))
    assert [entry.at_us for entry in journal.entries] == sorted(entry.at_us for entry in journal.entries)


def test_encoded_messages_are_told_like_others():
    told = []
    for encoded in (False, True):
        journal = Journal()
        finish(seeded_world(1, engine="pbft", profile=Profile(clients=1, encoded=encoded, loss=0.1), journal=journal))
        told.append(journal.entries)
    assert told[0] == told[1]


def test_a_spoilt_frame_is_told_as_one():
    journal = Journal()
    finish(seeded_world(2, engine="pbft", profile=Profile(encoded=True, corruption=0.05), journal=journal))
    spoilt = [entry for entry in journal.entries if entry.what == "SpoiltFrame"]
    assert spoilt
    assert all(entry.text.endswith(" bytes") for entry in spoilt)
