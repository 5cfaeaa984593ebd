"""Timers of a simulated member: by its own clock, some late, and gone with its life."""

from __future__ import annotations

import pytest

from bftkit.core.outputs import CancelTimer, SetTimer
from bftkit.replica.sync_timers import PROGRESS_TIMER
from bftkit.testing.disk import CrashMode
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import make_world
from bftkit.testing.solo import solo_spec
from bftkit.testing.timers import LATEST, SimulatedTimers

MS = 1_000


class Watched:
    """A member with nothing to do, and timers beside its own."""

    def __init__(self, seed: int = 1, late: float = 0.0, rate: int = 1_000, **choices: object) -> None:
        profile = Profile(clients=0, clock_rates=(rate,))
        self.world = make_world(seed, solo_spec(), 1, profile, **choices)
        self.world.start()
        (self.node,) = self.world.nodes
        self.fired: list[tuple[str, int]] = []
        self.began_us = self.world.events.now_us
        self.timers = SimulatedTimers(self.node, late, self.note)

    def note(self, timer: str) -> None:
        self.fired.append((timer, self.world.events.now_us - self.began_us))

    def run(self, ms: int) -> list[tuple[str, int]]:
        self.world.events.run(self.world.events.now_us + ms * MS)
        return self.fired


def test_a_timer_runs_out_once_after_its_delay():
    watched = Watched()
    watched.timers.set(SetTimer("view", 30))
    assert "view" in watched.timers
    assert len(watched.timers) == 1
    assert watched.run(29) == []
    assert watched.run(1) == [("view", 30 * MS)]
    assert "view" not in watched.timers
    assert len(watched.timers) == 0
    assert len(watched.run(1_000)) == 1


def test_the_timers_of_the_engine_are_told_apart():
    watched = Watched()
    watched.timers.set(SetTimer(PROGRESS_TIMER, 30))
    watched.timers.set(SetTimer("engine/view", 20))
    watched.timers.set(SetTimer("engine/relay", 40))
    assert watched.timers.of_engine == {"view", "relay"}
    watched.run(25)
    assert watched.timers.of_engine == {"relay"}
    watched.timers.cancel(CancelTimer("engine/relay"))
    assert watched.timers.of_engine == set()


def test_a_timer_that_is_set_again_runs_out_later_and_once():
    watched = Watched()
    watched.timers.set(SetTimer("view", 30))
    watched.run(20)
    watched.timers.set(SetTimer("view", 30))
    assert watched.run(1_000) == [("view", 50 * MS)]


def test_a_timer_may_be_set_to_run_out_sooner():
    watched = Watched()
    watched.timers.set(SetTimer("view", 30))
    watched.timers.set(SetTimer("view", 10))
    assert watched.run(1_000) == [("view", 10 * MS)]


def test_a_cancelled_timer_does_not_run_out_and_others_do():
    watched = Watched()
    for timer in ("one", "other"):
        watched.timers.set(SetTimer(timer, 10))
    watched.timers.cancel(CancelTimer("one"))
    watched.timers.cancel(CancelTimer("none"))
    assert watched.run(100) == [("other", 10 * MS)]


def test_a_timer_may_set_itself_again_when_it_runs_out():
    watched = Watched()
    watched.timers = SimulatedTimers(
        watched.node, 0.0, lambda timer: (watched.note(timer), watched.timers.set(SetTimer(timer, 10)))
    )
    watched.timers.set(SetTimer("tick", 10))
    assert [at for _, at in watched.run(35)] == [10 * MS, 20 * MS, 30 * MS]


def test_jitter_is_drawn_and_stays_within_its_bound():
    watched = Watched()
    for number in range(200):
        watched.timers.set(SetTimer(f"t{number}", 10, jitter_ms=5))
    delays = [at // MS for _, at in watched.run(1_000)]
    assert set(delays) == {10, 11, 12, 13, 14, 15}
    calm = Watched(decisions={})
    calm.timers.set(SetTimer("t", 10, jitter_ms=5))
    assert calm.run(100) == [("t", 10 * MS)], "none where nothing is decided"


def test_some_timers_are_late_but_never_early_nor_for_ever():
    watched = Watched(late=1.0)
    for number in range(200):
        watched.timers.set(SetTimer(f"t{number}", 10))
    delays = [at // MS for _, at in watched.run(10_000)]
    assert len(delays) == 200
    assert set(delays) == {10 * times for times in range(1, LATEST + 1)}
    assert watched.world.hits["late_timers"] == sum(delay > 10 for delay in delays) < 200


def test_no_timer_is_late_once_everything_has_healed():
    watched = Watched(late=1.0)
    watched.world.heal()
    for number in range(50):
        watched.timers.set(SetTimer(f"t{number}", 10))
    assert {at for _, at in watched.run(10)} == {10 * MS}
    assert watched.world.hits["late_timers"] == 0


@pytest.mark.parametrize(("rate", "at_us"), [(1_000, 99_000), (900, 110_000), (1_100, 90_000)])
def test_delays_go_by_the_member_s_own_clock(rate, at_us):
    watched = Watched(rate=rate)
    watched.timers.set(SetTimer("view", 99))
    assert watched.run(1_000) == [("view", at_us)]


def test_a_leap_of_the_clock_brings_deadlines_nearer():
    watched = Watched()
    for timer, delay in (("passed", 20), ("nearer", 100)):
        watched.timers.set(SetTimer(timer, delay))
    watched.run(5)
    watched.node.clock.leap(40)
    watched.timers.leap()
    assert watched.run(0) == [("passed", 5 * MS)]
    assert watched.run(1_000) == [("passed", 5 * MS), ("nearer", 60 * MS)]


def test_the_member_itself_leaps_with_its_timers():
    watched = Watched()
    node = watched.node
    node.timers.set(SetTimer("node/sync", 50_000))
    before = node.clock.now_ms()
    node.leap(60_000)
    assert node.clock.now_ms() == before + 60_000
    watched.run(1)
    assert "node/sync" not in node.timers


def test_timers_die_with_the_life_that_set_them():
    watched = Watched()
    watched.timers.set(SetTimer("view", 10))
    watched.node.crash(CrashMode.NOTHING)
    watched.run(5)
    watched.node.start()
    assert watched.run(1_000) == []
