"""The simulated network: sessions, loss, order, cuts."""

from __future__ import annotations

from random import Random

from bftkit.testing.clock import EventHeap
from bftkit.testing.network import Network
from bftkit.testing.profile import Profile

SECOND = 1_000_000


class Watched:
    """Three members that only listen."""

    def __init__(self, seed: int = 1, **profile) -> None:
        self.events = EventHeap()
        self.heard: list[tuple[int, int, object]] = []
        self.channels: list[tuple[int, int, bool]] = []
        self.network = Network(
            3,
            Profile(**profile),
            Random(seed),
            self.events,
            lambda sender, receiver, message: self.heard.append((sender, receiver, message)),
            lambda member, peer, up: self.channels.append((member, peer, up)),
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
