"""`bftkit watch`, without a cluster: what is new in what replicas say."""

from __future__ import annotations

import json

from bftkit.cli.main import UNREACHABLE, USAGE, run
from bftkit.cli.watch import Watcher


def replica(name: str, **fields):
    whole = {"id": name, "engine": "pbft", "epoch": 0, "view": 0, "leader": "n0", "height": 5, "state_root": "ab" * 32}
    return {**whole, **fields}


def down(name: str):
    return {"id": name, "error": "connection refused"}


def kinds(watcher: Watcher) -> list[tuple[str, str | None]]:
    return [(event["kind"], event["id"]) for event in watcher.events]


def test_only_what_is_new_is_told(capsys):
    watcher = Watcher()
    watcher.take([replica("n0"), replica("n1")])
    assert kinds(watcher) == [("up", "n0"), ("up", "n1"), ("committed", None)]
    watcher.take([replica("n0"), replica("n1")])
    assert len(watcher.events) == 3
    watcher.take([replica("n0", height=9), replica("n1")])
    watcher.take([replica("n0", height=9), replica("n1", height=8)])
    assert kinds(watcher)[3:] == [("committed", None)]
    assert "height 9 (+4)" in capsys.readouterr().out


def test_views_and_replicas_that_come_and_go_are_told():
    watcher = Watcher(quiet=True)
    watcher.take([replica("n0"), replica("n1")])
    watcher.take([down("n0"), replica("n1", view=1, leader="n1")])
    watcher.take([down("n0"), replica("n1", view=1)])
    watcher.take([replica("n0", view=1), replica("n1", view=1)])
    assert kinds(watcher)[3:] == [("down", "n0"), ("view", "n1"), ("up", "n0")]
    assert watcher.events[4]["view"] == 1


def test_where_each_position_takes_a_view_only_those_in_vain_are_told():
    watcher = Watcher(quiet=True)
    for position, view in ((0, 1), (4, 6), (9, 12), (30, 32), (31, 36), (60, 64)):
        watcher.take([replica("n0", engine="hotstuff", position=position, view=view)])
    assert [event["view"] for event in watcher.events if event["kind"] == "view"] == [6, 12, 36]


def test_an_engine_that_is_not_installed_is_watched_all_the_same():
    watcher = Watcher(quiet=True)
    for view in (0, 1):
        watcher.take([replica("n0", engine="strange", view=view)])
    assert kinds(watcher)[-1] == ("view", "n0")


def test_nobody_there_is_unreachable(tmp_path, capsys):
    assert run(["testnet", "new", str(tmp_path / "net"), "--base-port", "0"]) == 0
    capsys.readouterr()
    arguments = ["watch", "--cluster", str(tmp_path / "net"), "--seconds", "0.1", "--json"]
    assert run(arguments) == UNREACHABLE
    assert json.loads(capsys.readouterr().out)


def test_one_document_needs_an_end(tmp_path, capsys):
    assert run(["watch", "--cluster", str(tmp_path), "--json"]) == USAGE
    assert "--seconds or --events" in capsys.readouterr().err
