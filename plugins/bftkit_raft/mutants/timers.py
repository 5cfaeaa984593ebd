"""Timers that are forgotten, Raft broken on purpose: what waits for them goes on when somebody happens to call."""

import msgspec

from bftkit.testing.mutants import Mutant, Schedules, never_setting
from bftkit_raft.mutants.schedules import TERMS
from bftkit_raft.timers import ELECTION, HEARTBEAT, READ, RELAY

MUTANTS = (
    Mutant(
        "raft: nobody waits for a leader",
        "A member that hears no leader never stands (Raft §3.4).",
        "bftkit_raft.timers:start",
        never_setting(ELECTION),
        (Schedules("raft", 3, TERMS),),
    ),
    Mutant(
        "raft: no heartbeats",
        "A leader speaks only when it has something to say (Raft §3.4).",
        "bftkit_raft.timers:start",
        never_setting(HEARTBEAT),
        (Schedules("raft", 3, TERMS),),
    ),
    Mutant(
        "raft: no time to offer",
        "What the leader has not appended is never offered to it.",
        "bftkit_raft.timers:start",
        never_setting(RELAY),
        (Schedules("raft", 3, TERMS),),
    ),
    Mutant(
        "raft: a question is put once",
        "A follower whose question about reads was lost never puts it again.",
        "bftkit_raft.timers:start",
        never_setting(READ),
        (Schedules("raft", 3, msgspec.structs.replace(TERMS, reads=1.0)),),
    ),
)
"""All of them."""
