"""The world of a run: groups of all sizes, twins, spoilt frames, two-faced clients, and what machines can do wrong."""

from __future__ import annotations

import time
from collections import Counter as Tally

import msgspec
import pytest

from bftkit.batteries.counter import Counter
from bftkit.batteries.kv import KeyValue, add
from bftkit.errors import ConfigurationError, EngineError, StorageError
from bftkit.plugins import load_engine
from bftkit.testing.fault_atlas import Spare
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world, run_schedule, simulate
from bftkit.testing.solo import solo_spec
from bftkit.testing.world import World

PBFT = load_engine("pbft")
ROT = ("bit_flips", "misdirected_reads", "misdirected_writes")
BRIEF = Profile(clients=1, envelopes=2, duration_ms=500)


@pytest.mark.parametrize("members", [4, 5, 6, 7, 10, 13, 16, 22, 31])
def test_groups_of_all_sizes_work(members):
    outcome = finish(make_world(1, PBFT, members, BRIEF))
    assert outcome.violations == ()
    assert outcome.commits
    assert outcome.acknowledged


def test_a_member_alone_works_and_nobody_at_all_does_not():
    assert finish(make_world(1, solo_spec(), 1, BRIEF)).ok
    with pytest.raises(ConfigurationError, match="to 31 replicas, not 32"):
        make_world(1, PBFT, 32, BRIEF)


def test_a_seed_and_a_profile_make_a_world():
    named, fixed = World(5, "network"), World(5, BRIEF, engine=PBFT, replicas=7)
    assert (named.drawn.name, named.settings.spec.name, len(named.nodes)) == ("network", "pbft", 4)
    assert (fixed.drawn, len(fixed.nodes)) == (BRIEF, 7)
    assert finish(named).trace_hash == run_schedule(5, profile="network").trace_hash
    assert World(5, "network").drawn != World(6, "network").drawn


def test_a_world_is_written_down_and_played_back():
    recorded = World(5, "network", record=True)
    outcome = finish(recorded)
    decisions = recorded.choices.recorded
    assert decisions
    assert finish(World(5, recorded.drawn, decisions=decisions)).trace_hash == outcome.trace_hash
    assert finish(World(5, recorded.drawn, decisions={})).trace_hash != outcome.trace_hash


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"profile": "stormy"}, ConfigurationError, "no profile 'stormy'"),
        ({"engine": "paxos"}, EngineError, "not installed"),
        ({"engine": "solo"}, ConfigurationError, "solo refuses a group of 4"),
        ({"replicas": 0}, ConfigurationError, "not 0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        World(1, **arguments)


@pytest.mark.parametrize("seed", range(6))
def test_twins_share_a_key_and_divide_nobody(seed):
    world = make_world(seed, PBFT, 4, Profile(liars=1, twins=True, partitions=2, loss=0.05, clients=2))
    (twin,) = [index for index, places in enumerate(world.instances) if len(places) == 2]
    first, second = (world.nodes[place] for place in world.instances[twin])
    assert first.index == second.index == twin
    assert (first.instance, second.instance) == (twin, 4)
    outcome = finish(world)
    assert outcome.violations == ()
    assert first.steps > 20
    assert second.steps > 20
    assert outcome.faults_hit["byzantine: twins"] == 1


def test_a_spoilt_frame_ends_its_connection_and_nothing_else():
    outcome = run_schedule(2, engine="pbft", profile=Profile(corruption=0.05, encoded=True, clients=2))
    assert outcome.violations == ()
    assert outcome.faults_hit["corruption"] > 10
    assert outcome.counters["spoilt frames"] == outcome.faults_hit["corruption"]
    assert outcome.faults_hit["resets"] > 0


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ({"loss": 0.2}, "loss"),
        ({"duplication": 0.2}, "duplication"),
        ({"spike": 0.05}, "spike"),
        ({"replay": 0.1}, "replay"),
        ({"late_timers": 0.5}, "late_timers"),
        ({"clock_rates": (900, 1_100)}, "clock_rates"),
        ({"adversarial": True}, "adversarial order"),
        ({"adversarial": True, "in_order": False}, "adversarial order"),
    ],
)
def test_what_goes_wrong_all_the_time_is_counted_and_survived(fault, counted):
    hit = 0
    for seed in range(5):
        outcome = run_schedule(seed, engine="pbft", profile=Profile(clients=2, think_ms=20, **fault))
        assert outcome.violations == (), f"seed {seed}"
        hit += outcome.faults_hit.get(counted, 0)
    assert hit


def test_of_two_versions_of_a_request_one_is_executed_at_most():
    outcome = run_schedule(3, engine="pbft", profile=Profile(two_faced=1.0, repeat=0.8, clients=3))
    assert outcome.violations == ()
    assert outcome.faults_hit["two_faced"] > 20


def test_real_signatures_tell_the_same_story():
    fake = run_schedule(4, engine="pbft", profile=BRIEF)
    real = run_schedule(
        4, engine="pbft", profile=Profile(clients=1, envelopes=2, duration_ms=500, real_signatures=True)
    )
    assert real.violations == ()
    assert (real.commits, real.steps) == (fake.commits, fake.steps)


def test_a_member_whose_disk_was_damaged_may_stop_but_nobody_else_does():
    stopped = 0
    for seed in range(30):
        outcome = run_schedule(seed, engine="pbft", profile=Profile(rot=6, crashes=6, clients=3))
        assert outcome.violations == (), f"seed {seed}"
        stopped += outcome.counters.get("stopped for good", 0)
    assert stopped > 3


def rotten_worlds(count: int, **profile):
    for seed in range(count):
        usual = {"clients": 3, "envelopes": 20, "snapshot_positions": 4}
        world = make_world(seed, PBFT, 4, Profile(**{**usual, **profile}))
        outcome = finish(world)
        assert outcome.violations == (), f"seed {seed}"
        yield world, outcome


def test_members_may_halt_where_nothing_is_spared_and_are_never_wrong():
    halted, most = 0, 0
    for world, _ in rotten_worlds(25, rot=8, crashes=4, spare=Spare.NOTHING):
        stopped = sum(bool(node.stopped) for node in world.nodes)
        most = max(most, stopped)
        halted += world.may_halt
        assert all(node.rotten for node in world.nodes if node.stopped)
    assert most > 1, "more than may be faulty"
    assert halted


def test_damage_meets_a_liar_and_others_lose_no_more_than_a_snapshot():
    met = 0
    for world, outcome in rotten_worlds(25, rot=4, liars=1, spare=Spare.COPY, checkpoint_interval=2):
        honest = [node for node in world.nodes if node.honest]
        assert not any(node.forgetful for node in honest)
        met += any(node.rotten for node in honest) and bool(set(outcome.faults_hit) & set(ROT))
    assert met


def test_damage_is_met_by_a_member_that_reads_it():
    hits: Tally[str] = Tally()
    planned = 0
    for world, outcome in rotten_worlds(20, rot=3):
        hits.update({kind: outcome.faults_hit.get(kind, 0) for kind in ROT})
        planned += len(world.faults)
    assert all(hits[kind] for kind in ROT)
    assert sum(hits.values()) > planned / 4


def test_a_disk_that_stalls_delays_what_waits_for_it():
    fine = Profile(clients=2, envelopes=30)
    usual = run_schedule(1, engine="pbft", profile=fine)
    stalling = msgspec.structs.replace(fine, stalled_disks=12, down_ms=(1_000, 2_000))
    slow = run_schedule(1, engine="pbft", profile=stalling)
    assert slow.violations == ()
    assert slow.faults_hit["stalled_disks"] > 1
    assert slow.trace_hash != usual.trace_hash


def test_a_liar_that_may_lie_counts_when_it_does():
    world = make_world(1, PBFT, 7, BRIEF, liars={3: "wrong bodies", 2: "silent"})
    assert world.hits["byzantine: wrong bodies"] == 0
    world.start()
    world.events.run(400_000)
    assert world.hits["byzantine: silent"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        lambda disk, then: disk.fail("sync", then=then),
        lambda disk, then: disk.fail("write", then=then),
        lambda disk, then: disk.short_write(then=then),
        lambda disk, then: disk.fill(100, then=then),
    ],
)
def test_a_member_that_stops_over_what_was_asked_of_its_disk_is_started_again(fault):
    world = make_world(1, PBFT, 4, Profile(clients=2, envelopes=20))
    world.events.after(300_000, fault, world.nodes[2].disk, lambda: world.hits.update(["asked for"]))
    outcome = finish(world)
    assert outcome.violations == ()
    assert outcome.faults_hit["asked for"] == 1
    assert world.nodes[2].alive


def test_an_error_that_nobody_asked_for_is_a_finding():
    world = make_world(1, PBFT, 4, Profile(clients=2, envelopes=20))

    def wear_out(operation, path):
        if world.events.now_us > 300_000 and operation == "sync":
            raise StorageError("worn out", path)

    disk = world.nodes[2].disk
    disk.fail("sync")
    world.events.after(200_000, lambda: setattr(disk, "before", wear_out))
    outcome = finish(world)
    assert outcome.violations == ("n2 stops: worn out",)
    assert outcome.counters["crashes"] == 1, "what was asked for excuses one life"


KEPT = Profile(clients=3, envelopes=30, think_ms=20, checkpoint_interval=2, snapshot_positions=4)


@pytest.mark.parametrize("folder", ["log/", "snapshots/"])
def test_who_may_lose_something_is_damaged_on_request_and_may_stop(folder):
    met = 0
    for seed in range(6):
        world = make_world(seed, PBFT, 4, KEPT)
        (victim,) = world.atlas.victims
        node = world.nodes[victim]

        def damage(world=world, node=node):
            contents = node.disk.contents()
            paths = [path for path in contents if path.startswith(folder) and contents[path]]
            world.damage(node.index, paths[0] if folder == "log/" else paths[-1])

        world.events.after(2_500_000, damage)
        outcome = finish(world)
        assert outcome.violations == ()
        assert node.rotten
        assert node.forgetful is (victim in world.checkers.suspects) is (folder == "log/")
        met += world.hits["bit_flips"]
    assert met


def test_no_more_is_damaged_on_request_than_the_atlas_allows():
    world = make_world(1, PBFT, 4, KEPT)
    others = [node.index for node in world.nodes if node.index not in world.atlas.victims]
    world.start()
    world.events.run(2_000_000)
    for member in others:
        with pytest.raises(ConfigurationError, match=f"of n{member} may not be damaged"):
            world.damage(member, next(iter(world.nodes[member].disk.contents())))
    assert not any(node.rotten for node in world.nodes)
    alone = make_world(1, PBFT, 4, KEPT, liars={0: "silent"})
    with pytest.raises(ConfigurationError, match="nobody may lose everything"):
        alone.damage(1, "log/1")


@pytest.mark.parametrize("twins", [False, True])
def test_no_more_members_are_faulty_in_the_end_than_may_be(twins):
    world = make_world(1, PBFT, 4, Profile(clients=1, envelopes=2, liars=twins, twins=twins))
    honest = [node for node in world.nodes if node.honest]
    assert world.faulty == twins
    honest[0].stopped = "worn out"
    assert world.faulty == 1 + twins
    honest[1].stopped = "worn out"
    assert world.faulty == 2 + twins
    for node in honest[:2]:
        world.checkers.suspects[node.index] = "its disk was damaged"
    assert world.faulty == 2 + twins, "each of them counts once"


def test_only_clocks_that_are_wrong_count():
    assert make_world(1, PBFT, 4, Profile(clock_rates=(1_000,))).hits["clock_rates"] == 0
    assert make_world(1, PBFT, 4, Profile(clock_rates=(900, 1_100))).hits["clock_rates"] == 4


# --- State machines of users ------------------------------------------------------------------------------------------


def test_a_good_machine_passes():
    assert simulate(Counter, seed=7, faults="all").ok


def test_a_machine_with_commands_of_its_own_passes():
    outcome = simulate(
        KeyValue, seed=3, faults="all", commands=lambda random: add(b"k%d" % random.randrange(3), random.randrange(9))
    )
    assert outcome.ok
    assert outcome.commands


class Clocked(Counter):
    """Looks at the time."""

    def apply(self, batch):
        return [result + b" %d" % time.perf_counter_ns() for result in super().apply(batch)]


class Hashed(Counter):
    """Depends on where it lies in memory."""

    def apply(self, batch):
        super().apply(batch)
        return [b"%d" % id(self) for _ in batch.commands]


class Silent(Counter):
    """Gives no results."""

    def apply(self, batch):
        super().apply(batch)
        return []


@pytest.mark.parametrize(
    ("machine", "found"), [(Clocked, "other results"), (Hashed, "other results"), (Silent, "raised")]
)
def test_a_machine_that_is_no_function_of_the_log_is_found(machine, found):
    assert any(found in violation for violation in simulate(machine, seed=1, faults="calm").violations)
