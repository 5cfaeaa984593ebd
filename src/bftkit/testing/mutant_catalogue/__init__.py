"""The library, broken on purpose; see `bftkit.testing.mutants`."""

from bftkit.testing.mutant_catalogue import agreement, reads, replica, sessions, sizes, states, storage, timers, wire

MUTANTS = (
    *agreement.MUTANTS,
    *reads.MUTANTS,
    *replica.MUTANTS,
    *sessions.MUTANTS,
    *sizes.MUTANTS,
    *states.MUTANTS,
    *storage.MUTANTS,
    *timers.MUTANTS,
    *wire.MUTANTS,
)
"""All of the library's."""
