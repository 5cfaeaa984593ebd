"""What a replica knows after a crash, broken on purpose."""

from typing import Any

import msgspec

from bftkit.testing.mutants import Mutant, Schedules, doing_nothing, starting_unarmed
from bftkit_pbft.mutants.schedules import VIEWS


def _without_proofs(original: Any) -> Any:
    return lambda state: msgspec.structs.replace(original(state), prepared=())


MUTANTS = (
    Mutant(
        "pbft: an accepted proposal is forgotten",
        "A restarted replica does not know what it has voted for.",
        "bftkit_pbft.restart:_replay_accepted",
        doing_nothing,
        (Schedules(profile="crash"), Schedules(profile=VIEWS)),
    ),
    Mutant(
        "pbft: a prepared certificate is forgotten",
        "P of a VIEW-CHANGE lacks what prepared before a crash (PBFT §4.4).",
        "bftkit_pbft.restart:_replay_proof",
        doing_nothing,
        (Schedules(profile=msgspec.structs.replace(VIEWS, crashes=6, power_cuts=2)), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: the view is forgotten",
        "A replica that left a view votes in it again after a crash (PBFT §4.4).",
        "bftkit_pbft.restart:_replay_view_left",
        doing_nothing,
        (Schedules(profile=msgspec.structs.replace(VIEWS, crashes=8)), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: no timer after a restart",
        "A restarted replica waits for others without ever giving up.",
        "bftkit_pbft.engine:PbftEngine.start",
        starting_unarmed("watch", "relay", "retransmit", "view-change"),
        (Schedules(profile="crash"), Schedules(profile="all")),
    ),
    Mutant(
        "pbft: the record of a checkpoint lacks P",
        "The record that replaces all earlier ones says nothing of what prepared above the checkpoint.",
        "bftkit_pbft.checkpointing:snapshot",
        _without_proofs,
        (
            Schedules(profile=msgspec.structs.replace(VIEWS, crashes=6, power_cuts=2, checkpoint_interval=4)),
            Schedules(),
        ),
    ),
)
"""All of them."""
