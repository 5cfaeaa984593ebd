"""The smallest state machine worth replicating: a sum."""

import re
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate

from bftkit.core.batch import CommittedBatch
from bftkit.errors import ApplicationError, Rejected

LONGEST_COMMAND = 20
"""Characters of a command at most: what a signed 64-bit number takes."""

MALFORMED = b"error: not a whole number of at most 20 characters"
"""The result of a command that is no number; it leaves the sum as it is."""

_NUMBER = re.compile(rb"[+-]?[0-9]+")
_SUM = re.compile(rb"-?[0-9]{1,60}")
_BATCH_OF_NUMBERS = re.compile(rb"[+-]?[0-9]+(?:,[+-]?[0-9]+)*")


class Counter:
    """Add up whole numbers.

    A command is a decimal number in ASCII, with an optional sign, of at most 20 characters. Its result is the sum after
    it, in decimal, or `MALFORMED`. A query is answered with the sum, whatever it says.
    """

    def __init__(self) -> None:
        self.total = 0
        """The sum of all commands."""

    def apply(self, batch: CommittedBatch) -> list[bytes]:
        """Add every command of the batch; return the sum after each."""
        commands = batch.commands
        # One match over the joined commands, one conversion and one split cost a third of a check per command. A comma
        # inside a command would show in the number of pieces.
        joined = b",".join(commands)
        if not _BATCH_OF_NUMBERS.fullmatch(joined) or max(map(len, commands)) > LONGEST_COMMAND:
            return [self._add(command) for command in commands]
        numbers = list(map(int, joined.split(b",")))
        if len(numbers) != len(commands):
            return [self._add(command) for command in commands]
        totals = list(accumulate(numbers, initial=self.total))
        self.total = totals.pop()
        # The sums after each command are all but the first, which is the sum before the batch.
        return ",".join(map(str, [*totals[1:], self.total])).encode().split(b",")

    def snapshot(self) -> bytes:
        """Return the sum in decimal."""
        return b"%d" % self.total

    def restore(self, data: bytes) -> None:
        """Take over the sum of a snapshot.

        Raises:
            ApplicationError: it is no snapshot of a counter.
        """
        if not _SUM.fullmatch(data):
            raise ApplicationError("this is not the snapshot of a counter")
        self.total = int(data)

    def state_root(self) -> bytes:
        """Return the hash of the sum, 32 bytes."""
        return sha256(b"bftkit/counter\x00" + self.snapshot()).digest()

    def query(self, request: bytes) -> bytes:
        """Return the sum in decimal."""
        return self.snapshot()

    def check(self, command: bytes) -> None:
        """Refuse what is no number before it is ordered.

        Raises:
            Rejected: the command is malformed.
        """
        if not _is_number(command):
            raise Rejected("a command of the counter is a whole number of at most 20 characters")

    def _add(self, command: bytes) -> bytes:
        if not _is_number(command):
            return MALFORMED
        self.total += int(command)
        return b"%d" % self.total

    @staticmethod
    def command_from_text(words: Sequence[str]) -> bytes:
        """Return the command that a person typed: one number.

        Raises:
            Rejected: it is not one number.
        """
        command = " ".join(words).encode()
        if not _is_number(command):
            raise Rejected('say a whole number, such as "5" or "-3"')
        return command

    @staticmethod
    def query_from_text(words: Sequence[str]) -> bytes:
        """Return the query for the sum, whatever the words."""
        return " ".join(words).encode()

    @staticmethod
    def result_to_text(result: bytes) -> str:
        """Return a result as people read it."""
        return result.decode("ascii", "replace")


def _is_number(command: bytes) -> bool:
    return len(command) <= LONGEST_COMMAND and _NUMBER.fullmatch(command) is not None
