"""The `solo` engine: one replica that decides by itself, and the smallest example of the contract.

It has everything an engine must have and nothing more, so read it before writing one. What it shows:

* An engine is a value with three methods. It keeps its variables and nothing else: bodies, sessions,
  the log, keys and clocks belong to the replica that hosts it.
* `Persist` is a barrier. Solo persists what it wants to decide, sends itself a message behind the
  barrier, and commits when the message is back: by then the record is durable. An engine with peers
  does the same with its votes.
* What was persisted is enough. `build` gets the records of the epoch above the newest stable
  checkpoint, and leads to the same decisions again.
* Memory is bounded by a window above the stable checkpoint. What does not fit waits in `pending`.
* Every function of the `EngineSpec` is pure, and total on what a peer may send.

It suits tests of everything above an engine, and development on one machine. It tolerates no fault:
its one replica may crash and come back with its disk, but while it is away nothing is decided.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.engine import EngineContext, EngineSpec, EngineStatus
from bftkit.core.epoch import Genesis
from bftkit.core.ids import ReplicaIndex
from bftkit.core.inputs import Available, EngineInput, Read, Received, Sealed, Stable, Synced, TimerFired, Transfer
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import Commit, EngineOutput, Persist, ReadReady, Send
from bftkit.core.pending import PendingBatches
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Claim
from bftkit.plugins import hookimpl

WINDOW_CHECKPOINTS = 2
"""Length of the window of positions, in checkpoint intervals."""


class SoloOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set. ValueError where a value is out of range."""

    batches_per_position: int = 16
    """Batches that one position orders at most."""

    def __post_init__(self) -> None:
        if not 1 <= self.batches_per_position <= 1_024:
            raise ValueError(f"batches_per_position is {self.batches_per_position}, not between 1 and 1024")


# Messages and records are unions of tagged Structs. Solo has one of each.


class Durable(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="durable"):
    """What solo sends to itself behind a barrier: the record of this position is on the disk."""

    position: int


class Ordered(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="ordered"):
    """One position as it was ordered."""

    position: int
    refs: tuple[BatchRef, ...]


class Retained(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="retained"):
    """All that is still needed of the records before this one, which it replaces."""

    entries: tuple[Ordered, ...]


SoloRecord = Ordered | Retained


class SoloEngine:
    """The one replica's engine; see `ConsensusEngine` for the contract.

    Invariants: `_ordered` holds the positions above `_low` without a gap, up to `_top`; those up to
    `_committed` were handed out. A batch is in `_pending`, or in one entry of `_ordered`, or decided.
    """

    def __init__(
        self, context: EngineContext, checkpoint: CheckpointCertificate, records: Sequence[SoloRecord]
    ) -> None:
        self._own = context.own
        self._max_batches = context.options.batches_per_position
        self._window = window(context)
        self._low = self._committed = self._top = checkpoint.position
        self._ordered: dict[int, Ordered] = {}
        self._taken: dict[bytes, int] = {}
        """Position of each batch in `_ordered`."""
        self._pending = PendingBatches(len(context.membership))
        self._sealed: int | None = None
        for record in records:
            for entry in record.entries if isinstance(record, Retained) else (record,):
                if entry.position > self._low:
                    self._remember(entry)
        # One door for every input. A dictionary by type is both the fastest and the plainest dispatch.
        self._handlers: dict[type, Callable[[Any], list[EngineOutput]]] = {
            Received: self._on_received,
            Available: self._on_available,
            Stable: self._on_stable,
            Synced: self._on_synced,
            Sealed: self._on_sealed,
            Read: self._on_read,
            TimerFired: self._on_nothing,
            Transfer: self._on_nothing,
        }

    def start(self, now: int) -> list[EngineOutput]:
        """Begin; called once, before any step. What an earlier life ordered is durable, so it is decided."""
        return [Send(self._own, Durable(position)) for position in range(self._committed + 1, self._top + 1)]

    def step(self, event: EngineInput) -> list[EngineOutput]:
        """Take one input and return what is to be done, in order."""
        return self._handlers[type(event)](event)

    @property
    def view(self) -> int:
        """Return 0: the one who leads never changes."""
        return 0

    def status(self) -> EngineStatus:
        """Say the view, the leader, and what is waited for and from whom."""
        waiting = ""
        if self._top > self._committed:
            waiting = f"its own disk, which is to hold position {self._committed + 1}"
        elif len(self._pending):
            waiting = f"a stable checkpoint above position {self._low}, so that the window moves"
        return EngineStatus(0, self._own, self._committed, "normal", waiting, (self._own,) if waiting else ())

    # -- handlers ---------------------------------------------------------------------------------

    def _on_available(self, event: Available) -> list[EngineOutput]:
        """Bodies are durable here: the replica announces each of them once, and may name decided ones again."""
        for ref in event.refs:
            if ref.digest not in self._taken:
                self._pending.add(ref)
        return self._order()

    def _order(self) -> list[EngineOutput]:
        """Give the batches that wait the next positions, as far as the window allows."""
        out: list[EngineOutput] = []
        while len(self._pending) and self._top < self._low + self._window and self._sealed is None:
            entry = Ordered(self._top + 1, tuple(self._pending.take(self._max_batches)))
            self._remember(entry)
            # The message to oneself is performed behind the barrier, so its arrival says that the record is durable.
            out += [Persist(entry), Send(self._own, Durable(entry.position))]
        return out

    def _on_received(self, event: Received) -> list[EngineOutput]:
        out: list[EngineOutput] = []
        while self._committed < event.message.position and self._committed < self._top:
            self._committed += 1
            out.append(Commit(self._committed, self._ordered[self._committed].refs, CommitProof()))
        return out

    def _on_stable(self, event: Stable) -> list[EngineOutput]:
        """Forget what a stable checkpoint covers; one record replaces all earlier ones, so the log can be trimmed."""
        self._forget_through(event.checkpoint.position)
        return [Persist(Retained(tuple(self._ordered.values())), replaces_earlier=True), *self._order()]

    def _on_synced(self, event: Synced) -> list[EngineOutput]:
        """The replica knows decisions that it need not hear again: those of its log, after a restart."""
        for ref in event.refs:
            self._pending.discard(ref.digest)
        self._committed = max(self._committed, event.position)
        self._top = max(self._top, self._committed)
        return []

    def _on_sealed(self, event: Sealed) -> list[EngineOutput]:
        self._sealed = event.position
        return []

    def _on_read(self, event: Read) -> list[EngineOutput]:
        """Nobody else decides anything, so the newest decided position is recent enough."""
        return [ReadReady(event.token, self._committed)]

    def _on_nothing(self, event: TimerFired | Transfer) -> list[EngineOutput]:
        """Solo sets no timer, and there is nobody to hand the lead to."""
        return []

    # -- variables --------------------------------------------------------------------------------

    def _remember(self, entry: Ordered) -> None:
        self._ordered[entry.position] = entry
        self._top = max(self._top, entry.position)
        self._taken.update((ref.digest, entry.position) for ref in entry.refs)

    def _forget_through(self, position: int) -> None:
        self._low = max(self._low, position)
        self._committed = max(self._committed, self._low)
        self._top = max(self._top, self._low)
        for known in [known for known in self._ordered if known <= self._low]:
            for ref in self._ordered.pop(known).refs:
                del self._taken[ref.digest]


# -- the pure functions of the spec ---------------------------------------------------------------


def build(
    context: EngineContext, genesis: Genesis, checkpoint: CheckpointCertificate, records: Sequence[SoloRecord]
) -> SoloEngine:
    """Make an engine from the newest stable checkpoint and what was persisted since; ValueError for a real group."""
    if len(context.membership) != 1:
        raise ValueError("the solo engine decides alone: a group of several members needs another one")
    return SoloEngine(context, checkpoint, records)


def check(context: EngineContext, sender: ReplicaIndex, message: Durable) -> str | None:
    """Say what is wrong with a message: solo talks to itself only."""
    if sender != context.own:
        return "solo takes no message from others"
    return "a position below the first" if message.position < 1 else None


def claims(sender: ReplicaIndex, message: Durable) -> Iterable[Claim]:
    """List the signed statements inside a message: there are none."""
    return ()


def references(message: Durable) -> Iterable[BatchRef]:
    """List the batches that a message names: there are none."""
    return ()


def lane_key(message: Durable) -> bytes:
    """Name the proposal that a message is about."""
    return message.position.to_bytes(8, "big", signed=True)


def window(context: EngineContext) -> int:
    """Return how far above the newest stable checkpoint positions are ordered."""
    return WINDOW_CHECKPOINTS * context.limits.checkpoint_interval


def commit_problem(context: EngineContext, entry: CommitEntry) -> str | None:
    """Say why an entry is not decided: a crash-tolerant member's word is enough, and carries no certificate."""
    return None if entry.proof == CommitProof() else "solo proves nothing"


_SPEC = EngineSpec(
    name="solo",
    version="1",
    fault_model=FaultModel.CRASH,
    messages=Durable,
    records=SoloRecord,
    options_type=SoloOptions,
    build=build,
    check=check,
    claims=claims,
    references=references,
    lane_key=lane_key,
    commit_problem=commit_problem,
    signing={},
    window=window,
    answers_reads=True,
)


def solo_spec() -> EngineSpec:
    """Return how to host the solo engine."""
    return _SPEC


@hookimpl
def bftkit_engine() -> EngineSpec:
    """Return how to host this engine: the door through which bftkit finds it."""
    return _SPEC
