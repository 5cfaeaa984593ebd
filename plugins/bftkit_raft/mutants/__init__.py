"""Raft, broken on purpose; see `bftkit.testing.mutants`."""

from bftkit_raft.mutants import elections, reads, replication, restarts

MUTANTS = (
    *elections.MUTANTS,
    *replication.MUTANTS,
    *restarts.MUTANTS,
    *reads.MUTANTS,
)
"""All of them."""
