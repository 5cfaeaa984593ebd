"""What users replicate."""

from typing import Protocol, runtime_checkable

from bftkit.core.batch import CommittedBatch


@runtime_checkable
class StateMachine(Protocol):
    """Any object with these methods is replicated.

    `apply` must be deterministic: no clock, no randomness, no iteration over sets. Further methods are
    found by their names: `state_root() -> bytes` (32 bytes, a cheap incremental digest of the state; without
    it a digest of the whole snapshot is taken at each checkpoint), `check(command)` (raises
    `bftkit.errors.Rejected` to refuse a command before it is ordered), `query(request) -> bytes` (reads).
    `query` changes nothing, and its answer depends on the state and the request alone: replicas are compared by it.

    Of the others only one runs at a time. `check` runs beside `apply`, on another thread, on whichever replica the
    client has asked, before the order is known: it must look at the command alone, and read no state that changes.
    What depends on the state is for `apply` to decide, and to answer with a result that says so.
    """

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        """Execute the commands of one batch in order; return one result for each."""
        ...

    def snapshot(self) -> bytes:
        """Encode the whole state."""
        ...

    def restore(self, data: bytes) -> None:
        """Replace the whole state by an encoded one."""
        ...
