"""The durability gate, the replica and the application stage, broken on purpose."""

from typing import Any

import msgspec

from bftkit.batteries.counter import Counter
from bftkit.core.batch import CommittedBatch
from bftkit.core.outputs import Broadcast, Send
from bftkit.replica.messages import SnapshotChunk
from bftkit.replica.outputs import Append, SaveSnapshot
from bftkit.replica.records import RecordKind
from bftkit.testing.mutant_catalogue.schedules import AWAY, BUSY, CRASHES, SPLIT
from bftkit.testing.mutants import Check, Mutant, Schedules, doing_nothing
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, seeded_world, simulate


def _no_barrier(original: Any) -> Any:
    def append(self: Any, kind: Any, value: Any, *, barrier: bool) -> int:
        index: int = original(self, kind, value, barrier=False)
        return index

    return append


def _admitting(original: Any) -> Any:
    def admit(self: Any, submission: Any) -> Any:
        held, self._collecting_bytes = self._collecting_bytes, 0
        try:
            return original(self, submission)
        finally:
            self._collecting_bytes += held

    return admit


def _without_end(original: Any) -> Any:
    def close_batches(self: Any, number: int) -> list[Any]:
        made: list[Any] = []
        while self._collecting:
            made.append(self._close_one(number + len(made)))
        return made

    return close_batches


def _without(kind: RecordKind) -> Any:
    """Make a recovery that overlooks one kind of record."""

    def make(original: Any) -> Any:
        return lambda self, record: None if record.kind == kind else original(self, record)

    return make


def _snapshots_first(original: Any) -> Any:
    def finish(self: Any) -> Any:
        return sorted(original(self), key=lambda output: not isinstance(output, SaveSnapshot))

    return finish


def _look_at_what_is_saved() -> str | None:
    """A snapshot is saved behind every record that its turn makes."""
    world = seeded_world(1, profile=Profile(clients=2, envelopes=20, checkpoint_interval=2, snapshot_positions=2))
    early: list[int] = []

    def watch(outputs: list[Any]) -> list[Any]:
        saved = next((place for place, one in enumerate(outputs) if isinstance(one, SaveSnapshot)), len(outputs))
        early.extend(place for place, one in enumerate(outputs) if place > saved and isinstance(one, Append))
        return outputs

    world.nodes[0].rewrite = watch
    finish(world)
    return "a record comes behind it" if early else None


def _no_oldest(original: Any) -> Any:
    return property(lambda self: None)


def _any_state(original: Any) -> Any:
    def restore(self: Any, data: bytes, height: int, state_root: bytes, sessions_root: bytes) -> str:
        self.executor.restore(data)
        return ""

    return restore


def _swallowing(original: Any) -> Any:
    def apply(self: Any, height: int, commands: list[bytes]) -> list[bytes]:
        try:
            results: list[bytes] = original(self, height, commands)
        except Exception:
            return [b""] * len(commands)
        return results

    return apply


def _another_state(to: int, message: Any) -> list[tuple[int, Any]]:
    """Hand out a state that differs from the certified one in its last digit."""
    if isinstance(message, SnapshotChunk) and message.offset + len(message.data) == message.size:
        digit = b"1" if message.data[-1:] != b"1" else b"2"
        message = msgspec.structs.replace(message, data=message.data[:-1] + digit)
    return [(to, message)]


class _Raising(Counter):
    def apply(self, batch: CommittedBatch) -> list[bytes]:
        if batch.height > 5:
            raise ValueError("no luck")
        return super().apply(batch)


def _look_at_raising_machines() -> str | None:
    """A state machine that raises stops its member."""
    outcome = simulate(_Raising, seed=1, faults="calm")
    if any("raised" in violation for violation in outcome.violations):
        return None
    return f"a state machine raised, and nobody noticed: {outcome.violations}"


MUTANTS = (
    Mutant(
        "gate: everything may pass",
        "A vote leaves before it is on the disk.",
        "bftkit.replica.gate:_may_pass",
        lambda original: lambda output: not isinstance(output, Append),
        (Schedules(profile="calm"),),
    ),
    Mutant(
        "gate: messages may pass",
        "Messages leave before the record that they rest on is on the disk.",
        "bftkit.replica.gate:_may_pass",
        lambda original: lambda output: isinstance(output, Send | Broadcast) or original(output),
        (Schedules(profile="calm"),),
    ),
    Mutant(
        "replica: no record is a barrier",
        "A step's record is written some time, and its votes leave at once.",
        "bftkit.replica.replica:Replica.append",
        _no_barrier,
        (Schedules(profile=CRASHES), Schedules(profile="crash")),
    ),
    Mutant(
        "replica: needed records are trimmed",
        "The log is trimmed beyond the oldest body that is still needed.",
        "bftkit.replica.payloads:Payloads.oldest_index",
        _no_oldest,
        (Schedules(profile=CRASHES), Schedules(profile=AWAY)),
    ),
    Mutant(
        "replica: batches wait for ever",
        "Requests that wait are put into a batch only when others come.",
        "bftkit.replica.mempool:Mempool.close_batches",
        lambda original: lambda self, number: original(self, number) if len(self._collecting) > 1 else [],
        (Schedules(profile="calm"),),
    ),
    Mutant(
        "replica: nothing is fetched again",
        "A body that did not come at the first request is never asked for again.",
        "bftkit.replica.payloads:Payloads.ask_again",
        lambda original: lambda self, executed: [],
        (Schedules(profile=SPLIT), Schedules(profile="network")),
    ),
    Mutant(
        "replica: what is missing is waited for",
        "A decided position waits for a body without a timer that would ask for it once more.",
        "bftkit.replica.dissemination:arm_fetch",
        doing_nothing,
        (Schedules(profile=SPLIT), Schedules(profile="network")),
    ),
    Mutant(
        "replica: nobody is asked",
        "Whoever lags never asks for what it lacks.",
        "bftkit.replica.catch_up:_ask_somebody",
        doing_nothing,
        (Schedules(profile=AWAY), Schedules(profile="crash")),
    ),
    Mutant(
        "replica: the roots of a transferred state are not looked at",
        "A state is taken from a peer though its digest is not the certified one.",
        "bftkit.runtime.application:ApplicationStage._try",
        _any_state,
        (Schedules(profile=AWAY, liar="another state", speak=_another_state),),
    ),
    Mutant(
        "replica: bodies are never forgotten",
        "What a durable snapshot has made unnecessary is kept, and counts as decided.",
        "bftkit.replica.payloads:Payloads.forget_through",
        lambda original: lambda self, position: (),
        (Schedules(profile=BUSY),),
    ),
    Mutant(
        "replica: decided positions are never trimmed",
        "The decisions below a durable snapshot are kept.",
        "bftkit.replica.commits:CommitLog.trim",
        doing_nothing,
        (Schedules(profile=BUSY),),
    ),
    Mutant(
        "replica: no quota of an origin",
        "One member may have as many batches on their way as it likes.",
        "bftkit.replica.mempool:Mempool.has_room",
        lambda original: lambda self, member, size: True,
        (Schedules(profile=msgspec.structs.replace(BUSY, origin_batches=4), liar="flooding bodies"),),
    ),
    Mutant(
        "replica: requests are never refused",
        "Requests wait for a batch, however many, in place of being refused.",
        "bftkit.replica.mempool:Mempool.admit",
        _admitting,
        (Schedules(profile=msgspec.structs.replace(BUSY, collect_requests=1, partitions=6, clients=8)),),
    ),
    Mutant(
        "replica: any number of own batches",
        "A replica makes a batch of whatever comes, however many are on their way.",
        "bftkit.replica.mempool:Mempool.close_batches",
        _without_end,
        (Schedules(profile=msgspec.structs.replace(BUSY, partitions=6)),),
    ),
    Mutant(
        "replica: snapshots are saved ahead of the engine's record",
        "A state is durable before what the engine knew at its position, and whoever starts from it knows too little.",
        "bftkit.replica.replica:Replica._finish",
        _snapshots_first,
        (Check(_look_at_what_is_saved),),
    ),
    Mutant(
        "recovery: decided positions are forgotten",
        "A replica that starts again knows of no decision above its snapshot, though its log held them.",
        "bftkit.replica.recovery:_History.take",
        _without(RecordKind.COMMIT),
        (Schedules(profile=CRASHES),),
    ),
    Mutant(
        "recovery: stable checkpoints are forgotten",
        "A replica that starts again begins at its snapshot, whatever was stable above.",
        "bftkit.replica.recovery:_History.take",
        _without(RecordKind.STABLE),
        (Schedules(profile=CRASHES),),
    ),
    Mutant(
        "application: an exception is swallowed",
        "A state machine that raises is taken for one that has executed.",
        "bftkit.replica.execution:Executor._apply",
        _swallowing,
        (Check(_look_at_raising_machines),),
    ),
)
"""All of them."""
