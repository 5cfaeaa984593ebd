"""PBFT under the replica: random schedules of crashes, loss, cuts and slow disks, for groups of every kind of size."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bftkit.core.batch import BatchBody
from bftkit.core.outputs import Broadcast, Send
from bftkit.core.quorum import Quorum
from bftkit.plugins import load_engine
from bftkit.replica.messages import Progress
from bftkit.replica.outputs import SendBody
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import make_world, run, run_schedule
from bftkit.testing.world import World
from bftkit_pbft.messages import PrePrepare
from tests.replica.schedules import run_range, total

SEEDS = 40


@pytest.mark.parametrize("first", range(0, 400, SEEDS))
def test_four_members(first):
    run_range(first, SEEDS, engine="pbft", replicas=4)


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_five_members(first):
    run_range(first, 20, engine="pbft", replicas=5)


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_six_members(first):
    run_range(first, 10, engine="pbft", replicas=6)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_seven_members(first):
    run_range(first, 10, engine="pbft", replicas=7)


def test_schedules_of_the_network_exercise_what_they_are_for():
    outcomes = run_range(20_000, SEEDS, engine="pbft", replicas=4, profile="network")
    assert total(outcomes, "lost") > 1_000
    hits = Counter(name for outcome in outcomes for name in outcome.faults_hit)
    assert {"cuts", "partitions", "partial_partitions", "flaps", "clogs", "throttles", "resets"} <= set(hits)
    assert total(outcomes, "view") > 4 * SEEDS
    assert total(outcomes, "caught up") > 0


def test_schedules_of_crashes_exercise_what_they_are_for():
    outcomes = run_range(30_000, SEEDS, engine="pbft", replicas=4, profile="crash")
    assert total(outcomes, "crashes") > 2 * SEEDS
    assert total(outcomes, "stable") > 4 * SEEDS


def test_a_member_that_was_away_for_long_takes_over_a_state():
    profile = Profile(
        duration_ms=4_000, clients=4, envelopes=40, think_ms=20, crashes=1, down_ms=(3_000, 500), checkpoint_interval=2,
        snapshot_positions=4, segment_bytes=4_096,
    )  # fmt: skip
    outcomes = run_range(0, 8, engine="pbft", replicas=4, profile=profile)
    assert total(outcomes, "state transfers") > 0


# --- Members that lie ------------------------------------------------------------------------------------------------


def world_of(seed: int, members: int = 4, **profile) -> World:
    return make_world(seed, load_engine("pbft"), members, Profile(**profile))


def silent(outputs):
    return [output for output in outputs if not isinstance(output, Send | Broadcast)]


def two_faced(members: int):
    """Make of each proposal two: half of the members hear of the batches of the one before, and one hears of both."""
    before = []

    def rewrite(outputs):
        said = []
        for output in outputs:
            match output:
                case Broadcast(PrePrepare() as proposal):
                    other = msgspec.structs.replace(proposal, refs=before[-1]) if before else proposal
                    if not before or before[-1] != proposal.refs:
                        before.append(proposal.refs)
                    said += [Send(peer, proposal if peer % 2 else other) for peer in range(members)]
                    said.append(Send(1, other))
                case _:
                    said.append(output)
        return said

    return rewrite


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("members", [4, 7])
def test_as_many_silent_members_as_are_tolerated_stop_nobody(seed, members):
    world = world_of(seed, members, loss=0.05)
    faults = Quorum.of(load_engine("pbft").fault_model, members).faults
    for index in range(faults):
        world.distrust(index, "silent")
        world.nodes[index].rewrite = silent
    run(world)
    assert world.checkers.commits > 0
    assert world.counters["view"] > members


@pytest.mark.parametrize("seed", range(10))
def test_a_primary_that_tells_two_stories_divides_nobody(seed):
    world = world_of(seed, duplication=0.1, link_us=(200, 20_000))
    world.distrust(0, "two-faced")
    world.nodes[0].rewrite = two_faced(4)
    run(world)
    assert world.checkers.commits > 0
    assert world.counters["accused"] > 0, "the one who heard both stories has the proof"


def boastful(outputs):
    """Claim to be far ahead, whenever asked and whenever not."""

    def boast(message):
        if not isinstance(message, Progress):
            return message
        return msgspec.structs.replace(message, position=message.position + 1_000, height=message.height + 1_000)

    said = []
    for output in outputs:
        speaks = isinstance(output, Send | Broadcast)
        said.append(msgspec.structs.replace(output, message=boast(output.message)) if speaks else output)
    return said


def withholding(outputs):
    """Keep all bodies, but for those that go to one other member; answer no request for one."""
    kept = []
    for output in outputs:
        match output:
            case Broadcast(BatchBody() as body):
                kept += [Send(1, body), Send(0, body)]
            case SendBody():
                pass
            case _:
                kept.append(output)
    return kept


@pytest.mark.parametrize("lie", [boastful, withholding])
@pytest.mark.parametrize("liar", [0, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_lies_about_what_it_has_stops_nobody(seed, liar, lie):
    world = world_of(seed, loss=0.05, crashes=1, checkpoint_interval=2, snapshot_positions=4)
    world.distrust(liar, lie.__name__)
    world.nodes[liar].rewrite = lie
    run(world)
    assert world.checkers.commits > 0


@pytest.mark.parametrize(
    ("seed", "members"),
    [
        (50213, 4),  # stored again after its decision, in a proposal again, then a power cut: nobody held it any more
        (50557, 4),  # a proof of an old decision let go of a body that was in a proposal again
        (9, 6),  # a peer's proof made room for more batches, and nobody used it
    ],
)
def test_a_schedule_that_once_went_wrong_goes_right(seed, members):
    outcome = run_schedule(seed, engine="pbft", replicas=members)
    assert outcome.violations == ()
