"""What a simulated group replicates, and what its clients ask of it: bftkit's counter, or a program's own."""

from collections.abc import Callable
from random import Random

import msgspec

from bftkit.batteries.counter import Counter
from bftkit.core.epoch import Limits
from bftkit.replica.state_machine import StateMachine

LIMITS = Limits(max_command_bytes=128, max_batch_bytes=4_096, max_sessions=64)
"""Small bounds, so that batches fill and sessions count."""

Commands = Callable[[Random], bytes]
"""Makes a command for the state machine, from a source of randomness."""

Queries = Callable[[Random], bytes]
"""Makes a question for the state machine's `query`, from a source of randomness."""


def small_numbers(random: Random) -> bytes:
    """Make a command for the counter."""
    return b"%d" % random.randrange(-99, 100)


class Workload(msgspec.Struct, frozen=True):
    """What is replicated, and what clients ask of it."""

    make_machine: Callable[[], StateMachine] = Counter
    """Makes a new state machine, for each life of each member."""
    make_command: Commands = small_numbers
    limits: Limits = LIMITS
    """Their checkpoint interval is the profile's."""
    make_query: Queries | None = None
    """Makes what readers ask, and every question must have an answer.

    Without it a machine that answers queries is asked with nothing, and may raise, if it always does in the same state.
    """
