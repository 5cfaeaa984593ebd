"""A bridge to Hypothesis: property tests whose examples are schedules."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.errors import ConfigurationError
from bftkit.replica.state_machine import StateMachine
from bftkit.testing.profile import PROFILES
from bftkit.testing.simulation import Outcome, simulate

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

MOST_SEED = 2**32 - 1
"""Highest seed that is drawn."""

MOST_COMMANDS = 16
"""Different commands of one schedule, when nothing else is said."""


class OneOf(msgspec.Struct, frozen=True):
    """Makes commands by taking one of several."""

    commands: tuple[bytes, ...]

    def __call__(self, random: Random) -> bytes:
        """Take one of them."""
        return random.choice(self.commands)


class Schedule(msgspec.Struct, frozen=True):
    """An example of a property test: a seed, what goes wrong, and the commands that clients choose from."""

    seed: int
    profile: str
    commands: tuple[bytes, ...]

    def run(self, make_machine: Callable[[], StateMachine], **how: Any) -> Outcome:
        """Run a state machine through this schedule; `how` goes to `simulate`."""
        return simulate(make_machine, seed=self.seed, faults=self.profile, commands=OneOf(self.commands), **how)


def schedules(
    commands: "SearchStrategy[bytes] | None" = None,
    *,
    profiles: Sequence[str] = PROFILES,
    most_commands: int = MOST_COMMANDS,
) -> "SearchStrategy[Schedule]":
    """Return a strategy of schedules; `commands` draws single commands, small numbers by default.

    Examples become simpler towards the first of `profiles`, few and simple commands, and a low seed.
    ConfigurationError where Hypothesis is not installed, or there is no such profile.
    """
    try:
        from hypothesis import strategies
    except ImportError as error:
        raise ConfigurationError(
            "schedules() draws with hypothesis, which is not installed: add it to what your tests need"
        ) from error
    unknown = [name for name in profiles if name not in PROFILES]
    if unknown or not profiles:
        raise ConfigurationError(f"there is no profile {unknown}: say some of {', '.join(PROFILES)}")
    single = commands if commands is not None else strategies.integers(-99, 99).map(b"%d".__mod__)
    return strategies.builds(
        Schedule,
        seed=strategies.integers(0, MOST_SEED),
        profile=strategies.sampled_from(list(profiles)),
        commands=strategies.lists(single, min_size=1, max_size=most_commands).map(tuple),
    )
