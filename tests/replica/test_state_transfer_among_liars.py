"""A member that fetches a state among liars: however they treat it, it gets one, within a bound."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.replica.inputs import PeerUp
from bftkit.replica.messages import (
    CheckpointVote,
    FetchCommits,
    FetchSnapshot,
    Progress,
    SnapshotAvailable,
    SnapshotChunk,
)
from bftkit.replica.settings import ReplicaTuning
from bftkit.replica.state_transfer import PATIENCE
from bftkit.testing.mutant_catalogue.schedules import AWAY
from bftkit.testing.mutant_catalogue.states import FETCHING
from bftkit.testing.simulation import finish, seeded_world
from tests.replica.parts import Host, certified, settings_of
from tests.replica.test_catch_up import decide

MEMBERS, FAULTS = 7, 2
EXCHANGES = 60
"""Messages that arrive between two looks: lines have an end."""

Answers = Callable[[Any, int], list[Any]]
"""What a source makes of a message, in which round."""


def offering(certificate: CheckpointCertificate, data: bytes, size: int | None = None) -> Answers:
    """A member that is well, but for the size that it claims."""
    size = len(data) if size is None else size
    state = data.ljust(min(size, 10**6), b"x")[: min(size, 10**6)]

    def answers(message: Any, turn: int) -> list[Any]:
        match message:
            case FetchCommits():
                return [SnapshotAvailable(certificate, size)]
            case FetchSnapshot(position, offset, length):
                return [SnapshotChunk(position, size, offset, state[offset : offset + length])]
            case Progress(asks=True):
                return [Progress(10, 10, 8)]
        return []

    return answers


def lying(make: Callable[[SnapshotChunk, int], list[Any]], honest: Answers) -> Answers:
    """A member that treats parts in a way of its own, and is forward with its offers."""

    def answers(message: Any, turn: int) -> list[Any]:
        said = honest(message, turn)
        parts = [one for chunk in said if isinstance(chunk, SnapshotChunk) for one in make(chunk, turn)]
        others = [one for one in said if not isinstance(one, SnapshotChunk)]
        return [*parts, *others, *honest(FetchCommits(0), turn)]

    return answers


def liars(certificate: CheckpointCertificate, data: bytes) -> dict[str, Answers]:
    honest = offering(certificate, data)
    change = msgspec.structs.replace
    return {
        "drips": lying(lambda chunk, turn: [change(chunk, data=chunk.data[:1])], honest),
        "drips now and then": lying(lambda chunk, turn: [change(chunk, data=chunk.data[:1])] * (turn % 2), honest),
        "stalls": lying(lambda chunk, turn: [], honest),
        "is as slow as may be": lying(lambda chunk, turn: [chunk] * (turn % PATIENCE == 0), honest),
        "boasts": lying(lambda chunk, turn: [chunk], offering(certificate, data, 2**31)),
        "boasts a bit": lying(lambda chunk, turn: [chunk], offering(certificate, data, 2 * len(data))),
        "has next to nothing": lying(lambda chunk, turn: [chunk], offering(certificate, data, 1)),
        "has another state": lying(lambda chunk, turn: [change(chunk, data=b"x" * len(chunk.data))], honest),
    }


def rounds_until_well(host: Host, sources: dict[int, Answers], loses: Callable[[int], bool]) -> int:
    """Let a member fetch a state, look after look; return how many it took."""
    queue: list[tuple[int, Any]] = []
    for turn in range(1_000):
        if host.executor.height:
            return turn
        for _ in range(EXCHANGES):
            queue += [(to, answer) for to, message in host.sent for answer in sources[to](message, turn)]
            host.sent.clear()
            if not queue:
                break
            sender, message = queue.pop(0)
            if not loses(turn) and not host.executor.height:
                host.hear(sender, message)
        for timer in ("replica/sync", "replica/progress"):
            if timer in host.timers:
                host.fire(timer)
    raise AssertionError("it never gets a state")


@pytest.mark.parametrize("seed", range(150))
def test_with_at_most_f_liars_a_laggard_gets_its_state_within_a_bound_after_the_network_has_healed(seed):
    chance = Random(seed)
    ahead = Host(settings_of(1, MEMBERS, tuning=ReplicaTuning(snapshot_positions=8)))
    ahead.start()
    decide(ahead, 10)
    vote = next(message for _, message in ahead.messages(CheckpointVote) if message.checkpoint.position == 8)
    certificate, data = certified(vote.checkpoint, MEMBERS, range(5)), ahead.kept[8]
    ways = liars(certificate, data)
    sources = dict.fromkeys(range(1, MEMBERS), offering(certificate, data))
    for member in chance.sample(range(1, MEMBERS), FAULTS):
        sources[member] = ways[chance.choice(list(ways))]
    behind = Host(settings_of(0, MEMBERS, tuning=ReplicaTuning(snapshot_chunk_bytes=-(-len(data) // 8))))
    behind.start()
    healed = chance.choice((0, 10, 40))
    for peer in sources:
        behind.step(PeerUp(0, peer))
        behind.hear(peer, Progress(10, 10, 8))
    rounds = rounds_until_well(behind, sources, lambda turn: turn < healed and chance.random() < 0.9)
    assert behind.executor.height == 8
    assert rounds - healed <= MEMBERS + FAULTS * (2 * 8 * PATIENCE + PATIENCE)


@pytest.mark.parametrize("seed", [0, 1, 4, 25, 32])
@pytest.mark.parametrize("name", ["dripping states", "enormous states"])
def test_a_simulated_member_that_was_away_gets_past_a_liar_that_it_asks_first(name, seed):
    outcome = finish(seeded_world(seed, profile=FETCHING, liars={seed % 4: name}))
    assert outcome.violations == ()
    assert outcome.faults_hit[f"byzantine: {name}"]
    assert outcome.counters["state transfers"]


def test_the_schedule_in_which_one_byte_now_and_then_kept_a_member_away():
    asked = 0

    def drip(to: int, message: Any) -> list[tuple[int, Any]]:
        nonlocal asked
        if not isinstance(message, SnapshotChunk):
            return [(to, message)]
        asked += 1
        return [] if asked % 2 else [(to, msgspec.structs.replace(message, data=message.data[:1]))]

    assert finish(seeded_world(6, profile=AWAY, liars={1: drip})).violations == ()
    assert asked
