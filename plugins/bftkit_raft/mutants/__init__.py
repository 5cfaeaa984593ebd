"""Raft, broken on purpose; see `bftkit.testing.mutants`."""

from bftkit_raft.mutants import elections, reads, replication, restarts, timers

MUTANTS = (
    *elections.MUTANTS,
    *replication.MUTANTS,
    *restarts.MUTANTS,
    *reads.MUTANTS,
    *timers.MUTANTS,
)
"""All of them."""
