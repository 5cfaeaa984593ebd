"""What HotStuff's tests make by hand: batches, contexts, certificates, blocks; and groups of its engines."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Genesis, Limits
from bftkit.core.ids import ZERO_DIGEST, canonical
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.core.statement import Statement
from bftkit.testing import group_settings
from bftkit.testing.engine_group import START, EngineGroup, GroupSettings
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.engine import SPEC
from bftkit_hotstuff.messages import (
    GENESIS_QC,
    VOTE_KIND,
    Block,
    Proposal,
    TimeoutCertificate,
    TimeoutVote,
    round_of,
    timeout_statement,
)


def signature_of(signer: int, statement: Statement) -> bytes:
    """A tag that stands for a signature."""
    tag = sha256(b"%d" % signer + canonical(statement)).digest()
    return tag + tag


def signed(signer: int, message: Any) -> Any:
    return msgspec.structs.replace(message, signature=signature_of(signer, message.statement()))


def batch(name: str, origin: int = 0) -> BatchRef:
    return BatchRef(sha256(name.encode()).digest(), origin, 1, 10)


def context_of(own: int, members: int, *, interval: int = 4, **options: Any) -> EngineContext:
    membership = group_settings.membership_of(SPEC, members)
    return EngineContext(own, membership, HotStuffOptions(**options), Limits(checkpoint_interval=interval))


def genesis_of(context: EngineContext) -> Genesis:
    interval = context.limits.checkpoint_interval
    return group_settings.genesis_of(SPEC, context.membership, context.options, interval)


def checkpoint_at(position: int, signers: Sequence[int] = (0, 1, 2), members: int = 4) -> CheckpointCertificate:
    checkpoint = Checkpoint(position, position, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST)
    statement = checkpoint.statement()
    votes = {signer: signature_of(signer, statement) for signer in signers}
    return CheckpointCertificate(checkpoint, QuorumCertificate.of(statement, votes, members))


def qc_for(block: Block, signers: Sequence[int] | None = None, members: int = 4) -> QuorumCertificate:
    """The certificate of a block, signed by these members, or by as few as it takes."""
    if signers is None:
        signers = range(Quorum.of(FaultModel.BYZANTINE, members).quorum)
    statement = Statement(VOTE_KIND, block.round, 0, block.header().id)
    votes = {signer: signature_of(signer, statement) for signer in signers}
    return QuorumCertificate.of(statement, votes, members)


def tc_for(
    round_number: int, qcs: Sequence[QuorumCertificate] = (GENESIS_QC, GENESIS_QC, GENESIS_QC)
) -> TimeoutCertificate:
    """The certificate of a round that members 0, 1, ... have given up, who knew these newest certificates."""
    votes = tuple(
        TimeoutVote(who, round_of(qc), signature_of(who, timeout_statement(round_number, round_of(qc))))
        for who, qc in enumerate(qcs)
    )
    return TimeoutCertificate(round_number, votes, max(qcs, key=round_of))


def block_on(
    parent: Block | None, round_number: int, refs: Sequence[BatchRef] = (), *, members: int = 4, **fields: Any
) -> Block:
    """A block of whose turn the round is, on a certified parent."""
    justify = qc_for(parent, members=members) if parent is not None else GENESIS_QC
    height = parent.height + 1 if parent is not None else 1
    values = {"author": round_number % members, "refs": tuple(refs), "justify": justify, "height": height, **fields}
    return Block(round=round_number, **values)


def chain_of(length: int, *, start: int = 1, members: int = 4) -> list[Block]:
    """Blocks in successive rounds, each on the one before, with one batch each."""
    blocks: list[Block] = []
    for number in range(start, start + length):
        parent = blocks[-1] if blocks else None
        blocks.append(block_on(parent, number, [batch(f"b{number}")], members=members))
    return blocks


def proposal(block: Block, tc: TimeoutCertificate | None = None) -> Proposal:
    message: Proposal = signed(block.author, Proposal(block, tc))
    return message


def group_of(members: int, seed: int = 0, *, interval: int = 4, **options: Any) -> EngineGroup:
    """A group of HotStuff's engines, started: messages and records are encoded, invariants are watched."""
    settings = GroupSettings(options=HotStuffOptions(**options), interval=interval, thorough=True, invariants=True)
    return EngineGroup(SPEC, members, seed, settings=settings).start()


__all__ = ["START", "batch", "block_on", "chain_of", "checkpoint_at", "context_of", "genesis_of", "group_of", "signed"]
