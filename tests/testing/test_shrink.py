"""Making failing schedules small."""

from __future__ import annotations

import pytest

from bftkit.errors import ConfigurationError
from bftkit.testing.journal import Journal
from bftkit.testing.profile import Profile
from bftkit.testing.shrink import Case, minimal, record_case, rule_of, shrink_case
from bftkit.testing.simulation import run_schedule
from bftkit.testing.solo import solo_spec
from bftkit.testing.workload import Workload


@pytest.mark.parametrize("needed", [[], [3], [0, 99], [17, 18, 60], list(range(10, 20))])
def test_what_is_not_needed_is_left_out(needed):
    tried = []

    def fails(items):
        tried.append(items)
        return set(needed) <= set(items)

    assert minimal(range(100), fails) == needed
    assert len(tried) < 300


def test_it_stops_when_it_may_not_go_on():
    left = iter(range(5))
    kept = minimal(range(100), lambda items: 50 in items, lambda: next(left, None) is not None)
    assert 50 in kept
    assert 1 < len(kept) < 100


def test_a_rule_is_known_without_its_numbers():
    one = "n3 executes position 17 at height 12 after (3, 4)"
    assert rule_of(one) == rule_of("n0 executes position 2 at height 1 after (1, 1)")
    assert rule_of(one) != rule_of("n3 signs two contents for ('prepare', 0, 1)")


@pytest.mark.parametrize("seed", [1, 5, 9])
def test_a_recorded_case_replays_event_by_event_also_from_its_file(tmp_path, seed):
    case, outcome = record_case(seed, engine="pbft")
    assert outcome.trace_hash == run_schedule(seed, engine="pbft").trace_hash, "recording changes nothing"
    case.write(tmp_path / "case.json")
    journal = Journal()
    again = Case.read(tmp_path / "case.json").run(journal)
    assert again.trace_hash == outcome.trace_hash
    assert journal.entries


def test_a_file_that_holds_no_case_is_refused(tmp_path):
    (tmp_path / "case.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="holds no case"):
        Case.read(tmp_path / "case.json")
    with pytest.raises(ConfigurationError, match="holds no case"):
        Case.read(tmp_path / "none.json")


def test_a_case_that_breaks_nothing_is_refused():
    case, _ = record_case(1, engine="solo", replicas=1, profile="calm")
    with pytest.raises(ConfigurationError, match="breaks no rule"):
        shrink_case(case)


@pytest.fixture
def forgetting(monkeypatch):
    """Let members forget what they signed when they crash."""
    from bftkit.replica.safety import SigningGuard
    from bftkit_pbft import restart

    monkeypatch.setattr(SigningGuard, "restore", lambda self, record: None)
    monkeypatch.setattr(restart, "_REPLAYS", {kind: lambda state, record: None for kind in restart._REPLAYS})


def test_a_failing_schedule_has_no_more_members_than_it_needs(forgetting):
    profile = Profile(crashes=6, power_cuts=2, loss=0.1, link_us=(200, 20_000), duration_ms=2_000)
    for seed in range(40):
        case, outcome = record_case(seed, engine="pbft", replicas=7, profile=profile)
        if outcome.violations:
            break
    else:
        pytest.fail("a member that forgets its votes broke no rule")
    shrunk = shrink_case(case, most_runs=60)
    assert shrunk.case.replicas < 7
    assert rule_of(shrunk.case.violation) == rule_of(outcome.violations[0])
    assert shrunk.case.run().violations[0] == shrunk.case.violation


def test_a_failing_schedule_becomes_a_handful_of_decisions(forgetting):
    profile = Profile(crashes=6, power_cuts=2, loss=0.1, link_us=(200, 20_000), duration_ms=2_000)
    for seed in range(40):
        case, outcome = record_case(seed, engine="pbft", profile=profile)
        if outcome.violations:
            break
    else:
        pytest.fail("a member that forgets its votes broke no rule")
    shrunk = shrink_case(case, most_runs=250)
    assert shrunk.runs <= 250
    assert len(shrunk.case.decisions) < shrunk.decisions_before / 10
    assert shrunk.case.profile.clients == 1
    assert rule_of(shrunk.case.violation) == rule_of(outcome.violations[0])
    assert shrunk.case.run().violations[0] == shrunk.case.violation


# --- What a program brings along ---------------------------------------------------------------------------------


class Forgetful:
    """Loses its number with each new life."""

    def __init__(self) -> None:
        self.highest = 0

    def apply(self, batch):
        self.highest = max([self.highest, *map(int, batch.commands)])
        return [b"%d" % self.highest] * len(batch.commands)

    def snapshot(self) -> bytes:
        return b"%d" % self.highest

    def restore(self, data: bytes) -> None:
        pass


def number(random) -> bytes:
    return b"%d" % random.randrange(1_000)


OWN = Workload(Forgetful, number)
STORM = Profile(crashes=6, power_cuts=2, snapshot_positions=4, checkpoint_interval=2, clients=2)


@pytest.fixture(scope="module")
def red() -> Case:
    """Return the first case in which the machine's own mistake shows."""
    for seed in range(20):
        case, outcome = record_case(seed, engine=solo_spec(), replicas=1, profile=STORM, workload=OWN)
        if not outcome.ok:
            return case
    pytest.fail("a machine that forgets broke no rule")


def test_a_machine_and_an_engine_of_one_s_own_are_made_small(red):
    assert (red.engine, red.spec, red.workload) == ("solo", solo_spec(), OWN)
    shrunk = shrink_case(red, most_runs=80)
    assert len(shrunk.case.decisions) < len(red.decisions) / 4
    assert shrunk.case.run().violations[0] == shrunk.case.violation
    assert rule_of(shrunk.case.violation) == rule_of(red.violation)


def test_a_file_says_what_its_program_must_bring_along(red, tmp_path):
    path = tmp_path / "case.json"
    red.write(path)
    with pytest.raises(ConfigurationError, match=r"the engine and the workload of a program.*engine=\.\.\., workload="):
        Case.read(path)
    with pytest.raises(ConfigurationError, match=r"is about the engine of a program"):
        Case.read(path, workload=OWN)
    whole = Case.read(path, engine=solo_spec(), workload=OWN)
    assert whole == red
    assert whole.run().violations[0] == red.violation
