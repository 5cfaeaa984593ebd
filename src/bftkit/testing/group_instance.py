"""One engine of an `EngineGroup`, and what a replica and its disk would hold for it."""

from collections.abc import Callable, Sequence
from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext, EngineSpec
from bftkit.core.ids import ZERO_DIGEST, ReplicaIndex
from bftkit.core.log import CommitEntry
from bftkit.replica.safety import SigningGuard

START = CheckpointCertificate(EMPTY_CHECKPOINT, None)
"""The stable checkpoint that every engine starts from."""

NEVER = -1
"""In place of a number of outputs: do not crash."""

Rewrite = Callable[[int, Any], Any]
"""What a liar says to an instance in place of a message, signed by `EngineGroup.sign`; None for nothing."""


class Instance:
    """One engine, its context, and what it would find on its disk."""

    __slots__ = (
        "alive",
        "asked",
        "bodies",
        "context",
        "crash_after",
        "decided",
        "engine",
        "guard",
        "height",
        "honest",
        "identity",
        "life",
        "log",
        "log_root",
        "name",
        "number",
        "records",
        "rewrite",
        "spec",
        "stable",
        "timers",
    )

    def __init__(
        self, spec: EngineSpec, number: int, identity: ReplicaIndex, context: EngineContext, *, honest: bool
    ) -> None:
        self.spec = spec
        self.number = number
        self.name = f"n{number}"
        """What traces and violations call it."""
        self.identity = identity
        self.context = context
        self.honest = honest
        """Whether its decisions count: it has no twin and tells no lies. It may crash."""
        self.engine: Any = None
        self.alive = True
        self.life = 0
        """How often it has crashed."""
        self.crash_after = NEVER
        """How many more outputs are performed before it crashes."""
        self.timers: dict[str, int] = {}
        self.asked: dict[bytes, BatchRef] = {}
        """Bodies that the engine waits for."""
        self.rewrite: Rewrite | None = None
        self.forget()

    def forget(self) -> None:
        """Begin with an empty disk."""
        self.records: Sequence[Any] = ()
        self.stable = START
        self.bodies: dict[bytes, BatchRef] = {}
        self.log: list[CommitEntry] = []
        self.decided: dict[bytes, int] = {}
        """Position of each batch in the log."""
        self.height = 0
        self.log_root = ZERO_DIGEST
        self.guard = SigningGuard(self.spec.signing)

    @property
    def position(self) -> int:
        """Return the last position in its log."""
        return len(self.log)

    def holds(self, refs: Sequence[BatchRef]) -> bool:
        """Say whether all these bodies are durable here."""
        bodies = self.bodies
        return all(bodies.get(ref.digest) == ref for ref in refs)
