"""Each kind of work that waits, without what would bring it on."""

from __future__ import annotations

import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import SetTimer
from bftkit.plugins import load_engine
from bftkit.replica.dissemination import FETCH_TIMER
from bftkit.replica.inputs import Submission
from bftkit.replica.messages import Progress
from bftkit.replica.state_transfer import Download
from bftkit.replica.sync_timers import PROGRESS_TIMER, SYNC_TIMER
from bftkit.testing.checkers import WAKE_AGAIN, Violation
from bftkit.testing.idleness import Idleness
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world

REF = BatchRef(b"r" * 32, 1, 1, 10)


@pytest.fixture
def node():
    """A member with nothing to do, and no timer."""
    world = make_world(1, load_engine("pbft"), 4, Profile(clients=1, envelopes=2, duration_ms=500))
    assert finish(world).ok
    node = world.nodes[0]
    node.timers.running.clear()
    node.timers.of_engine.clear()
    assert Idleness(None).problem(node) is None
    return node


def want_a_body(node) -> None:
    node.replica.payloads.want((REF,), (1,))


def decide(node) -> None:
    commits = node.replica.commits
    commits.add(CommitEntry(commits.position + 1, (REF,), CommitProof()), 1)


def take_a_request(node) -> None:
    node.replica.mempool.admit(Submission(1, b"key", b"data", 1))


def fetch_a_state(node) -> None:
    node.replica.state_transfer.download = Download(node.replica.checkpoints.stable, 100, 1)


def hear_of_more(node) -> None:
    node.replica.catch_up.claims[2] = Progress(1_000, 1_000, 0)


def install(node) -> None:
    node.replica.state_transfer.installing = Download(node.replica.checkpoints.stable, 100, 1)


def vote(node) -> None:
    checkpoints = node.replica.checkpoints
    checkpoints._own[checkpoints.stable.position + 8] = None


def hold_a_batch(node) -> None:
    node.replica.mempool.add(REF, 1)


def let_execute(node) -> None:
    node.application._working = True


def start(*timers: str):
    def run(node) -> None:
        for timer in timers:
            node.timers.set(SetTimer(timer, 1_000))

    return run


OTHERS = (FETCH_TIMER, PROGRESS_TIMER, SYNC_TIMER, "node/sync")


@pytest.mark.parametrize(
    ("tamper", "what", "plan", "excuses"),
    [
        (want_a_body, "missing bodies", start(FETCH_TIMER), (PROGRESS_TIMER, SYNC_TIMER, "node/sync", "engine/watch")),
        (decide, "decided positions", let_execute, (*OTHERS, "engine/watch")),
        (take_a_request, "requests", None, (*OTHERS, "engine/watch")),
        (fetch_a_state, "parts of a state", start(SYNC_TIMER), (FETCH_TIMER, PROGRESS_TIMER, "engine/watch")),
        (hear_of_more, "decisions of others", start(SYNC_TIMER), (FETCH_TIMER, PROGRESS_TIMER, "engine/watch")),
        (install, "states to be taken over", let_execute, (*OTHERS, "engine/watch")),
        (vote, "checkpoint votes", start(PROGRESS_TIMER), (FETCH_TIMER, SYNC_TIMER, "engine/watch")),
        (hold_a_batch, "batches", start("engine/watch"), OTHERS),
    ],
)
def test_work_of_each_kind_needs_a_plan_of_its_kind(node, tamper, what, plan, excuses):
    tamper(node)
    idleness = Idleness(None)
    assert (idleness.problem(node) or "").startswith(f"{what} that wait, and nothing")
    start(*excuses)(node)
    assert (idleness.problem(node) or "").startswith(what), "a timer of another kind is no excuse"
    with pytest.raises(Violation, match=f"n0 has {what} that wait"):
        for _ in range(WAKE_AGAIN):
            node.world.checkers.stepped(node)
    if plan is not None:
        plan(node)
        assert idleness.problem(node) is None
    node.replica.halted = "it has stopped"
    assert idleness.problem(node) is None


def test_what_waits_for_a_missing_body_waits_for_the_timer_that_asks_for_it(node):
    decide(node)
    want_a_body(node)
    start(FETCH_TIMER)(node)
    assert Idleness(None).problem(node) is None
