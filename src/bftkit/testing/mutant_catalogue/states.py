"""Fetching a state and keeping states in memory, broken on purpose."""

from typing import Any

import msgspec

from bftkit.replica.dissemination import BEYOND_QUOTA
from bftkit.replica.messages import SnapshotAvailable, SnapshotChunk
from bftkit.replica.state_transfer import MAX_SNAPSHOT_BYTES
from bftkit.testing.mutant_catalogue.schedules import AWAY, BUSY
from bftkit.testing.mutants import Check, Mutant, Schedules, doing_nothing
from bftkit.testing.simulation import run_schedule

FETCHING = msgspec.structs.replace(AWAY, duration_ms=500, crashes=1, down_ms=(1_500, 100), clients=6, envelopes=30)
"""One member that is away until everything heals, and needs a state then."""


def _keeping_parts(to: int, message: Any) -> list[tuple[int, Any]]:
    """Offer states that are shorter than those of others, and send no part of any."""
    match message:
        case SnapshotAvailable():
            return [(to, msgspec.structs.replace(message, size=1))]
        case SnapshotChunk():
            return []
    return [(to, message)]


def _dripping(to: int, message: Any) -> list[tuple[int, Any]]:
    """Send one byte in place of each part."""
    dripped = isinstance(message, SnapshotChunk)
    return [(to, msgspec.structs.replace(message, data=message.data[:1]) if dripped else message)]


def _look_at_dripping() -> str | None:
    """A member that sends one byte in place of a part is passed over at once."""
    outcome = run_schedule(0, profile=FETCHING, liars={0: _dripping})
    if outcome.violations:
        return outcome.violations[0]
    # All other rejections of this schedule are for one reason.
    rejected = outcome.counters.get("rejected", 0) - outcome.counters.get(f"refused: {BEYOND_QUOTA}", 0)
    return None if rejected else "a state was taken byte by byte"


MUTANTS = (
    Mutant(
        "states: parts may be of any length",
        "A source that sends one byte in place of a part is asked for the next one.",
        "bftkit.replica.state_transfer:_is_whole",
        lambda original: lambda replica, download, part: bool(part.data),
        (Check(_look_at_dripping),),
    ),
    Mutant(
        "states: a download is never given up",
        "Whoever fetches a state waits for its source, whatever others offer.",
        "bftkit.replica.state_transfer:_goes_on",
        lambda original: lambda replica, download: True,
        (Schedules(profile=FETCHING, liar="keeping parts", speak=_keeping_parts),),
    ),
    Mutant(
        "states: failures are forgotten",
        "A member whose download was given up is asked again before others have had their turn.",
        "bftkit.replica.state_transfer:_note_failure",
        doing_nothing,
        (Schedules(profile=FETCHING, liar="keeping parts", speak=_keeping_parts),),
    ),
    Mutant(
        "states: every size is believed",
        "A state is fetched however long it is said to be, and whatever others say.",
        "bftkit.replica.state_transfer:_largest_believed",
        lambda original: lambda replica: MAX_SNAPSHOT_BYTES,
        (Schedules(profile=FETCHING, liar="enormous states"),),
    ),
    Mutant(
        "states: what is kept is never let go",
        "States stay in memory though a newer one is durable.",
        "bftkit.runtime.application:ApplicationStage._forget_states",
        doing_nothing,
        (Schedules(profile=BUSY),),
    ),
)
"""All of them."""
