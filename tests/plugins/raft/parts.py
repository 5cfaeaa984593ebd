"""What Raft's tests make by hand: batches, contexts, checkpoints, entries; and groups of its engines."""

from __future__ import annotations

from hashlib import sha256

from bftkit.core.batch import BatchRef
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Genesis, Limits
from bftkit.core.ids import ZERO_DIGEST
from bftkit.testing import group_settings
from bftkit.testing.engine_group import START, EngineGroup, GroupSettings, Instance
from bftkit_raft.config import RaftOptions
from bftkit_raft.engine import SPEC
from bftkit_raft.messages import Entry


def batch(name: str, origin: int = 0, size: int = 10) -> BatchRef:
    return BatchRef(sha256(name.encode()).digest(), origin, 1, size)


def entry(term: int, *refs: BatchRef) -> Entry:
    return Entry(term, refs)


def context_of(own: int, members: int, *, interval: int = 8, **options) -> EngineContext:
    membership = group_settings.membership_of(SPEC, members)
    return EngineContext(own, membership, RaftOptions(**options), Limits(checkpoint_interval=interval))


def genesis_of(context: EngineContext) -> Genesis:
    interval = context.limits.checkpoint_interval
    return group_settings.genesis_of(SPEC, context.membership, context.options, interval)


def checkpoint_at(position: int) -> CheckpointCertificate:
    """A checkpoint as an engine is told of it; it looks at the position only."""
    return CheckpointCertificate(Checkpoint(position, position, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST), None)


def group_of(
    members: int, seed: int = 0, *, interval: int = 8, exchange_ms: int | None = 400, **options
) -> EngineGroup:
    """A group of Raft's engines, started; messages and records are encoded, invariants are watched."""
    settings = GroupSettings(
        options=RaftOptions(**options), interval=interval, thorough=True, invariants=True, exchange_ms=exchange_ms
    )
    return EngineGroup(SPEC, members, seed, settings=settings).start()


def leader_of(group: EngineGroup) -> Instance | None:
    """The live leader of the highest term, if there is one."""
    leaders = [one for one in group.instances if one.alive and one.engine.state.leads]
    return max(leaders, key=lambda one: one.engine.state.term, default=None)


def elected(group: EngineGroup, limit: int = 20_000) -> Instance:
    """Run until somebody leads and has committed in its term."""

    def settled() -> bool:
        one = leader_of(group)
        return one is not None and one.engine.state.commit >= one.engine.state.term_begin

    group.run_until(settled, limit)
    leader = leader_of(group)
    assert leader is not None
    return leader


__all__ = ["START", "batch", "checkpoint_at", "context_of", "elected", "entry", "genesis_of", "group_of", "leader_of"]
