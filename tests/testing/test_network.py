"""The simulated network: sessions, loss, order, cuts."""

from __future__ import annotations

from collections import Counter

from bftkit.core.batch import make_batch
from bftkit.testing.choices import Choices
from bftkit.testing.clock import EventHeap
from bftkit.testing.journal import Journal
from bftkit.testing.network import LARGE_BYTES, Network, SpoiltFrame
from bftkit.testing.profile import Profile

SECOND = 1_000_000


class Watched:
    """Three members that only listen."""

    def __init__(self, seed: int = 1, **profile) -> None:
        self.events = EventHeap()
        self.hits: Counter[str] = Counter()
        self.journal = Journal()
        self.heard: list[tuple[int, int, object]] = []
        self.channels: list[tuple[int, int, bool]] = []
        self.network = Network(
            3,
            Profile(**profile),
            Choices(seed).network,
            self.events,
            lambda sender, receiver, message: self.heard.append((sender, receiver, message)),
            lambda member, peer, up: self.channels.append((member, peer, up)),
            self.hits,
            self.journal,
        )
        for member in range(3):
            self.network.start(member)
        self.run()

    def run(self, duration: int = 2 * SECOND) -> None:
        self.events.run(self.events.now_us + duration)

    def send(self, count: int = 1, sender: int = 0, receiver: int = 1) -> list:
        self.heard.clear()
        for number in range(count):
            self.network.send(sender, receiver, number)
        self.run()
        return [message for _, _, message in self.heard]


def test_members_that_run_get_channels_and_messages_arrive():
    watched = Watched()
    assert sorted(watched.channels) == sorted(
        (one, other, True) for one in range(3) for other in range(3) if one != other
    )
    assert watched.send(3) == [0, 1, 2]


def test_an_ordered_link_keeps_its_order_and_another_does_not():
    assert Watched(link_us=(10, 100_000)).send(200) == list(range(200))
    shuffled = Watched(link_us=(10, 100_000), in_order=False).send(200)
    assert shuffled != list(range(200))
    assert sorted(shuffled) == list(range(200))


def test_loss_and_duplication_follow_their_rates():
    kept = Watched(loss=0.3).send(1_000)
    assert 600 < len(kept) < 800
    doubled = Watched(duplication=0.3).send(1_000)
    assert 1_200 < len(doubled) < 1_400
    assert set(doubled) == set(range(1_000))


def test_a_cut_goes_one_way_and_ends_the_session_when_it_is_noticed():
    watched = Watched()
    watched.channels.clear()
    watched.network.cut(0, 1)
    watched.network.send(0, 1, "lost")
    watched.network.send(1, 0, "heard")
    watched.run()
    assert [message for _, _, message in watched.heard] == ["heard"]
    assert sorted(watched.channels) == [(0, 1, False), (1, 0, False)]
    assert watched.send() == []
    watched.network.heal(0, 1)
    watched.run()
    assert watched.send() == [0]


def test_a_cut_that_heals_before_it_is_noticed_costs_no_session():
    watched = Watched()
    watched.channels.clear()
    watched.network.cut(0, 1)
    watched.network.heal(0, 1)
    watched.run()
    assert watched.channels == []
    assert watched.send() == [0]


def test_a_message_dies_with_its_session():
    watched = Watched(link_us=(500_000, 0))
    watched.network.send(0, 1, "before")
    watched.network.crash(1)
    watched.network.start(1)
    watched.run()
    assert watched.heard == []
    assert watched.channels[-4:].count((0, 1, True)) == 1
    assert watched.send() == [0]


def test_calming_down_ends_every_cut():
    watched = Watched(loss=1.0)
    watched.network.cut(0, 1)
    watched.network.cut(1, 0)
    watched.run()
    watched.network.calm_down(Profile())
    watched.run()
    assert watched.send(5) == [0, 1, 2, 3, 4]


def test_a_clogged_link_loses_nothing_and_releases_in_order():
    watched = Watched()
    watched.network.clog(0, 1)
    assert watched.send(5) == []
    assert watched.hits["clogs"] == 5
    watched.network.release(0, 1)
    watched.run()
    assert [message for _, _, message in watched.heard] == [0, 1, 2, 3, 4]


def test_clogs_add_up():
    watched = Watched()
    watched.network.clog(0, 1)
    watched.network.clog(0, 1)
    watched.network.release(0, 1)
    assert watched.send(1) == []
    watched.network.release(0, 1)
    watched.run()
    assert len(watched.heard) == 1


def test_what_was_sent_long_ago_comes_again_even_after_a_crash():
    watched = Watched(replay=0.5)
    watched.send(20)
    watched.network.crash(1)
    watched.network.start(1)
    watched.run()
    again = watched.send(1) + [message for _ in range(20) for message in watched.send(1)]
    assert watched.hits["replay"] > 5
    assert set(again) - {0}, "something of the earlier session"


def test_an_old_message_comes_again_over_its_own_link_whoever_speaks_now():
    watched = Watched(replay=1.0)
    watched.send(3, 0, 1)
    watched.heard.clear()
    watched.network.send(1, 2, "new")
    watched.run()
    (again,) = [each for each in watched.heard if each[1] == 1]
    assert again in [(0, 1, number) for number in range(3)]
    watched.heard.clear()
    watched.network.crash(0)
    for _ in range(20):
        watched.network.send(1, 2, "newer")
    watched.run()
    assert not [each for each in watched.heard if each[0] == 0], "nobody is there who could have sent it"


def test_everything_that_was_sent_may_come_again():
    watched = Watched(replay=0.5)
    watched.send(3_000, 0, 1)
    watched.heard.clear()
    for _ in range(6_000):
        watched.network.send(1, 2, "new")
    watched.run()
    again = [message for sender, _, message in watched.heard if sender == 0 and isinstance(message, int)]
    assert len(set(again)) > 1_000
    assert min(again) < 50
    assert max(again) > 2_950


def test_a_liar_sends_again_as_its_own_what_others_have_sent():
    watched = Watched(replay=1.0)
    watched.network.liars = [2]
    watched.send(50, 0, 1)
    watched.run()
    assert {message for sender, _, message in watched.heard if sender == 2}
    assert watched.hits["replay by a liar"]
    assert watched.hits["replay"]


def test_bulk_is_lost_where_everything_else_passes():
    watched = Watched()
    body = make_batch(0, 1, [b"x"], 1)
    watched.network.shed(0, 1, 1)
    watched.network.send(0, 1, body)
    watched.network.send(0, 1, bytes(LARGE_BYTES + 1))
    watched.network.send(0, 1, bytes(LARGE_BYTES))
    watched.network.send(0, 1, "a vote")
    watched.network.send(1, 0, body)
    watched.run()
    assert [message for _, _, message in watched.heard if message != body] == [bytes(LARGE_BYTES), "a vote"]
    assert [(sender, receiver) for sender, receiver, message in watched.heard if message == body] == [(1, 0)]
    assert watched.hits["lost_bulk"] == 2
    watched.network.shed(0, 1, -1)
    watched.network.send(0, 1, body)
    watched.run()
    assert (0, 1, body) in watched.heard


def test_a_slow_link_takes_its_time_for_each_message():
    watched = Watched(link_us=(0, 0))
    watched.network.pace(0, 1, 500_000)
    assert watched.hits["throttles"] == 0
    assert 3 <= len(watched.send(10)) <= 5, "two seconds at half a second each"
    assert watched.hits["throttles"] == 10
    watched.network.pace(0, 1, 0)
    watched.run(10 * SECOND)
    assert len(watched.send(10)) == 10


def test_a_reset_ends_what_is_on_its_way_and_connects_again():
    watched = Watched(link_us=(500_000, 0))
    watched.channels.clear()
    watched.network.send(0, 1, "lost")
    watched.network.reset(0, 1)
    watched.run()
    assert watched.heard == []
    assert sorted(watched.channels) == [(0, 1, False), (0, 1, True), (1, 0, False), (1, 0, True)]
    assert watched.send() == [0]


def test_frames_are_spoilt_and_marked_as_such():
    watched = Watched(corruption=0.5)
    watched.heard.clear()
    for _ in range(200):
        watched.network.send(0, 1, b"frame")
    watched.network.send(0, 1, "no frame")
    watched.run()
    spoilt = [message for _, _, message in watched.heard if isinstance(message, SpoiltFrame)]
    assert 60 < len(spoilt) < 140
    assert all(message != b"frame" for message in spoilt)
    assert any(len(message) < 5 for message in spoilt)


def test_calming_down_delivers_what_is_on_its_way_and_what_the_clogs_hold():
    watched = Watched(link_us=(10 * SECOND, 0))
    watched.network.clog(1, 2)
    watched.heard.clear()
    watched.network.send(1, 2, "clogged")
    watched.run(11 * SECOND)
    watched.network.send(0, 1, "pending")
    watched.network.calm_down(Profile())
    watched.run(sum(Profile().link_us))
    assert sorted(message for _, _, message in watched.heard) == ["clogged", "pending"]


def test_calming_down_leaves_what_is_on_its_way_in_its_order():
    """A slow link has much under way, which neither takes its time any longer nor falls behind what is sent later."""
    watched = Watched(link_us=(0, 0))
    watched.heard.clear()
    watched.network.pace(0, 1, 500_000)
    for number in range(50):
        watched.network.send(0, 1, number)
    watched.run(SECOND)
    watched.network.calm_down(Profile())
    for number in range(50, 100):
        watched.network.send(0, 1, number)
    watched.run(2 * sum(Profile().link_us))
    assert [message for _, _, message in watched.heard] == list(range(100))


def test_the_journal_tells_what_arrived_and_what_did_not():
    watched = Watched()
    watched.network.send(0, 1, "one")
    watched.run()
    watched.network.cut(0, 1)
    watched.network.send(0, 1, "two")
    kinds = [(entry.kind, entry.who, entry.to) for entry in watched.journal.entries]
    assert kinds == [("message", 0, 1), ("lost", 0, 1)]
    arrived = watched.journal.entries[0]
    assert arrived.sent_us is not None
    assert arrived.sent_us < arrived.at_us
