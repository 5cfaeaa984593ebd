"""An order of events by priority."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bftkit.testing.adversary import LONGEST_WAIT_US, MOST_CHANGES, AdversarialHeap
from bftkit.testing.checkers import Violation
from bftkit.testing.choices import Choices
from bftkit.testing.journal import Journal
from bftkit.testing.network import Network
from bftkit.testing.profile import Profile
from bftkit.testing.shrink import record_case, shrink_case
from bftkit.testing.simulation import finish, make_world, run_schedule, seeded_world
from bftkit.testing.solo import solo_spec
from bftkit.testing.specs import SHORT_TIMEOUTS_MS

SECOND = 1_000_000
VIEW_US = 1_000 * SHORT_TIMEOUTS_MS["view_timeout_ms"]
ADVERSARIAL = Profile(adversarial=True, clients=2, envelopes=20, think_ms=20)


class Watched:
    """An adversary whose events are noted, with the time at which they became due."""

    def __init__(self, seed: int = 1, duration_us: int = 4 * SECOND, **choices: object) -> None:
        self.choices = Choices(seed, **choices)
        self.hits: Counter[str] = Counter()
        self.heap = AdversarialHeap(self.choices.order, duration_us, self.hits)
        self.seen: list[tuple[str, int, int]] = []

    def note(self, kind: str, where: int, due_us: int) -> None:
        self.seen.append((kind, where, due_us))
        assert 0 <= self.heap.now_us - due_us <= LONGEST_WAIT_US

    def put(self, kind: str, where: int, delay_us: int) -> None:
        self.heap.due(kind, where, delay_us, self.note, kind, where, self.heap.now_us + delay_us)

    def fill(self) -> Watched:
        for number in range(100):
            for kind, where in (("link", 1), ("link", 2), ("timers", 1), ("disk", 0)):
                self.put(kind, where, 10_000 * number)
        return self

    def run(self, us: int = 10 * SECOND) -> list[tuple[str, int, int]]:
        self.heap.run(self.heap.now_us + us)
        return self.seen


def test_sources_overtake_each_other_and_each_keeps_an_order_of_its_own():
    watched = Watched().fill()
    seen = watched.run()
    assert len(seen) == 400
    assert seen != sorted(seen, key=lambda each: each[2])
    for source in {each[:2] for each in seen}:
        times = [due for kind, where, due in seen if (kind, where) == source]
        assert times == sorted(times)
    assert watched.hits["adversarial order"] > 100


def test_every_seed_has_priorities_of_its_own():
    lasts = {Watched(seed).fill().run()[-1][:2] for seed in range(40)}
    assert lasts == {("link", 1), ("link", 2), ("timers", 1), ("disk", 0)}


def test_one_seed_is_one_order_and_what_was_recorded_is_played_back():
    recording = Watched(3, record=True)
    order = recording.fill().run()
    assert Watched(3).fill().run() == order
    assert Watched(99, decisions=recording.choices.recorded).fill().run() == order
    assert Watched(4).fill().run() != order


def test_with_nothing_decided_the_order_is_that_of_time():
    watched = Watched(decisions={}).fill()
    seen = watched.run()
    assert seen == sorted(seen, key=lambda each: each[2])
    assert (watched.hits, watched.heap.changes) == ({}, 0)


def test_what_the_world_itself_does_keeps_its_time():
    for seed in range(10):
        watched = Watched(seed).fill()
        heap, times = watched.heap, []
        for number in range(10):
            heap.after(50_000 * number, lambda heap=heap, times=times: times.append(heap.now_us))
        watched.run()
        assert times == [50_000 * number for number in range(10)]


def test_at_a_change_whoever_has_its_turn_falls_behind_with_all_that_it_has_under_way():
    decisions = {
        ("order", "longest wait", 0, 0): 500_000,
        ("order", "change", 2, 0): 1,
        ("order", "change at", 2, 0): 25_000,
    }
    watched = Watched(decisions=decisions)
    for number in range(5):
        watched.put("link", 7, 10_000 * number)
        watched.put("link", 8, 10_000 * number + 1)
    seen = watched.run()
    assert watched.heap.changes == 1
    assert seen[:6] == [("link", where, 10_000 * number + where - 7) for number in range(3) for where in (7, 8)]
    assert [where for _, where, _ in seen[6:]] == [8, 8, 7, 7]


def test_priorities_change_a_handful_of_times_in_a_run():
    changes = []
    for seed in range(30):
        world = make_world(seed, solo_spec(), 1, ADVERSARIAL)
        assert finish(world).ok
        changes.append(world.events.changes)
    assert set(changes) <= set(range(MOST_CHANGES + 1))
    assert 3 <= sum(changes) / len(changes) <= 5


def test_when_it_is_over_everything_that_waits_happens_next_and_in_the_order_of_time():
    for seed in range(10):
        watched = Watched(seed).fill()
        watched.run(SECOND // 2)
        watched.heap.keep_time()
        waiting = 400 - len(watched.seen)
        watched.seen.clear()
        watched.put("link", 1, 300)
        seen = watched.run(1)
        assert all(due <= SECOND // 2 + 1 for _, _, due in seen)
        seen = watched.run()
        later = [due for _, _, due in seen if due > SECOND // 2 + 1]
        assert later == sorted(later)
        assert len(seen) == waiting + 1


# --- Whole schedules ------------------------------------------------------------------------------------------------


class Overtaken:
    """A world in which it is noted what happens before what was due earlier, by kind."""

    def __init__(self, seed: int, engine: str) -> None:
        self.world = seeded_world(seed, engine=engine, replicas=4, profile=ADVERSARIAL, journal=Journal())
        self.pairs: Counter[tuple[str, str]] = Counter()
        self._latest: dict[str, int] = {}
        heap, due = self.world.events, self.world.events.due

        def noted(kind, where, delay_us, function, *arguments):
            due(kind, where, delay_us, self.happens, kind, heap.now_us + delay_us, function, arguments)

        for user in (self.world, self.world.network):
            # The heap has slots: whoever schedules is given one that notes.
            name = "events" if user is self.world else "_events"
            setattr(user, name, Forwarding(heap, noted))

    def happens(self, kind, due_us, function, arguments) -> None:
        for other, latest in self._latest.items():
            self.pairs[other, kind] += due_us < latest
        self._latest[kind] = max(due_us, self._latest.get(kind, 0))
        function(*arguments)


def arrivals(journal: Journal) -> list[tuple[int, int, int]]:
    """List the messages that arrived: when each was sent, when it came, and to whom."""
    found = []
    for entry in journal.entries:
        if entry.kind == "message" and entry.sent_us is not None and entry.to is not None:
            found.append((entry.sent_us, entry.at_us, entry.to))
    return found


class Forwarding:
    """A heap whose `due` is another."""

    def __init__(self, heap, due) -> None:
        self._heap = heap
        self.due = due

    def __getattr__(self, name):
        return getattr(self._heap, name)


@pytest.mark.parametrize("engine", ["pbft", "raft", "hotstuff"])
def test_messages_and_timers_and_syncs_and_what_clients_hear_overtake_each_other(engine):
    pairs: Counter[tuple[str, str]] = Counter()
    for seed in range(12):
        watched = Overtaken(seed, engine)
        outcome = finish(watched.world)
        assert outcome.ok, (seed, outcome.violations)
        pairs.update(watched.pairs)
    kinds = ("link", "timers", "disk", "application", "requests", "answers", "client")
    assert [(one, other) for one in kinds for other in kinds if one != other and not pairs[one, other]] == []


@pytest.mark.parametrize("engine", ["pbft", "raft", "hotstuff"])
def test_a_message_outlives_a_view_timeout_and_the_views_that_it_saw_begin(engine):
    outlived = 0
    for seed in range(12):
        journal = Journal()
        world = seeded_world(seed, engine=engine, replicas=4, profile=ADVERSARIAL, journal=journal)
        assert finish(world).ok
        timers = [(entry.who, entry.at_us) for entry in journal.entries if entry.kind == "timer"]
        late = [each for each in arrivals(journal) if each[1] - each[0] > VIEW_US]
        outlived += sum(
            any(who == to and sent_us + VIEW_US < at_us < came_us for who, at_us in timers)
            for sent_us, came_us, to in late[:50]
        )
    assert outlived > 20


def test_after_healing_no_message_is_later_than_a_calm_network_makes_it():
    for seed in range(6):
        journal = Journal()
        world = seeded_world(seed, engine="pbft", replicas=4, profile=ADVERSARIAL, journal=journal)
        assert finish(world).ok
        healed_us = 1_000 * ADVERSARIAL.duration_ms
        least, spread = ADVERSARIAL.link_us
        after = [each for each in arrivals(journal) if each[1] > healed_us]
        assert after
        for sent_us, came_us, _ in after:
            assert came_us - max(sent_us, healed_us) <= least + spread + 1


@pytest.mark.parametrize("engine", ["pbft", "raft", "hotstuff"])
def test_a_recorded_run_is_played_back_and_one_without_these_decisions_keeps_time(engine):
    case, outcome = record_case(5, engine=engine, profile=ADVERSARIAL)
    assert outcome.faults_hit["adversarial order"] > 50
    assert case.run().trace_hash == outcome.trace_hash
    kept = [each for each in case.decisions if each[0][0] != "order"]
    fewer = msgspec.structs.replace(case, decisions=kept)
    assert "adversarial order" not in fewer.run().faults_hit
    assert fewer.run().ok


def test_what_only_a_late_message_shows_is_shrunk_to_the_order_that_shows_it(monkeypatch):
    arrive = Network._arrive

    def arrives(self, link, session, sender, receiver, message, sent_us):
        if self._profile.adversarial and self._events.now_us - sent_us > VIEW_US:
            raise Violation("a message outlives a view timeout")
        arrive(self, link, session, sender, receiver, message, sent_us)

    monkeypatch.setattr(Network, "_arrive", arrives)
    case, outcome = record_case(5, engine="pbft", profile=msgspec.structs.replace(ADVERSARIAL, loss=0.05, crashes=2))
    assert outcome.violations == ("a message outlives a view timeout",)
    small = shrink_case(case, most_runs=120).case
    assert small.run().violations == outcome.violations
    kinds = {name[1] for name, _ in small.decisions if name[0] == "order"}
    assert {"longest wait", "wait of link"} <= kinds
    assert len(small.decisions) < len(case.decisions) / 20


@pytest.mark.parametrize("engine", ["pbft", "raft", "hotstuff"])
@pytest.mark.parametrize("in_order", [True, False])
def test_an_adversarial_order_divides_nobody(engine, in_order):
    profile = msgspec.structs.replace(ADVERSARIAL, in_order=in_order, crashes=2, loss=0.05)
    for seed in range(8):
        outcome = run_schedule(seed, engine=engine, profile=profile)
        assert outcome.violations == (), f"seed {seed}"
