"""What a member keeps, on its disk and in memory, without an end: the library, broken on purpose."""

from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.replica.payloads import Payloads
from bftkit.replica.read_queue import ReadQueue
from bftkit.testing.bounds import READERS_AT_ONCE
from bftkit.testing.mutant_catalogue.schedules import BUSY, CRASHES, REPEATING, SPLIT
from bftkit.testing.mutants import Check, Mutant, Schedules, doing_nothing

_LONG = msgspec.structs.replace(BUSY, envelopes=80)
"""Many snapshots, one after the other."""


def _never_trimmed(original: Any) -> Any:
    def trim(self: Any, position: int) -> None:
        emitted = len(self._out)
        original(self, position)
        self._out[emitted:] = [output for output in self._out[emitted:] if type(output).__name__ != "Trim"]

    return trim


def _own_votes_only(original: Any) -> Any:
    def now_stable(self: Any, certificate: Any) -> None:
        tallies, checkpoints = dict(self._tallies), dict(self._checkpoints)
        original(self, certificate)
        self._tallies, self._checkpoints = tallies, checkpoints

    return now_stable


def _with_roots(original: Any) -> Any:
    def trim(self: Any, position: int) -> None:
        roots = dict(self._roots)
        original(self, position)
        self._roots = roots

    return trim


def _keys_stay(original: Any) -> Any:
    def committed(self: Any, ref: BatchRef) -> None:
        if ref.digest in self._keys_of_batch:
            self._keys_of_batch[ref.digest] = ()
        original(self, ref)

    return committed


def _kept_for_ever(original: Any) -> Any:
    def forget_through(self: Any, position: int) -> Any:
        kept = dict(self._keep_through)
        gone = original(self, position)
        self._keep_through = kept
        return gone

    return forget_through


def _never_given_up(original: Any) -> Any:
    return lambda self, executed: self._ask([wanted.ref for wanted in self._wanted.values()])


def _look_at_bodies_that_nobody_has() -> str | None:
    """Bodies that were asked for again and again, and that nothing needs, are given up."""
    payloads = Payloads(0, 4)
    payloads.want((BatchRef(bytes(32), 1, 1, 10),), (1,))
    payloads.want_offered((BatchRef(b"o" * 32, 2, 1, 10),), 2)
    for _ in range(200):
        payloads.ask_again(0)
    return f"{len(payloads.missing)} are still asked for" if payloads.missing else None


def _look_at_a_crowd_of_readers() -> str | None:
    """There is an end to the readers who may wait at one member."""
    queue: ReadQueue[int] = ReadQueue(0)
    for reader in range(2 * READERS_AT_ONCE):
        if queue.is_full:
            return None
        queue.add(reader, 0)
    return f"{len(queue)} wait"


MUTANTS = (
    Mutant(
        "sizes: snapshots are never removed",
        "The disk keeps every snapshot that was ever made.",
        "bftkit.storage.snapshots:SnapshotStore.prune",
        lambda original: lambda self, keep=2: [],
        (Schedules(profile=_LONG), Schedules(profile=CRASHES)),
    ),
    Mutant(
        "sizes: segments are never removed",
        "The log keeps segments of which nothing is needed.",
        "bftkit.storage.log:Log.trim",
        doing_nothing,
        (Schedules(profile=_LONG),),
    ),
    Mutant(
        "sizes: nobody has the log trimmed",
        "A durable snapshot makes nothing in the log needless.",
        "bftkit.replica.replica:Replica.trim",
        _never_trimmed,
        (Schedules(profile=msgspec.structs.replace(_LONG, envelopes=240, think_ms=2, duration_ms=8_000)),),
    ),
    Mutant(
        "sizes: votes for any checkpoint are counted",
        "Votes are kept for checkpoints however far ahead, as many as a liar makes up.",
        "bftkit.replica.checkpoints:_WINDOW_CHECKPOINTS",
        lambda original: 1 << 40,
        (Schedules(profile=BUSY, liar="flooding checkpoints"),),
    ),
    Mutant(
        "sizes: votes of others are never forgotten",
        "The votes that have made a checkpoint stable are kept.",
        "bftkit.replica.checkpoints:Checkpoints.now_stable",
        _own_votes_only,
        (Schedules(profile=BUSY),),
    ),
    Mutant(
        "sizes: roots are never forgotten",
        "Height and log root of every checkpoint are kept.",
        "bftkit.replica.commits:CommitLog.trim",
        _with_roots,
        (Schedules(profile=BUSY),),
    ),
    Mutant(
        "sizes: what was decided is not taken again",
        "The names of requests are kept after their decision, and one that comes again is never answered.",
        "bftkit.replica.mempool:Mempool.committed",
        _keys_stay,
        (Schedules(profile=BUSY), Schedules(profile=REPEATING)),
    ),
    Mutant(
        "sizes: what was kept longer is kept for ever",
        "That a batch was named again is remembered when the batch is gone.",
        "bftkit.replica.payloads:Payloads.forget_through",
        _kept_for_ever,
        (Schedules(profile=CRASHES), Schedules(profile=SPLIT)),
    ),
    Mutant(
        "sizes: any number of offers",
        "A member is asked for whatever it offers, however much that is.",
        "bftkit.replica.payloads:MAX_OFFERED",
        lambda original: 1 << 40,
        (Schedules(profile=BUSY, liar="flooding offers"),),
    ),
    Mutant(
        "sizes: bodies that nobody has are asked for for ever",
        "What was made up once is asked for until the end of time.",
        "bftkit.replica.payloads:Payloads.ask_again",
        _never_given_up,
        (Check(_look_at_bodies_that_nobody_has),),
    ),
    Mutant(
        "sizes: any number of readers",
        "Readers wait at one member, however many they are.",
        "bftkit.replica.read_queue:MOST_READERS",
        lambda original: 1 << 40,
        (Check(_look_at_a_crowd_of_readers),),
    ),
)
"""All of them."""
