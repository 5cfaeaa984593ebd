"""Timers that are forgotten, HotStuff broken on purpose: what waits for them goes on when somebody happens to call."""

from bftkit.testing.mutants import Mutant, never_setting
from bftkit_hotstuff.mutants.schedules import rough
from bftkit_hotstuff.watching import RELAY, RETRANSMIT, ROUND

MUTANTS = (
    Mutant(
        "hotstuff: a round has all the time",
        "A round whose leader says nothing never ends (Jolteon Fig. 2, Timeout).",
        "bftkit_hotstuff.watching:set_timer",
        never_setting(ROUND),
        (rough(),),
    ),
    Mutant(
        "hotstuff: no time to offer",
        "What no leader has proposed is never offered to one.",
        "bftkit_hotstuff.watching:set_timer",
        never_setting(RELAY),
        (rough(),),
    ),
    Mutant(
        "hotstuff: no time to repeat",
        "What was lost is never said again.",
        "bftkit_hotstuff.watching:set_timer",
        never_setting(RETRANSMIT),
        (rough(),),
    ),
)
"""All of them."""
