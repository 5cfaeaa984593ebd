"""The library, broken on purpose; see `bftkit.testing.mutants`."""

from bftkit.testing.mutant_catalogue import agreement, reads, replica, sessions, states, storage, wire

MUTANTS = (
    *agreement.MUTANTS,
    *reads.MUTANTS,
    *replica.MUTANTS,
    *sessions.MUTANTS,
    *states.MUTANTS,
    *storage.MUTANTS,
    *wire.MUTANTS,
)
"""All of the library's."""
