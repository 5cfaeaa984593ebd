"""A state machine that executes the one order beside all members, in one life: the state is a function of the log."""

from bisect import bisect_right
from hashlib import sha256

from bftkit.core.batch import CommittedBatch
from bftkit.replica.execution import state_root_of
from bftkit.replica.state_machine import StateMachine


class MachineBeside:
    """Gives the results, the state roots and the answers that members must have, at any height up to the foremost."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self._heights = [0]
        """Those with commands, ascending, behind that of the beginning."""
        self._roots: list[bytes] = []
        """The state root after each of them."""

    @property
    def height(self) -> int:
        """Return the height of the last batch that it has executed."""
        return self._heights[-1]

    def execute(self, batch: CommittedBatch) -> list[bytes]:
        """Execute the commands of the next height that has any, and return their results."""
        self._note_root()
        results = self._machine.apply(batch)
        self._heights.append(batch.height)
        return results

    def root_at(self, height: int) -> bytes:
        """Return the state root after a height that a member has reached."""
        self._note_root()
        return self._roots[bisect_right(self._heights, height) - 1]

    def _note_root(self) -> None:
        """Digest the present state, when it is about to change or somebody asks."""
        if len(self._roots) < len(self._heights):
            self._roots.append(state_root_of(self._machine, self.height))


def answer_to(request: bytes, root: bytes) -> bytes:
    """Return the only right answer to a simulated read of the state with this root."""
    return sha256(root + request).digest()
