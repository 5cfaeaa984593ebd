"""What an engine promises beyond what all engines do, checked in simulations.

An engine's package may list a class under its name in the entry-point group `bftkit.invariants`. It is made once for
a run, from the number of members, and is told what honest members do; nothing but a simulation imports it.
"""

from collections.abc import Container
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.ids import ReplicaIndex
from bftkit.core.log import CommitEntry
from bftkit.core.statement import Statement
from bftkit.errors import EngineError

ENTRY_POINT_GROUP = "bftkit.invariants"
"""Entry-point group that lists them by engine."""


class EngineInvariants(Protocol):
    """Each method returns what is wrong, or None."""

    def signs(self, member: ReplicaIndex, statement: Statement) -> str | None:
        """Look at a statement that an honest member is about to sign."""
        ...

    def decided(self, position: int, certificate: QuorumCertificate) -> str | None:
        """Look at the proof of a decision, when an honest member first takes it."""
        ...

    def stepped(self, member: ReplicaIndex, engine: Any) -> str | None:
        """Look at the engine of an honest member after a step, now and then."""
        ...

    def restarted(self, member: ReplicaIndex) -> None:
        """Note that a member has lost what was not durable; see `RemembersRecords` for what was."""
        ...


@runtime_checkable
class RemembersRecords(EngineInvariants, Protocol):
    """What `restarted` is measured by, for an engine that says which of its variables a restart must not lower."""

    def recorded(self, member: ReplicaIndex, engine: Any) -> None:
        """Note that all that an honest member's engine has recorded is on the disk."""
        ...


@runtime_checkable
class NamesLandmarks(EngineInvariants, Protocol):
    """When a simulation looks at an engine beside the steps at which it always does."""

    def landmarks(self, engine: Any) -> Any:
        """Return, at little cost, what differs whenever something happened that `stepped` must not miss.

        It is compared after each step of each honest member.
        """
        ...


@runtime_checkable
class KnowsItsTimers(EngineInvariants, Protocol):
    """Which timer an engine must have running for each kind of work that it waits with."""

    def forgotten(self, engine: Any, running: Container[str]) -> str | None:
        """Say which work of an engine none of its running timers will bring on, or None.

        A message from outside may never come. A timer of another kind excuses nothing: a leader's heartbeat brings on
        what followers lack, and no read of a follower.
        """
        ...


@runtime_checkable
class JudgesProofs(EngineInvariants, Protocol):
    """Whether what a member takes for decided is so by the rules of the protocol, judged without the engine's code."""

    def proved(self, member: ReplicaIndex, engine: Any, entry: CommitEntry) -> str | None:
        """Look at a decided position with its proof, when an honest member has taken it from whomever."""
        ...


@lru_cache
def _classes() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            found[point.name] = point.load()
        except Exception as error:
            raise EngineError(f"the invariants of engine {point.name!r} cannot be loaded: {error}") from error
    return found


def load_invariants(engine: str, members: int) -> EngineInvariants | None:
    """Return a new watch over an engine's own promises, or None where it lists none."""
    made = _classes().get(engine)
    watch: EngineInvariants | None = made(members) if made is not None else None
    return watch
