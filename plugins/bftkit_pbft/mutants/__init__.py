"""PBFT, broken on purpose; see `bftkit.testing.mutants`."""

from bftkit_pbft.mutants import checks, new_views, normal_case, restarts, timers, view_changes

MUTANTS = (
    *normal_case.MUTANTS,
    *view_changes.MUTANTS,
    *new_views.MUTANTS,
    *restarts.MUTANTS,
    *checks.MUTANTS,
    *timers.MUTANTS,
)
"""All of them."""
