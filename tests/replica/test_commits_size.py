"""An answer with decided positions stays within what a frame holds."""

from bftkit.core.ids import canonical
from bftkit.replica import catch_up
from bftkit.replica.messages import Commits, FetchCommits
from tests.replica.test_catch_up import decide, pair


def test_an_answer_with_decided_positions_is_cut_at_its_size(monkeypatch):
    net, ahead, _ = pair()
    net.start()
    decide(ahead, 6)
    entries = tuple(ahead.replica.commits)
    monkeypatch.setattr(catch_up, "COMMITS_BYTES", sum(len(canonical(entry)) for entry in entries[:3]))
    ahead.sent.clear()
    ahead.hear(1, FetchCommits(0))
    (answer,) = [message for _, message in ahead.messages(Commits)]
    assert answer == Commits(entries[:3], 6)
    monkeypatch.setattr(catch_up, "COMMITS_BYTES", 1)
    ahead.sent.clear()
    ahead.hear(1, FetchCommits(0))
    assert [message.entries for _, message in ahead.messages(Commits)] == [entries[:1]]
