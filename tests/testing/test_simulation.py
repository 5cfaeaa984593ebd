"""The simulator itself: one seed is one run, and broken rules are found."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from bftkit.batteries.counter import Counter
from bftkit.core.outputs import Persist, Send
from bftkit.plugins import load_engine
from bftkit.replica.outputs import Append
from bftkit.testing import simulation
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world, run, run_schedule, simulate
from bftkit.testing.solo import SoloEngine, solo_spec


@pytest.mark.parametrize(("engine", "replicas"), [("solo", 1), ("pbft", 4)])
def test_one_seed_is_one_run(engine, replicas):
    first = run_schedule(3, engine=engine, replicas=replicas)
    again = run_schedule(3, engine=engine, replicas=replicas)
    assert first == again
    assert run_schedule(4, engine=engine, replicas=replicas).trace_hash != first.trace_hash


@pytest.mark.parametrize(("engine", "replicas"), [("solo", 1), ("pbft", 4)])
def test_a_run_does_not_depend_on_the_hash_seed(engine, replicas):
    code = (
        "from bftkit.testing.simulation import run_schedule\n"
        f"print(*[run_schedule(seed, engine={engine!r}, replicas={replicas}).trace_hash for seed in range(4)])"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_frames_and_references_tell_the_same_story():
    by_reference = run_schedule(1, engine="pbft", profile=Profile(clients=2))
    encoded = run_schedule(1, engine="pbft", profile=Profile(clients=2, encoded=True))
    assert by_reference.ok
    assert encoded.ok
    assert by_reference.trace_hash == encoded.trace_hash


# --- Mutants: what a broken engine, replica or shell does must be found ----------------------------------------------


class Forgetful(SoloEngine):
    """Persists nothing."""

    def _order(self):
        return [output for output in super()._order() if not isinstance(output, Persist)]


class Repeating(SoloEngine):
    """Commits one position twice under two numbers."""

    def _on_received(self, event):
        out = super()._on_received(event)
        for output in list(out):
            self._committed += 1
            self._top = max(self._top, self._committed)
            out.append(msgspec.structs.replace(output, position=self._committed))
        return out


class Idle(SoloEngine):
    """Takes no batch."""

    def _order(self):
        return []


class Raising(SoloEngine):
    """Raises on a message."""

    def _on_received(self, event):
        raise KeyError("no such position")


def broken(engine) -> object:
    return msgspec.structs.replace(
        solo_spec(), build=lambda context, genesis, checkpoint, records: engine(context, checkpoint, records)
    )


def violations_of(engine, seeds: int = 30, profile: str = "crash") -> list[str]:
    outcomes = [run_schedule(seed, engine=broken(engine), replicas=1, profile=profile) for seed in range(seeds)]
    return [violation for outcome in outcomes for violation in outcome.violations]


def test_commits_that_do_not_last_are_found():
    assert any("acknowledged" in text or "decides" in text or "executes" in text for text in violations_of(Forgetful))


def test_positions_out_of_order_are_found():
    assert violations_of(Repeating, 5, "calm")


def test_work_that_nobody_does_is_found():
    assert any("nothing that would bring them on" in text for text in violations_of(Idle, 3, "calm"))


def test_an_exception_is_found():
    assert any("raised KeyError" in text for text in violations_of(Raising, 1, "calm"))


def test_an_output_that_overtakes_the_disk_is_found(monkeypatch):
    from bftkit.replica import gate

    monkeypatch.setattr(gate, "_may_pass", lambda output: not isinstance(output, Append))
    outcome = run_schedule(1, engine="pbft", profile="calm")
    assert any("before record" in text for text in outcome.violations)


def test_a_log_that_lies_about_durability_is_found(monkeypatch):
    from bftkit.testing.disk import SimulatedFile

    monkeypatch.setattr(SimulatedFile, "sync", lambda self: None)
    found = [run_schedule(seed, engine="solo", replicas=1, profile="crash").violations for seed in range(20)]
    assert any("took for durable" in text or "acknowledged" in text for texts in found for text in texts)


def test_a_vote_that_is_forgotten_is_found(monkeypatch):
    from bftkit.replica.safety import SigningGuard

    monkeypatch.setattr(SigningGuard, "restore", lambda self, record: None)
    monkeypatch.setattr(SigningGuard, "admit", lambda self, statement: None)
    from bftkit_pbft import restart

    monkeypatch.setattr(restart, "_REPLAYS", {kind: lambda state, record: None for kind in restart._REPLAYS})
    found = [run_schedule(seed, engine="pbft", profile="crash").violations for seed in range(40)]
    assert any("signs two contents" in text or "decides" in text for texts in found for text in texts)


def test_a_group_that_cannot_go_on_is_found():
    world = make_world(1, solo_spec(), 1, Profile(clients=1, envelopes=1))
    world.nodes[0].honest = False
    world.nodes[0].rewrite = lambda outputs: []
    with pytest.raises(simulation.Violation, match="no progress"):
        run(world)


@pytest.mark.parametrize(("liars", "stopped", "too_many"), [(0, 1, False), (0, 2, True), (1, 0, False), (1, 1, True)])
def test_more_members_that_have_stopped_than_may_be_faulty_are_found(liars, stopped, too_many):
    world = make_world(1, load_engine("pbft"), 4, Profile(clients=1, envelopes=2, liars=liars, twins=True))
    assert finish(world).ok
    for node in [node for node in world.nodes if node.honest][:stopped]:
        node.stopped = "its log is damaged"
    if too_many:
        with pytest.raises(simulation.Violation, match="too many members"):
            simulation._expect_survivors(world)
    else:
        simulation._expect_survivors(world)


class Restless(SoloEngine):
    """Says to itself again and again what it said before."""

    def _on_received(self, event):
        out = super()._on_received(event)
        self.said = getattr(self, "said", 0) + 1
        return [*out, Send(self._own, event.message)] if self.said % 500 else out


def test_a_group_that_spends_too_many_steps_on_a_commit_is_found():
    found = violations_of(Restless, 3, "calm")
    assert found
    assert all("steps after everything healed" in text for text in found)


def test_events_that_do_not_end_are_found(monkeypatch):
    monkeypatch.setattr(simulation, "MOST_EVENTS", 50)
    outcome = run_schedule(1, engine="solo", replicas=1, profile="calm")
    assert any("50 events" in text for text in outcome.violations)


def test_a_state_machine_that_gives_other_results_is_found_as_such():
    class Wayward(Counter):
        lives = 0

        def __init__(self):
            super().__init__()
            Wayward.lives += 1
            self.offset = Wayward.lives

        def apply(self, batch):
            return [b"%d" % (int(result) + self.offset) for result in super().apply(batch)]

    outcome = simulate(Wayward, seed=7, faults="calm")
    assert any("other results" in text and "raised" not in text for text in outcome.violations)
