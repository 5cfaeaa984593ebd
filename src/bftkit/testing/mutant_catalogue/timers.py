"""Timers that are forgotten: the library, broken on purpose.

What waits for them goes on when somebody happens to call.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from bftkit.replica.sync_timers import PROGRESS_TIMER, SYNC_TIMER
from bftkit.testing.mutant_catalogue.schedules import AWAY, BUSY, SPLIT
from bftkit.testing.mutants import Mutant, Schedules, doing_nothing


def _without(timer: str) -> Callable[[Any], Any]:
    """Make an `arm` that forgets one timer."""

    def make(original: Any) -> Any:
        return lambda replica, name, delay_ms: None if name == timer else original(replica, name, delay_ms)

    return make


def _once(original: Any) -> Any:
    def on_fetch_timeout(replica: Any) -> None:
        replica.asked.is_fetching = False
        replica.emit(*replica.payloads.ask_again(replica.commits.executed))

    return on_fetch_timeout


MUTANTS = (
    Mutant(
        "timers: missing bodies are asked for twice",
        "The timer that asks for missing bodies again is not set again.",
        "bftkit.replica.dissemination:on_fetch_timeout",
        _once,
        (Schedules(profile=SPLIT), Schedules(profile="network")),
    ),
    Mutant(
        "timers: nobody asks a second source",
        "The timer that looks whether a state or decisions have come is never set.",
        "bftkit.replica.sync_timers:arm",
        _without(SYNC_TIMER),
        (Schedules(profile=AWAY), Schedules(profile="crash")),
    ),
    Mutant(
        "timers: checkpoint votes are said once",
        "The timer that repeats what is not stable is never set.",
        "bftkit.replica.sync_timers:arm",
        _without(PROGRESS_TIMER),
        (Schedules(profile=BUSY),),
    ),
    Mutant(
        "timers: batches are made when somebody comes",
        "Requests wait for others until the batch is full, though nothing of this member is on its way.",
        "bftkit.replica.dissemination:close_batches",
        doing_nothing,
        (Schedules(profile=msgspec.structs.replace(BUSY, clients=1)),),
    ),
)
"""All of them."""
