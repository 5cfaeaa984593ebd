"""An order of delivery by priority."""

from __future__ import annotations

import itertools
from collections import Counter

from bftkit.testing import adversary
from bftkit.testing.adversary import TICK_US, AdversarialOrder
from bftkit.testing.choices import Choices
from bftkit.testing.clock import EventHeap
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import run_schedule


class Watched:
    """An adversary whose deliveries are noted, with their time."""

    def __init__(self, seed: int = 1, in_order: bool = True, **choices: object) -> None:
        self.choices = Choices(seed, **choices)
        self.events = EventHeap()
        self.heard: list[tuple[int, int]] = []
        self.times: list[int] = []
        self.order = AdversarialOrder(self.choices.network, self.events, self.note, in_order)

    def note(self, link: int, number: int) -> None:
        self.heard.append((link, number))
        self.times.append(self.events.now_us)

    def put(self, link: int, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            self.order.put(link, (link, number))

    def run(self, us: int = 10_000_000) -> list[tuple[int, int]]:
        self.events.run(self.events.now_us + us)
        return self.heard


def test_the_link_with_the_highest_priority_is_emptied_first():
    watched = Watched()
    for link in range(5):
        watched.put(link, 10)
    links = [link for link, _ in watched.run()]
    assert Counter(links) == dict.fromkeys(range(5), 10)
    groups = [link for link, _ in itertools.groupby(links)]
    assert len(groups) == 5, "each link in one go"
    assert groups != sorted(groups)


def test_every_seed_has_priorities_of_its_own():
    firsts = set()
    for seed in range(30):
        watched = Watched(seed)
        for link in range(4):
            watched.put(link, 1)
        firsts.add(watched.run()[0][0])
    assert firsts == {0, 1, 2, 3}


def test_one_seed_is_one_order_and_what_was_recorded_is_played_back():
    def heard(watched: Watched) -> list[tuple[int, int]]:
        for link in range(4):
            watched.put(link, 50)
        return watched.run()

    recording = Watched(3, record=True, in_order=False)
    order = heard(recording)
    assert heard(Watched(3, in_order=False)) == order
    assert heard(Watched(99, in_order=False, decisions=recording.choices.recorded)) == order
    assert heard(Watched(4, in_order=False)) != order


def test_a_link_keeps_its_order_unless_it_need_not():
    kept, shuffled = Watched(), Watched(in_order=False)
    for watched in (kept, shuffled):
        watched.put(7, 100)
        watched.run()
    assert kept.heard == [(7, number) for number in range(100)]
    assert shuffled.heard != kept.heard
    assert sorted(shuffled.heard) == kept.heard


def test_one_message_arrives_at_a_time_and_the_next_one_soon():
    watched = Watched()
    watched.put(0, 2_000)
    watched.run()
    gaps = [later - earlier for earlier, later in itertools.pairwise([0, *watched.times])]
    assert set(gaps) == set(range(1, TICK_US + 1))


def test_what_arrives_may_send_more_and_a_higher_link_goes_before_a_lower_one():
    watched = Watched()
    watched.put(0, 1)
    watched.put(1, 1)
    first = watched.run()[0][0]
    second = 1 - first
    watched.heard.clear()
    deliver = watched.note

    def answering(link: int, number: int) -> None:
        deliver(link, number)
        if link == first and number < 5:
            watched.put(first, 1, number + 1)

    watched.order = AdversarialOrder(Choices(1).network, watched.events, answering, True)
    watched.put(0, 1)
    watched.put(1, 1)
    assert watched.run() == [*((first, number) for number in range(6)), (second, 0)]


def test_the_link_whose_turn_it_is_falls_behind_now_and_then(monkeypatch):
    monkeypatch.setattr(adversary, "CHANGE_RATE", 1.0)
    watched = Watched()
    for link in range(3):
        watched.put(link, 2)
    links = [link for link, _ in watched.run()]
    assert watched.order.changes == 6
    assert links[:3] == links[3:], "whoever had its turn waits until all others had theirs"
    assert set(links[:3]) == {0, 1, 2}


def test_the_order_changes_a_handful_of_times_in_a_run():
    changes = []
    for seed in range(30):
        outcome = run_schedule(seed, engine="pbft", profile=Profile(adversarial=True, clients=2))
        assert outcome.violations == (), f"seed {seed}"
        changes.append(outcome.faults_hit["adversarial order"])
    assert 1 <= sum(changes) / len(changes) <= 6


def test_what_waits_is_given_back_link_by_link_and_nothing_comes_twice():
    watched = Watched()
    watched.put(2, 2)
    watched.put(0, 1)
    assert watched.order.release() == [(0, 0), (2, 0), (2, 1)]
    assert watched.order.release() == []
    assert watched.run() == []
    watched.put(1, 1)
    assert watched.run() == [(1, 0)], "it goes on afterwards"
