"""A state machine that executes the one order beside all members, in one life: the state is a function of the log."""

from bisect import bisect_right
from collections.abc import Callable
from hashlib import sha256

from bftkit.core.batch import CommittedBatch
from bftkit.replica.execution import state_root_of
from bftkit.replica.state_machine import StateMachine

TAG_BYTES = 8
"""Length of what stands in front of every command and every question, so that no two are equal."""


class MachineBeside:
    """Gives the results, the state roots and the answers that members must have, at any height up to the foremost."""

    def __init__(
        self,
        machine: StateMachine,
        make_machine: Callable[[], StateMachine] | None = None,
        *,
        must_answer: bool = False,
    ) -> None:
        """Begin with a new machine; `make_machine` makes others, which answer queries at earlier heights."""
        self._machine = machine
        self._make_machine = make_machine if hasattr(machine, "query") else None
        self._must_answer = must_answer
        self._states: list[bytes] = []
        """The state after each of the heights, where there are queries to answer."""
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

    def expected_answer(self, request: bytes, height: int) -> tuple[bytes, bool]:
        """Return the right answer to a read after a height, and whether that is all of it or only how it begins."""
        answer = answer_to(request, self.root_at(height))
        if self._make_machine is None:
            return answer, not hasattr(self._machine, "query")
        restored = self._make_machine()
        restored.restore(self._states[bisect_right(self._heights, height) - 1])
        return answer + own_answer(restored, request[TAG_BYTES:], must_answer=self._must_answer), True

    def _note_root(self) -> None:
        """Digest the present state, when it is about to change or somebody asks."""
        if len(self._roots) < len(self._heights):
            self._roots.append(state_root_of(self._machine, self.height))
            if self._make_machine is not None:
                self._states.append(self._machine.snapshot())


def own_answer(machine: StateMachine, question: bytes, *, must_answer: bool) -> bytes:
    """Return a state machine's own answer; nothing where it takes no queries, its failure where it need not answer."""
    if not must_answer and not hasattr(machine, "query"):
        return b""
    try:
        answer: bytes = machine.query(question)  # type: ignore[attr-defined]  # users' machines may have it
    except Exception as error:
        if must_answer:
            raise
        return b"it raised " + type(error).__name__.encode()
    return answer


def answer_to(request: bytes, root: bytes) -> bytes:
    """Return the only right answer to a simulated read of the state with this root."""
    return sha256(root + request).digest()
