"""What an `EngineGroup` is made with: settings, members, and the statement that its epoch starts from."""

from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.checkpoint import EMPTY_CHECKPOINT
from bftkit.core.engine import EngineSpec
from bftkit.core.epoch import EpochConfig, Genesis, Limits
from bftkit.core.ids import canonical
from bftkit.core.leaders import LeaderSchedule
from bftkit.core.membership import Member, Membership


class GroupSettings(msgspec.Struct, frozen=True):
    """What can be set about a group before it is made."""

    options: Any = None
    """Instance of the engine's `options_type`; None for its defaults."""
    interval: int = 4
    """Positions between checkpoints."""
    leaders: LeaderSchedule | None = None
    """Who leads which view; None for round robin."""
    exchange_ms: int | None = 400
    """How often an instance compares its log with the longest one that it can reach; None for never."""
    begin_ms: int = 0
    """What the clock shows when the group starts."""
    invariants: bool = False
    """Whether what the engine's package promises besides is checked too, see `bftkit.testing.invariants`."""
    thorough: bool = False
    """Whether each message and record is encoded and decoded on its way, and asked for its references and its lane."""
    traced: bool = False
    """Whether `EngineGroup.trace` is written."""


def membership_of(spec: EngineSpec, members: int) -> Membership:
    """Return so many members, called n00, n01, ..."""
    names = [f"n{index:02}" for index in range(members)]
    return Membership(tuple(Member(name, sha256(name.encode()).digest()) for name in names), spec.fault_model)


def genesis_of(spec: EngineSpec, membership: Membership, options: Any, interval: int) -> Genesis:
    """Return the start of an epoch with these members and options."""
    limits = Limits(checkpoint_interval=interval)
    members, encoded = membership.members, canonical(options)
    config = EpochConfig("group", 0, 0, spec.name, spec.version, spec.fault_model, encoded, members, limits)
    return Genesis(config, EMPTY_CHECKPOINT)
