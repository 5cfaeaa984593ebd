"""What PBFT's tests make by hand: batches, contexts, signatures, checkpoints; and groups of its engines."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Genesis, Limits
from bftkit.core.ids import ZERO_DIGEST, canonical
from bftkit.core.log import CommitEntry
from bftkit.core.statement import Statement
from bftkit.testing import group_settings
from bftkit.testing.engine_group import START, EngineGroup, GroupSettings, Instance
from bftkit_pbft.config import PbftOptions
from bftkit_pbft.engine import SPEC


def signature_of(signer: int, statement: Statement) -> bytes:
    """A tag that stands for a signature."""
    tag = sha256(b"%d" % signer + canonical(statement)).digest()
    return tag + tag


def signed(signer: int, message: Any) -> Any:
    return msgspec.structs.replace(message, signature=signature_of(signer, message.statement()))


def batch(name: str, origin: int = 0, *, control: bool = False) -> BatchRef:
    return BatchRef(sha256(name.encode()).digest(), origin, 1, 10, control)


def context_of(own: int, members: int, *, interval: int = 4, **options: Any) -> EngineContext:
    membership = group_settings.membership_of(SPEC, members)
    return EngineContext(own, membership, PbftOptions(**options), Limits(checkpoint_interval=interval))


def genesis_of(context: EngineContext) -> Genesis:
    interval = context.limits.checkpoint_interval
    return group_settings.genesis_of(SPEC, context.membership, context.options, interval)


def checkpoint_at(position: int, signers: list[int], members: int, root: bytes = ZERO_DIGEST) -> CheckpointCertificate:
    checkpoint = Checkpoint(position, position, root, ZERO_DIGEST, ZERO_DIGEST)
    statement = checkpoint.statement()
    votes = {signer: signature_of(signer, statement) for signer in signers}
    return CheckpointCertificate(checkpoint, QuorumCertificate.of(statement, votes, members))


def group_of(members: int, seed: int = 0, *, interval: int = 4, **options: Any) -> EngineGroup:
    """A group of PBFT's engines, started: messages and records are encoded, and a commit names held bodies only."""
    settings = GroupSettings(options=PbftOptions(**options), interval=interval, thorough=True)
    group = EngineGroup(SPEC, members, seed, settings=settings)
    group.on_commit = names_held_bodies
    return group.start()


def names_held_bodies(instance: Instance, entry: CommitEntry) -> None:
    assert instance.holds(entry.refs), f"{instance.name} commits a batch that it does not hold"


__all__ = ["START", "batch", "checkpoint_at", "context_of", "genesis_of", "group_of", "signature_of", "signed"]
