"""The durability gate: holds back what must not be seen before the log is durable.

Both shells, the real one and the simulator, put a replica's outputs through it. Appends take place at
once; whatever comes after a barrier waits until the log is durable up to that barrier; an early output
passes; a loopback waits for everything that was appended before it.
"""

from collections import deque
from collections.abc import Callable, Iterable

from bftkit.core.outputs import Broadcast, CancelTimer, Send, SetTimer
from bftkit.replica.outputs import Append, Forget, Loopback, ReplicaOutput


class DurabilityGate:
    """Order outputs against the durability of the log.

    `append` takes an `Append` and returns the log index that it got. Indices count up from
    `next_index`; `durable_index` is the highest one known to be on disk.
    """

    __slots__ = ("_append", "_appended", "_barrier", "_durable", "_loopbacks", "_waiting")

    def __init__(self, append: Callable[[Append], int], durable_index: int) -> None:
        self._append = append
        self._appended = durable_index
        self._barrier = durable_index
        self._durable = durable_index
        self._waiting: deque[tuple[int, ReplicaOutput]] = deque()
        self._loopbacks: deque[tuple[int, Loopback]] = deque()

    @property
    def needs_sync(self) -> bool:
        """Say whether something waits for the disk."""
        return bool(self._waiting or self._loopbacks)

    @property
    def has_unsynced(self) -> bool:
        """Say whether anything was appended that is not durable."""
        return self._appended > self._durable

    @property
    def depth(self) -> int:
        """Count the outputs that wait."""
        return len(self._waiting) + len(self._loopbacks)

    def offer(self, outputs: Iterable[ReplicaOutput]) -> list[ReplicaOutput]:
        """Take outputs in order; return those that may be performed now."""
        ready: list[ReplicaOutput] = []
        for output in outputs:
            kind = type(output)
            if kind is Append:
                self._appended = self._append(output)  # type: ignore[arg-type]  # narrowed by the type test
                if output.barrier:  # type: ignore[union-attr]
                    self._barrier = self._appended
            elif kind is Loopback:
                if self._appended <= self._durable:
                    ready.append(output)
                else:
                    self._loopbacks.append((self._appended, output))  # type: ignore[arg-type]
            elif self._barrier <= self._durable or _may_pass(output):
                ready.append(output)
            else:
                self._waiting.append((self._barrier, output))
        return ready

    def durable(self, index: int) -> list[ReplicaOutput]:
        """Note that the log is durable up to an index; return what may be performed now, in order."""
        self._durable = max(self._durable, index)
        ready: list[ReplicaOutput] = []
        while self._waiting and self._waiting[0][0] <= self._durable:
            ready.append(self._waiting.popleft()[1])
        while self._loopbacks and self._loopbacks[0][0] <= self._durable:
            ready.append(self._loopbacks.popleft()[1])
        return ready


def _may_pass(output: ReplicaOutput) -> bool:
    """Say whether an output is invisible outside, or was declared harmless by its author."""
    # A body that is forgotten late would take one with it that was stored again meanwhile, for appends never wait.
    if isinstance(output, SetTimer | CancelTimer | Forget):
        return True
    return isinstance(output, Send | Broadcast) and output.early
