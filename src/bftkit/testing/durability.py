"""Whether anything leaves a member before what it rests on is durable: a second opinion beside the gate's."""

from typing import Any

from bftkit.core.outputs import Broadcast, CancelTimer, Send, SetTimer
from bftkit.core.statement import SignedMessage
from bftkit.replica.outputs import Append, Forget, Loopback
from bftkit.testing.checkers import Violation

_INVISIBLE = (SetTimer, CancelTimer, Forget)


class DurabilityAudit:
    """Writes down, independently of the gate, what must be durable before each output is performed."""

    __slots__ = ("_appended", "_barrier", "_member", "_owed")

    def __init__(self, member: int, durable_index: int) -> None:
        self._member = member
        self._appended = self._barrier = durable_index
        self._owed: dict[int, int] = {}

    def offered(self, outputs: list[Any], durable_index: int) -> None:
        """Take what the replica wants done, in order, before the gate sees it."""
        for output in outputs:
            kind = type(output)
            if kind is Append:
                self._appended += 1
                if output.barrier:
                    self._barrier = self._appended
            elif kind is Loopback:
                self._owed[id(output)] = self._appended
            elif kind in _INVISIBLE:
                continue
            elif (kind is Send or kind is Broadcast) and output.early:
                if isinstance(output.message, SignedMessage):
                    raise Violation(f"n{self._member} lets a signed message overtake the disk: {output.message}")
            elif self._barrier > durable_index:
                self._owed[id(output)] = self._barrier

    def performing(self, output: Any, durable_index: int) -> None:
        """Look at an output that is about to be performed."""
        owed = self._owed.pop(id(output), 0)
        if owed > durable_index:
            raise Violation(f"n{self._member} performs {type(output).__name__} before record {owed} is durable")
