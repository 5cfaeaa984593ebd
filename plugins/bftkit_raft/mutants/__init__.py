"""Raft, broken on purpose; see `bftkit.testing.mutants`."""

MUTANTS = ()
"""All of them."""
