"""The library, broken on purpose: replica, signing, sessions, log, snapshots and wire; see `bftkit.testing.mutants`."""

from random import Random
from typing import Any

import msgspec

from bftkit.batteries.counter import Counter
from bftkit.core.batch import CommittedBatch
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import Broadcast, Send
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement
from bftkit.errors import CorruptLog, StorageError, StorageFull, WireError
from bftkit.replica.messages import SnapshotChunk
from bftkit.replica.outputs import Append
from bftkit.replica.records import StepRecord
from bftkit.replica.safety import SigningGuard
from bftkit.storage.log import Log
from bftkit.storage.replacement import TEMPORARY_SUFFIX
from bftkit.testing.disk import CrashMode, SimulatedDisk
from bftkit.testing.mutants import Check, Mutant, Schedules
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import simulate
from bftkit.wire.framing import FrameDecoder, FrameType, frame_header

_CRASHES = Profile(
    crashes=6,
    crashes_at_output=6,
    crashes_in_disk=4,
    power_cuts=3,
    crash_modes=(CrashMode.NOTHING, CrashMode.TORN, CrashMode.REORDERED),
    clients=3,
    envelopes=16,
    think_ms=20,
    sync_us=(100, 20_000),
    checkpoint_interval=2,
    snapshot_positions=4,
    segment_bytes=4_096,
)
"""Members that crash all the time, with snapshots and trimming in between."""

_SPLIT = Profile(partitions=6, cuts=4, down_ms=(500, 1_000), clients=4, envelopes=16, think_ms=10)
_REPEATING = Profile(repeat=1.0, clients=4, envelopes=16, think_ms=5, two_faced=0.3)
_AWAY = Profile(
    crashes=2,
    down_ms=(2_000, 1_000),
    clients=4,
    envelopes=40,
    think_ms=10,
    checkpoint_interval=2,
    snapshot_positions=4,
    segment_bytes=4_096,
)
"""Members that are away for so long that they need a state."""


# --- Replacements -----------------------------------------------------------------------------------------------------


def _smaller_quorum(original: Any) -> Any:
    real = original.__func__

    def of(cls: Any, fault_model: FaultModel, members: int) -> Any:
        quorum = real(cls, fault_model, members)
        return msgspec.structs.replace(quorum, quorum=max(1, quorum.quorum - 1))

    return classmethod(of)


def _half(original: Any) -> Any:
    real = original.__func__

    def of(cls: Any, fault_model: FaultModel, members: int) -> Any:
        return msgspec.structs.replace(real(cls, fault_model, members), quorum=max(1, members >> 1))

    return classmethod(of)


def _no_barrier(original: Any) -> Any:
    def append(self: Any, kind: Any, value: Any, *, barrier: bool) -> int:
        index: int = original(self, kind, value, barrier=False)
        return index

    return append


def _always_none(original: Any) -> Any:
    return lambda *arguments: None


def _retried_sync(original: Any) -> Any:
    def write(self: Any, batch: Any) -> None:
        tail = self._segments[self._tail]
        try:
            original(self, batch)
        except StorageFull:
            raise
        except StorageError:
            # "Try again": the pages are marked clean by now, so the second sync has nothing to write, and succeeds.
            encoded, locations, chain, size = self._encode(batch, tail.size)
            self._file = self._storage.open_append(f"{self._directory}/{self._tail:020d}.log")
            self._file.sync()
            del encoded
            with self._memory:
                self._chain = chain
                self._segments[self._tail] = type(tail)(tail.header, size)
                self._locations.update(locations)
                self._durable_index = batch[-1].index
                self._buffered = 0
                self._flushing = []

    return write


def _without_directory_sync(original: Any) -> Any:
    def replace_file(storage: Any, path: str, chunks: Any) -> None:
        temporary = path + TEMPORARY_SUFFIX
        file = storage.open_append(temporary)
        try:
            file.truncate(0)
            for chunk in chunks:
                file.write((chunk,))
            file.sync()
        finally:
            file.close()
        storage.rename(temporary, path)

    return replace_file


def _executes_again(original: Any) -> Any:
    def begin(self: Any, session: Any, first: int, count: int, acknowledged: int, height: int) -> None:
        executed = session.executed
        original(self, session, first, count, acknowledged, height)
        session.executed = executed

    return begin


def _no_sessions(original: Any) -> Any:
    return lambda self: b"\x90"


def _own_time(original: Any) -> Any:
    def admit(self: Any, session: Any, first: int, count: int, acknowledged: int) -> Any:
        answer = original(self, session, first, count, acknowledged)
        height = getattr(answer, "height", None)
        return answer if height is None else msgspec.structs.replace(answer, height=height + 1)

    return admit


def _swallowing(original: Any) -> Any:
    def apply(self: Any, height: int, commands: list[bytes]) -> list[bytes]:
        try:
            results: list[bytes] = original(self, height, commands)
        except Exception:
            return [b""] * len(commands)
        return results

    return apply


def _no_oldest(original: Any) -> Any:
    return property(lambda self: None)


def _one_vote(original: Any) -> Any:
    def certificate(self: Any, content: bytes, threshold: int) -> Any:
        return original(self, content, min(threshold, 1))

    return certificate


def _no_low_mark(original: Any) -> Any:
    def stable(self: Any, position: int) -> None:
        self._slots = {slot: content for slot, content in self._slots.items() if slot[2] > position}

    return stable


def _any_state(original: Any) -> Any:
    def restore(self: Any, data: bytes, height: int, state_root: bytes, sessions_root: bytes) -> str:
        self.executor.restore(data)
        return ""

    return restore


def _never_wakes(original: Any) -> Any:
    return lambda self, *arguments: None


# --- Liars and looks ------------------------------------------------------------------------------------------------


def _another_state(to: int, message: Any) -> list[tuple[int, Any]]:
    """Hand out a state that differs from the certified one in its last digit."""
    if isinstance(message, SnapshotChunk) and message.offset + len(message.data) == message.size:
        digit = b"1" if message.data[-1:] != b"1" else b"2"
        message = msgspec.structs.replace(message, data=message.data[:-1] + digit)
    return [(to, message)]


def _look_at_long_frames() -> str | None:
    """A vote that announces 64 MiB is refused before anything is kept for it."""
    header = bytearray(frame_header(FrameType.VOTE, 1))
    header[-4:] = (1 << 26).to_bytes(4, "big")
    decoder = FrameDecoder()
    try:
        decoder.feed(bytes(header))
    except WireError:
        return None
    return f"a header that announces 64 MiB is taken; {decoder.pending_bytes} bytes are held"


def _look_at_thin_certificates() -> str | None:
    """A checkpoint certificate with too few signers is refused."""
    from bftkit.core.certificate import QuorumCertificate
    from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
    from bftkit.core.engine import EngineContext
    from bftkit.core.epoch import Limits
    from bftkit.replica.messages import StableCheckpoint, message_problem
    from bftkit.testing.solo import solo_spec

    members = tuple(Member(f"n{index}", bytes([index]) * 32) for index in range(4))
    context = EngineContext(0, Membership(members, FaultModel.BYZANTINE), None, Limits())
    checkpoint = Checkpoint(8, 8, bytes(32), bytes(32), bytes(32))
    certificate = QuorumCertificate.of(checkpoint.statement(), {0: bytes(64), 1: bytes(64)}, 4)
    message = StableCheckpoint(CheckpointCertificate(checkpoint, certificate))
    if message_problem(context, solo_spec(), message) is not None:
        return None
    return "a state with two signatures of four members is taken for certified"


def _look_at_damaged_records() -> str | None:
    """Damage to a record that was durable stops the log, and is not cut as if it were torn."""
    disk = SimulatedDisk(Random(1))
    log = Log.open(disk, "log", bytes(32))
    for number in range(4):
        log.append(1, 0, b"record %d" % number)
        log.flush_and_sync()
    path = next(name for name in disk.contents() if name.endswith(".log"))
    place = disk.contents()[path].index(b"record 1")
    disk.flip_bit(path, place)
    disk.crash(CrashMode.KILL)
    try:
        records = [record.payload for record in Log.open(disk, "log", bytes(32)).records()]
    except CorruptLog:
        return None
    return f"a damaged log opens, with {records}"


def _look_at_the_guard_after_a_restart() -> str | None:
    """What was signed before a restart binds afterwards."""
    guard = SigningGuard({})
    record = StepRecord((), False, 3, 8, guard.slots_of([Statement("vote", 4, 9, b"a" * 32)]))
    guard.restore(record)
    if guard.admit(Statement("vote", 4, 9, b"b" * 32)) is None:
        return "two contents may be signed for one slot, before and after a restart"
    if guard.admit(Statement("vote", 2, 9, b"a" * 32)) is None:
        return "a view that was given up is voted in after a restart"
    return None


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


def _look_at_the_low_mark() -> str | None:
    """Nothing is signed at or below a stable checkpoint."""
    guard = SigningGuard({})
    guard.admit(Statement("vote", 0, 4, b"a" * 32))
    guard.stable(8)
    if guard.admit(Statement("vote", 0, 4, b"b" * 32)) is None:
        return "a slot below a stable checkpoint, forgotten by now, is signed once more"
    return None


MUTANTS = (
    Mutant(
        "quorum: one too small",
        "Two quorums share f members in place of f + 1 (PBFT §4.2).",
        "bftkit.core.quorum:Quorum.of",
        _smaller_quorum,
        (
            Schedules(profile=_SPLIT, liar="equivocating"),
            Schedules(profile=msgspec.structs.replace(_SPLIT, liars=1, twins=True)),
        ),
    ),
    Mutant(
        "quorum: half of the members",
        "A quorum of n / 2, of which there are two at once.",
        "bftkit.core.quorum:Quorum.of",
        _half,
        (Schedules(profile=_SPLIT), Schedules(profile=_SPLIT, liar="equivocating")),
    ),
    Mutant(
        "certificate: one signer is enough",
        "A certificate is assembled from a single vote.",
        "bftkit.core.votes:VoteTally.certificate",
        _one_vote,
        (Schedules(profile="calm"),),
    ),
    Mutant(
        "certificate: signers are not counted",
        "A transferred state is taken without a quorum's certificate.",
        "bftkit.core.certificate:certificate_problem",
        _always_none,
        (Check(_look_at_thin_certificates),),
    ),
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
        (Schedules(profile=_CRASHES), Schedules(profile="crash")),
    ),
    Mutant(
        "replica: needed records are trimmed",
        "The log is trimmed beyond the oldest body that is still needed.",
        "bftkit.replica.payloads:Payloads.oldest_index",
        _no_oldest,
        (Schedules(profile=_CRASHES), Schedules(profile=_AWAY)),
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
        (Schedules(profile=_SPLIT), Schedules(profile="network")),
    ),
    Mutant(
        "replica: nobody is asked",
        "Whoever lags never asks for what it lacks.",
        "bftkit.replica.catch_up:_ask_somebody",
        _always_none,
        (Schedules(profile=_AWAY), Schedules(profile="crash")),
    ),
    Mutant(
        "replica: the roots of a transferred state are not looked at",
        "A state is taken from a peer though its digest is not the certified one.",
        "bftkit.runtime.application:ApplicationStage._try",
        _any_state,
        (Schedules(profile=_AWAY, liar="another state", speak=_another_state),),
    ),
    Mutant(
        "signing: what was signed is forgotten",
        "A restarted replica may sign another content for a slot.",
        "bftkit.replica.safety:SigningGuard.restore",
        _never_wakes,
        (Check(_look_at_the_guard_after_a_restart),),
    ),
    Mutant(
        "signing: no low mark",
        "Slots below a stable checkpoint are forgotten, and may be signed again.",
        "bftkit.replica.safety:SigningGuard.stable",
        _no_low_mark,
        (Check(_look_at_the_low_mark),),
    ),
    Mutant(
        "sessions: everything is admitted",
        "A repeated request is executed once more.",
        "bftkit.replica.sessions:SessionTable.admit",
        _always_none,
        (Schedules(profile=_REPEATING),),
    ),
    Mutant(
        "sessions: what was executed is not marked",
        "A sequence executes twice where it stands in two envelopes.",
        "bftkit.replica.sessions:SessionTable.begin",
        _executes_again,
        (Schedules(profile=_REPEATING),),
    ),
    Mutant(
        "sessions: not in the snapshot",
        "A restored state knows no sessions, so that commands execute twice.",
        "bftkit.replica.sessions:SessionTable.dump",
        _no_sessions,
        (Schedules(profile=_CRASHES), Schedules(profile=_AWAY)),
    ),
    Mutant(
        "sessions: another answer for a repeated request",
        "The answer to a repeated request is not the one that was given.",
        "bftkit.replica.sessions:SessionTable.admit",
        _own_time,
        (Schedules(profile=_REPEATING),),
    ),
    Mutant(
        "application: an exception is swallowed",
        "A state machine that raises is taken for one that has executed.",
        "bftkit.replica.execution:Executor._apply",
        _swallowing,
        (Check(_look_at_raising_machines),),
    ),
    Mutant(
        "log: a failed sync is tried again",
        "After a failed fsync the next one succeeds, and nothing is on the disk (fsyncgate).",
        "bftkit.storage.log:Log._write",
        _retried_sync,
        (
            Schedules(profile=msgspec.structs.replace(_CRASHES, sync_errors=8, power_cuts=4)),
            Schedules(profile="disk"),
        ),
    ),
    Mutant(
        "log: a rename without its directory",
        "A file that was renamed is back under its old name after a loss of power.",
        "bftkit.storage.replacement:replace_file",
        _without_directory_sync,
        (Schedules(profile=_CRASHES), Schedules(profile="disk")),
    ),
    Mutant(
        "log: payloads are not verified",
        "A record whose payload is torn or rotten is taken for whole.",
        "bftkit.storage.record:RecordCodec.verify",
        lambda original: lambda self, header, payload_digest: True,
        (Schedules(profile=_CRASHES), Check(_look_at_damaged_records)),
    ),
    Mutant(
        "log: the first bad record ends it",
        "Whatever follows a bad record is cut, though it was durable.",
        "bftkit.storage.segment:SegmentReader.find_proof",
        lambda original: lambda self, bad: None,
        (Check(_look_at_damaged_records),),
    ),
    Mutant(
        "wire: the length of a frame is not looked at",
        "A header may announce more than its type allows.",
        "bftkit.wire.framing:_kinds_of",
        lambda original: lambda accepted: {word: (kind, 1 << 40) for word, (kind, _) in original(accepted).items()},
        (Check(_look_at_long_frames),),
    ),
)
"""All of the library's."""
