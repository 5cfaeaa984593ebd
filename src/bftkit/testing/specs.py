"""Engines by name or by themselves, loaded once for a whole campaign."""

from functools import lru_cache
from typing import Any

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineSpec
from bftkit.errors import ConfigurationError
from bftkit.plugins import load_engine
from bftkit.replica.settings import ReplicaSettings

MOST_MEMBERS = 31
"""Members of the largest group that is simulated."""

SHORT_TIMEOUTS_MS = {"view_timeout_ms": 400, "election_timeout_ms": 200, "heartbeat_ms": 20}
"""What simulated engines wait for by default, where they have such options: little beside the faults."""

Settings = tuple[tuple[str, str], ...]
"""Names and values of an engine's options, as text, where they are not to have their defaults."""

_LISTED: Settings = (("leaders", "round_robin"),)
"""What an engine is told that would choose leaders by itself."""


def spec_of(engine: str | EngineSpec) -> EngineSpec:
    """Return the engine that is meant; EngineError where none of this name is installed."""
    return engine if isinstance(engine, EngineSpec) else _loaded(engine)


def named(engine: str | EngineSpec) -> tuple[str, EngineSpec | None]:
    """Return an engine's name, and itself where it was not given by name."""
    return (engine.name, engine) if isinstance(engine, EngineSpec) else (engine, None)


@lru_cache
def _loaded(engine: str) -> EngineSpec:
    return load_engine(engine)


def forget_engines() -> None:
    """Load engines anew from now on: they were replaced."""
    _loaded.cache_clear()


def usual_options(spec: EngineSpec, settings: Settings = ()) -> Any:
    """Return the options of a simulated engine, but for those that are set; ConfigurationError where it has no such."""
    fields = spec.options_type.__struct_fields__
    short = tuple((name, str(ms)) for name, ms in SHORT_TIMEOUTS_MS.items() if name in fields)
    return options_of(spec, (*short, *settings))


def scripted_options(spec: EngineSpec, settings: Settings = ()) -> Any:
    """Return the options of an engine whose leaders somebody lists: it chooses none by itself, unless it is told to."""
    fields = spec.options_type.__struct_fields__
    return options_of(spec, (*(each for each in _LISTED if each[0] in fields), *settings))


def options_of(spec: EngineSpec, settings: Settings) -> Any:
    """Return an engine's options with some of them set; ConfigurationError where it has no such."""
    try:
        return msgspec.convert(dict(settings), spec.options_type, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{spec.name} does not take these options: {error}") from error


def expect_possible(spec: EngineSpec, members: int) -> None:
    """Raise ConfigurationError where no group of this size is simulated, or the engine says so beforehand."""
    if not spec.min_members <= members <= MOST_MEMBERS:
        raise ConfigurationError(
            f"a simulated group of {spec.name} has {spec.min_members} to {MOST_MEMBERS} replicas, not {members}"
        )


def expect_accepted(settings: ReplicaSettings) -> None:
    """Raise ConfigurationError where the engine will not be built for a group: ValueError is how it may refuse."""
    spec, members = settings.spec, len(settings.membership)
    try:
        spec.build(settings.context, settings.genesis, CheckpointCertificate(EMPTY_CHECKPOINT, None), ())
    except ValueError as error:
        raise ConfigurationError(f"{spec.name} refuses a group of {members}: {error}") from error
