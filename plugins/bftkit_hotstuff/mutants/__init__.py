"""HotStuff, broken on purpose; see `bftkit.testing.mutants`."""

from bftkit_hotstuff.mutants import certificates, chains, restarts, rounds, timers, undecided, votes

MUTANTS = (
    *votes.MUTANTS,
    *chains.MUTANTS,
    *rounds.MUTANTS,
    *certificates.MUTANTS,
    *restarts.MUTANTS,
    *undecided.MUTANTS,
    *timers.MUTANTS,
)
"""All of them."""
