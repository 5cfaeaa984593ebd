"""A state machine under watch, and commands that no two clients have in common.

Checkers must tell commands apart, whatever a user's state machine takes; so every command of a simulated client
begins with a tag of its own, which the machine never sees.
"""

import msgspec

from bftkit.core.batch import CommittedBatch
from bftkit.core.ids import ReplicaIndex
from bftkit.replica.execution import state_root_of
from bftkit.replica.state_machine import StateMachine
from bftkit.testing.checkers import Checkers
from bftkit.testing.machine_beside import TAG_BYTES, answer_to, own_answer


def tagged(number: int, command: bytes) -> bytes:
    """Return a command, or a question, with its tag."""
    return number.to_bytes(TAG_BYTES, "big") + command


def untagged(batch: CommittedBatch) -> CommittedBatch:
    """Return a batch as the state machine is to see it."""
    return msgspec.structs.replace(batch, commands=[command[TAG_BYTES:] for command in batch.commands])


class WatchedMachine:
    """A state machine that tells the checkers what it executes."""

    def __init__(
        self, machine: StateMachine, checkers: Checkers | None, member: ReplicaIndex, *, must_answer: bool = False
    ) -> None:
        self.machine = machine
        """The machine itself."""
        self._must_answer = must_answer
        self._checkers = checkers
        self._member = member
        self._height = 0
        self.snapshot = machine.snapshot
        self.restore = machine.restore
        if hasattr(machine, "state_root"):
            self.state_root = machine.state_root
        if hasattr(machine, "check"):
            self.check = lambda command: machine.check(command[TAG_BYTES:])

    def query(self, request: bytes) -> bytes:
        """Answer with what tells every state, and every question, from all others, and as the machine does."""
        answer = answer_to(request, state_root_of(self.machine, self._height))
        return answer + own_answer(self.machine, request[TAG_BYTES:], must_answer=self._must_answer)

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        """Execute a batch and report it."""
        self._height = batch.height
        bare = untagged(batch)
        results = self.machine.apply(bare)
        if self._checkers is not None:
            self._checkers.applied(self._member, batch, bare, results)
        return results
