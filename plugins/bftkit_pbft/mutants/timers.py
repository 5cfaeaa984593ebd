"""Timers that are forgotten, PBFT broken on purpose: what waits for them goes on when somebody happens to call."""

from bftkit.testing.mutants import Mutant, Schedules, never_setting
from bftkit_pbft.mutants.schedules import VIEWS
from bftkit_pbft.watching import RELAY, RETRANSMIT, VIEW_CHANGE, WATCH

MUTANTS = (
    Mutant(
        "pbft: the primary has all the time",
        "Nobody notices a primary that serves nobody (PBFT §4.4).",
        "bftkit_pbft.watching:set_timer",
        never_setting(WATCH),
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: no time to offer",
        "What the primary has not proposed is never offered to him.",
        "bftkit_pbft.watching:set_timer",
        never_setting(RELAY),
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: no time to repeat",
        "What is not settled is never said again.",
        "bftkit_pbft.watching:set_timer",
        never_setting(RETRANSMIT),
        (Schedules(profile=VIEWS),),
    ),
    Mutant(
        "pbft: the next primary has all the time",
        "A NEW-VIEW that never comes is waited for (PBFT §4.5.2).",
        "bftkit_pbft.watching:set_timer",
        never_setting(VIEW_CHANGE),
        (
            Schedules(profile=VIEWS),
            Schedules(profile="byzantine"),
        ),
    ),
)
"""All of them."""
