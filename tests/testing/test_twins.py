"""Many scenarios of twins: a correct PBFT survives them, broken ones do not, and it does not matter who plays them."""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest

from bftkit.core.quorum import Quorum
from bftkit.errors import EngineError
from bftkit.plugins import load_engine
from bftkit.testing import twins
from bftkit.testing.campaign import CampaignError
from bftkit.testing.twins import TwinsPlan, TwinsResult, run_slice, run_twins, twins_cases
from bftkit.testing.twins_scenarios import LOSSES, VOTES, parse_scenario, scenario_text
from bftkit_pbft import engine, new_view, normal_case, view_change
from bftkit_pbft.config import PbftOptions
from bftkit_pbft.messages import Reproposal, proposal_digest
from bftkit_pbft.state import initial_state

PLAN = TwinsPlan("pbft")
EVERYTHING = TwinsPlan("pbft", losses=LOSSES, aimed=True, restarts=True, seed=0)
"""Each view may lose messages and restart somebody: too many scenarios for all, so some drawn by a seed."""


# --- A correct engine -------------------------------------------------------------------------------------------------


def harmless(plan: TwinsPlan, places: range) -> TwinsResult:
    result = run_twins(plan, places)
    assert not result.violations, result.violations[0]
    assert result.scenarios == len(places)
    return result


def test_scenarios_of_three_views_from_the_whole_space_do_no_harm():
    size = PLAN.space().size
    result = harmless(PLAN, range(0, size, size // 300))
    assert result.views == 3 * result.scenarios
    assert result.commits > 2 * result.scenarios


def test_all_scenarios_of_one_view_and_some_of_two_do_no_harm():
    for views, step in ((1, 1), (2, 7)):
        plan = TwinsPlan("pbft", views=views)
        result = harmless(plan, range(0, plan.space().size, step))
        assert result.views == views * result.scenarios


def test_losses_and_restarts_on_top_do_no_harm():
    assert harmless(EVERYTHING, range(150)).views >= 440


@pytest.mark.parametrize(
    "plan",
    [
        TwinsPlan("pbft", views=8, seed=1),
        TwinsPlan("pbft", members=5, views=4, seed=2),
        TwinsPlan("pbft", members=7, twins=2, seed=3, losses=("", VOTES)),
        TwinsPlan("pbft", twins=0, views=4, seed=4, restarts=True),
        TwinsPlan("pbft", seed=5, options=PbftOptions(view_timeout_ms=300, in_flight=1, batches_per_proposal=1)),
    ],
    ids=["eight views", "five members", "seven members", "no twins", "narrow pipeline"],
)
def test_other_groups_survive_too(plan):
    harmless(plan, range(15))


# --- Broken engines ---------------------------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def smaller_quorum(patch: pytest.MonkeyPatch) -> None:
    """A quorum that is one too small: two of them need not share a correct member."""
    real = Quorum.of

    def of(cls, model, members):
        quorum = real(model, members)
        return msgspec.structs.replace(quorum, quorum=quorum.quorum - 1)

    patch.setattr(Quorum, "of", classmethod(of))


def no_prepared_certificates(patch: pytest.MonkeyPatch) -> None:
    """A VIEW-CHANGE without P: what prepared is forgotten with its view."""
    real = view_change.ViewChange
    patch.setattr(view_change, "ViewChange", lambda view, checkpoint, prepared: real(view, checkpoint, ()))


def only_certificates_of_the_last_view(patch: pytest.MonkeyPatch) -> None:
    """A VIEW-CHANGE whose P goes back one view only."""
    real = view_change.ViewChange

    def make(view, checkpoint, prepared):
        return real(view, checkpoint, tuple(proof for proof in prepared if proof.view == view - 1))

    patch.setattr(view_change, "ViewChange", make)


def empty_new_view(patch: pytest.MonkeyPatch) -> None:
    """A NEW-VIEW that ignores the prepared certificates in V."""
    real = new_view.starting_point
    patch.setattr(new_view, "starting_point", lambda votes: (real(votes)[0], ()))


def oldest_certificate(patch: pytest.MonkeyPatch) -> None:
    """A NEW-VIEW that proposes what prepared in the lowest view, not in the highest."""

    def starting_point(votes):
        checkpoint = max((vote.checkpoint for vote in votes), key=lambda one: one.position)
        proofs = sorted((proof for vote in votes for proof in vote.prepared), key=lambda one: -one.view)
        best = {proof.position: proof.refs for proof in proofs if proof.position > checkpoint.position}
        positions = range(checkpoint.position + 1, max(best, default=checkpoint.position) + 1)
        return checkpoint, tuple(Reproposal(position, best.get(position, ())) for position in positions)

    patch.setattr(new_view, "starting_point", starting_point)


def second_vote(patch: pytest.MonkeyPatch) -> None:
    """A backup that forgets that it has voted: it accepts a second proposal for the same view and position."""
    real = normal_case.consider_proposal

    def consider(state, sender, signer, message):
        slot = state.slots.get(message.position)
        active = state.active and message.view == state.view
        if active and slot is not None and slot.refs is not None and slot.digest != proposal_digest(message.refs):
            slot.refs, slot.voted, slot.commit_voted = None, False, False
        return real(state, sender, signer, message)

    patch.setattr(normal_case, "consider_proposal", consider)


def forgetful_restart(patch: pytest.MonkeyPatch) -> None:
    """A replica that comes back without its records: it votes again, and otherwise."""
    patch.setattr(engine, "restore", lambda context, checkpoint, records: initial_state(context, checkpoint))


def no_timers(patch: pytest.MonkeyPatch) -> None:
    """A replica that waits for its primary for ever."""
    patch.setattr(engine, "arm_timers", lambda state, out: None)


def lonely_suspicion(patch: pytest.MonkeyPatch) -> None:
    """A replica that never leaves a view for the sake of others: it waits for all of them."""
    real = view_change.follow_suspicion

    def follow(state, out):
        if all(view == state.view for view, _ in state.suspected):
            real(state, out)

    patch.setattr(view_change, "follow_suspicion", follow)
    patch.setattr(view_change, "join", lambda state, out: None)


SHUFFLED = TwinsPlan("pbft", seed=1)
RESTARTS = TwinsPlan("pbft", restarts=True, views=2, seed=1)
AIMED = TwinsPlan("pbft", losses=("", VOTES), aimed=True, seed=3)


@pytest.mark.parametrize(
    ("broken", "plan", "says"),
    [
        (smaller_quorum, SHUFFLED, "against what view|another one"),
        (no_prepared_certificates, SHUFFLED, "against what view|another one"),
        (only_certificates_of_the_last_view, SHUFFLED, "against what view|another one"),
        (empty_new_view, SHUFFLED, "against what view|another one"),
        (oldest_certificate, AIMED, "against what view|another one"),
        (second_vote, SHUFFLED, "must not get"),
        (forgetful_restart, RESTARTS, "must not get|another one|falls"),
        (no_timers, SHUFFLED, "not everything is ordered"),
        (lonely_suspicion, SHUFFLED, "not everything is ordered"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_engine_is_caught(broken: Patch, plan: TwinsPlan, says: str, monkeypatch):
    """The generator is not blind: the first hundred scenarios of a shuffled order suffice."""
    broken(monkeypatch)
    index, problem = next(found(plan, 100))
    monkeypatch.undo()
    assert any(part in problem for part in says.split("|")), problem
    alone = msgspec.structs.replace(plan, seed=None)
    assert run_twins(alone, range(index, index + 1)).violations == ()


def found(plan: TwinsPlan, most: int) -> Iterator[tuple[int, str]]:
    return ((index, case.problem) for index, case in twins_cases(plan, range(most)) if case.problem is not None)


def test_a_violation_can_be_played_again(monkeypatch):
    smaller_quorum(monkeypatch)
    result = run_twins(TwinsPlan("pbft", views=1))
    assert 0 < len(result.violations) < result.scenarios == 20
    for violation in result.violations:
        scenario = parse_scenario(violation.scenario)
        assert scenario == TwinsPlan("pbft", views=1).space().scenario(violation.index)
        assert scenario_text(scenario) == violation.scenario
        assert twins.run_twins_case("pbft", scenario).problem == violation.problem


# --- Many at once -----------------------------------------------------------------------------------------------------


class Backwards(Executor):
    """Does everything late, and the last thing first."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def submit(self, function: Any, /, *arguments: Any, **more: Any) -> Future[Any]:
        future = LateFuture(self)
        self.waiting.append(partial(self._run, future, pickle.dumps((function, arguments, more))))
        return future

    def _run(self, future: Future[Any], call: bytes) -> None:
        function, arguments, more = pickle.loads(call)
        future.set_result(function(*arguments, **more))


class LateFuture(Future):  # type: ignore[type-arg]
    def __init__(self, executor: Backwards) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout=None):
        while not self.done():
            self._executor.waiting.pop()()
        return super().result(timeout)


SMALL = TwinsPlan("pbft", views=1)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(twins, "CHUNK", 3)
    monkeypatch.setattr(twins, "AT_ONCE", 4)


@pytest.mark.usefixtures("small_chunks")
def test_the_result_does_not_depend_on_who_plays():
    here = run_twins(SMALL)
    assert here.scenarios == 20
    with ThreadPoolExecutor(2) as threads:
        assert run_twins(SMALL, executor=threads) == here
    assert run_twins(SMALL, executor=Backwards()) == here
    assert run_slice(SMALL, range(20)) == here


@pytest.mark.usefixtures("small_chunks")
def test_slices_add_up():
    parts = [run_twins(SMALL, part) for part in (range(7), range(7, 8), range(8, 8), range(8, 20))]
    assert sum(parts, TwinsResult()) == run_twins(SMALL)
    shuffled = TwinsPlan("pbft", views=1, seed=3)
    assert msgspec.structs.replace(run_twins(shuffled), violations=()) == run_twins(SMALL)


@pytest.mark.usefixtures("small_chunks")
def test_progress_is_told_after_each_chunk():
    told: list[tuple[int, int]] = []
    run_twins(SMALL, range(0, 20, 2), progress=lambda result, total: told.append((result.scenarios, total)))
    assert told == [(3, 10), (6, 10), (9, 10), (10, 10)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("fault", "raised", "says"),
    [(MemoryError("full"), MemoryError, "full"), (BrokenExecutor(), CampaignError, "owes is 3")],
)
def test_what_fails_in_a_task_is_not_hidden(fault, raised, says):
    class Failing(Backwards):
        def _run(self, future, call):
            if pickle.loads(call)[1][1].start == 3:
                future.set_exception(fault)
            else:
                super()._run(future, call)

    with pytest.raises(raised, match=says):
        run_twins(SMALL, executor=Failing())


def test_places_beyond_the_last_one_are_refused():
    for places in (range(21), range(-1, 3), range(20, 21), range(25, -1, -5)):
        with pytest.raises(IndexError):
            run_twins(SMALL, places)


def test_an_engine_need_not_be_installed():
    spec = msgspec.structs.replace(load_engine("pbft"), name="mine")
    assert run_twins(TwinsPlan(spec, views=1)) == run_twins(SMALL)
    with pytest.raises(EngineError):
        run_twins(TwinsPlan("nonsense", views=1))


def test_a_plan_says_why_there_is_nothing_to_play():
    assert SMALL.problem() is None
    problems = {
        "takes 4 members at least": TwinsPlan("pbft", members=3),
        "decides alone": TwinsPlan("solo"),
        "no group": TwinsPlan("pbft", twins=5),
        "honest members": TwinsPlan("pbft", members=9),
        "no kind of message": TwinsPlan("pbft", losses=("all",)),
    }
    for says, plan in problems.items():
        assert says in str(plan.problem())
