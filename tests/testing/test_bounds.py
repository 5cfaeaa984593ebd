"""Each limit of what a member holds, broken once; and that what happens at small bounds does happen."""

from __future__ import annotations

from collections import Counter as Tally
from random import Random

import msgspec
import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.ids import canonical
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.plugins import load_engine
from bftkit.replica.dissemination import BEYOND_QUOTA
from bftkit.replica.inputs import Submission
from bftkit.replica.state_transfer import Download
from bftkit.runtime.node import SNAPSHOT_DIRECTORY
from bftkit.storage.snapshots import SUFFIX
from bftkit.testing.bounds import Bounds
from bftkit.testing.checkers import MEASURE_AGAIN, Violation
from bftkit.testing.client import MOST_COMMANDS, longest
from bftkit.testing.idleness import Idleness
from bftkit.testing.profile import Profile, draw_profile
from bftkit.testing.simulation import finish, make_world, run_schedule
from bftkit.testing.workload import LIMITS
from bftkit.testing.world import World

PBFT = load_engine("pbft")
SMALL = Profile(
    clients=1,
    envelopes=2,
    duration_ms=500,
    checkpoint_interval=2,
    snapshot_positions=4,
    max_sessions=2,
    session_window=5,
    session_reply_bytes=40,
    origin_batches=4,
    collect_requests=1,
)


def world_of(seed: int = 1) -> World:
    """Return a world that has run without a fault, and whose members may be tampered with."""
    world = make_world(seed, PBFT, 4, SMALL)
    assert finish(world).ok
    return world


def ref(number: int) -> BatchRef:
    return BatchRef(number.to_bytes(32, "big"), 1, 1, 10)


def hold_votes(node) -> None:
    for position in range(1, 200):
        node.replica.guard._slots["vote", 0, position] = b""


def hold_decisions(node) -> None:
    commits = node.replica.commits
    for position in range(commits.position + 1, commits.position + 60):
        commits.add(CommitEntry(position, (), CommitProof()), position)
    commits.executed = commits.executing = commits.position


def hold_bodies(node) -> None:
    for number in range(60):
        node.replica.payloads._held[ref(number).digest] = ref(number)


def hold_decided(node) -> None:
    for number in range(60):
        node.replica.payloads.decided(ref(number), 1)


def want_bodies(node) -> None:
    node.replica.payloads.want(tuple(ref(number) for number in range(400)), (1,))


def ask_for_bodies(node) -> None:
    node.replica.asked.refs.update((ref(number).digest, ref(number)) for number in range(400))


def charge(node) -> None:
    for number in range(20):
        node.replica.payloads._held[ref(number).digest] = ref(number)
        node.replica.mempool.add(ref(number), 1)


def make_batches(node) -> None:
    node.replica.mempool._keys_of_batch.update((ref(number).digest, ()) for number in range(7))


def take_requests(node) -> None:
    mempool = node.replica.mempool
    for number in range(40):
        mempool._collecting_bytes = 0
        mempool.admit(Submission(number, b"%d" % number, bytes(100), 1))
    mempool._collecting_bytes = sum(len(one.data) for one in mempool._collecting)


def open_sessions(node) -> None:
    sessions = node.executor.sessions
    sessions._limits = LIMITS
    for number in range(3):
        sessions.open(b"k", b"%d" % number, 500, number)


def some_session(node):
    return next(iter(node.executor.sessions))


def execute_far_ahead(node) -> None:
    some_session(node).executed = 1 << 5


def keep_results(node) -> None:
    some_session(node).kept.update(dict.fromkeys(range(6)))


def keep_long_results(node) -> None:
    some_session(node).kept_bytes = 41


def vote_for_checkpoints(node) -> None:
    checkpoints = node.replica.checkpoints
    checkpoints._own = dict.fromkeys(range(2, 40, 2))


def count_checkpoint_votes(node) -> None:
    node.replica.checkpoints._tallies = dict.fromkeys(range(9))


def keep_roots(node) -> None:
    node.replica.commits._roots.update((position, (1, b"")) for position in range(100))


def keep_states(node) -> None:
    node.application._stage._kept.update(dict.fromkeys(range(4)))


def keep_longer(node) -> None:
    node.replica.payloads._keep_through.update((ref(number).digest, 1) for number in range(60))


def take_offers(node) -> None:
    node.replica.payloads._offered[2] = 65


def remember_requests(node) -> None:
    node.replica.mempool._known_keys.add(b"forgotten")


def crowd(node) -> None:
    node.edge._readers._gathering.extend([None] * 1_025)


def download_more(node) -> None:
    node.replica.state_transfer.download = Download(node.replica.checkpoints.stable, 100, 1)
    node.replica.state_transfer.download.received = 101


def trim_nothing(node) -> None:
    node.log._segments = {1: None, 10: None}
    node.trimmed_below = 10


def log_much(node) -> None:
    node.log._segments = {1: None, 2: None}
    node.log._next_index = 1_000


def keep_snapshots(node) -> None:
    for number in range(4):
        node.disk.open_append(f"{SNAPSHOT_DIRECTORY}/{number}{SUFFIX}")


def hold_outputs(node) -> None:
    node.gate._waiting.extend((1 << 40, None) for _ in range(40 * 4 * 6 + 1))


@pytest.mark.parametrize(
    ("tamper", "what"),
    [
        (hold_outputs, "961 outputs held back"),
        (hold_votes, "signed slots"),
        (hold_decisions, "executed positions"),
        (hold_bodies, "bodies where"),
        (hold_decided, "decided batches"),
        (want_bodies, "missing bodies"),
        (ask_for_bodies, "bodies that the engine waits for"),
        (charge, "20 batches that n1 answers for where there may be 4"),
        (make_batches, "7 own batches on their way where there may be 6"),
        (take_requests, "4000 bytes of requests that wait where there may be 865"),
        (open_sessions, "sessions where there may be 2"),
        (execute_far_ahead, "6 sequences in a session's window where there may be 5"),
        (keep_results, "kept results of a session where there may be 5"),
        (keep_long_results, "41 bytes of a session's results where there may be 40"),
        (vote_for_checkpoints, "19 own checkpoint votes"),
        (count_checkpoint_votes, "9 checkpoints whose votes are counted where there may be 8"),
        (keep_roots, "roots where"),
        (keep_states, "4 states in memory where there may be 3"),
        (keep_longer, "batches that are kept longer"),
        (take_offers, "65 bodies that n2 offers where there may be 64"),
        (remember_requests, "1 requests on their way where there may be 0"),
        (crowd, "1025 readers where there may be 1024"),
        (download_more, "101 bytes of a state on its way here where there may be 100"),
        (trim_nothing, "1 segments behind one that is needless where there may be 0"),
        (log_much, "998 records of the log"),
        (keep_snapshots, "snapshots on the disk where there may be 3"),
    ],
)
def test_whatever_grows_beyond_its_limit_is_found(monkeypatch, tamper, what):
    world = world_of()
    node = world.nodes[0]
    bounds = Bounds(world.settings)
    assert bounds.problem(node) is None
    tamper(node)
    assert what in (bounds.problem(node) or "")
    monkeypatch.setattr(Idleness, "problem", lambda self, node: None)
    with pytest.raises(Violation, match="n0 keeps"):
        for _ in range(MEASURE_AGAIN):
            node.world.checkers.stepped(node)


def test_what_was_found_at_the_start_is_held_against_nobody():
    world = world_of()
    node = world.nodes[0]
    bounds = Bounds(world.settings)
    for tamper in (charge, log_much, keep_snapshots):
        tamper(node)
        assert bounds.problem(node) is not None
    bounds.begins(node)
    assert bounds.problem(node) is None


def test_limits_follow_the_settings():
    small, large = world_of(), make_world(1, PBFT, 4, msgspec.structs.replace(SMALL, checkpoint_interval=16))
    assert finish(large).ok
    for world, found in ((small, True), (large, False)):
        node = world.nodes[0]
        node.replica.guard._slots.update((("vote", 0, 100 + position), b"") for position in range(100))
        assert (Bounds(world.settings).problem(node) is not None) is found


def test_bounds_are_small_in_a_share_of_the_schedules():
    names = ("max_sessions", "session_window", "session_reply_bytes", "origin_batches", "collect_requests")
    drawn = [draw_profile("all", Random(f"{seed}/profile")) for seed in range(400)]
    for name in names:
        small = sum(getattr(profile, name) > 0 for profile in drawn)
        assert 20 < small < 100, name
    assert not any(getattr(draw_profile("calm", Random(seed)), name) for seed in range(50) for name in names)
    assert all(profile.session_window in (0, *range(MOST_COMMANDS, 20)) for profile in drawn)


def test_small_bounds_are_those_of_the_group():
    world = make_world(1, PBFT, 4, SMALL)
    limits, tuning = world.settings.limits, world.settings.tuning
    assert (limits.max_sessions, limits.session_window, limits.session_reply_bytes) == (2, 5, 40)
    assert (tuning.origin_batches, tuning.collect_bytes) == (4, longest(limits))
    usual = make_world(1, PBFT, 4, Profile())
    assert usual.settings.limits == msgspec.structs.replace(LIMITS, checkpoint_interval=8)


def test_a_request_is_never_longer_than_what_may_wait():
    world = make_world(1, PBFT, 4, Profile(clients=3, envelopes=20, think_ms=1, two_faced=0.3))
    lengths: list[int] = []
    carry = world.request

    def request(member, data, client=None):
        lengths.append(len(data))
        carry(member, data, client)

    world.request = request
    assert finish(world).ok
    assert 0 < max(lengths) <= longest(world.settings.limits)
    assert len(canonical([bytes(128)] * MOST_COMMANDS)) <= longest(LIMITS) - 200


def test_what_happens_at_a_bound_does_happen():
    counted: Tally[str] = Tally()
    for seed in range(16):
        profile = msgspec.structs.replace(
            SMALL, clients=8, envelopes=8, think_ms=5, repeat=0.5, loss=0.2, duration_ms=3_000, partitions=3
        )
        outcome = run_schedule(seed, engine="pbft", profile=profile)
        assert outcome.violations == (), f"seed {seed}"
        counted.update(outcome.counters)
    for what in (
        "sessions lost",
        "refused: the session is not known",
        "refused: overloaded",
        "refused: the sequences are beyond the session's window",
        "refused: executed earlier; the results are no longer kept",
        f"refused: {BEYOND_QUOTA}",
    ):
        assert counted[what], what
