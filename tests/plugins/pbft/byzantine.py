"""Liars: members whose messages are replaced on their way out, signed with their own keys."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.testing.engine_group import START, EngineGroup, Rewrite
from bftkit_pbft.messages import (
    CommitVote,
    FetchProposal,
    NewView,
    Prepare,
    PrePrepare,
    Reproposal,
    Suspect,
    ViewChange,
    proposal_digest,
)
from tests.plugins.pbft.parts import batch


def changed(group: EngineGroup, member: int, message: Any, **fields: Any) -> Any:
    """The message with other fields, signed again."""
    return group.sign(member, msgspec.structs.replace(message, **fields))


def equivocate(member: int, group: EngineGroup) -> Rewrite:
    """Tell the odd members something else than the even ones, in proposals and votes."""
    other = (group.submit(f"forged by n{member}", member),)

    def lie(receiver: int, message: Any) -> Any:
        if receiver % 2 == 0:
            return message
        match message:
            case PrePrepare():
                return changed(group, member, message, refs=other)
            case Prepare() | CommitVote():
                return changed(group, member, message, digest=proposal_digest(other))
        return message

    return lie


def forget_prepared(member: int, group: EngineGroup) -> Rewrite:
    """Claim in each view change to have prepared nothing and to know no checkpoint."""

    def lie(receiver: int, message: Any) -> Any:
        if isinstance(message, ViewChange):
            return changed(group, member, message, prepared=(), checkpoint=START)
        return message

    return lie


def invent_new_view(member: int, group: EngineGroup) -> Rewrite:
    """Begin each view with proposals of one's own."""
    own = (batch(f"invented by n{member}", member),)

    def lie(receiver: int, message: Any) -> Any:
        if isinstance(message, NewView):
            first = message.proposals[0].position if message.proposals else 1
            rest = message.proposals[1:]
            return changed(group, member, message, proposals=(Reproposal(first, own), *rest))
        return message

    return lie


def favour(member: int, group: EngineGroup) -> Rewrite:
    """Speak to a quorum less one only."""
    heard = tuple((member + step) % group.members for step in range(1, group.quorum.quorum - 1))

    def lie(receiver: int, message: Any) -> Any:
        return message if receiver in heard else None

    return lie


def suspect_for_ever(member: int, group: EngineGroup) -> Rewrite:
    """Turn each vote into a suspicion, and each fetch into nothing."""

    def lie(receiver: int, message: Any) -> Any:
        if isinstance(message, CommitVote):
            return Suspect(message.view)
        return None if isinstance(message, FetchProposal) else message

    return lie


def at_random(member: int, group: EngineGroup) -> Rewrite:
    """Change a field here and there, to anything."""
    chance = random.Random(member)

    def lie(receiver: int, message: Any) -> Any:
        roll = chance.random()
        if roll < 0.1:
            return None
        if roll > 0.4 or not hasattr(message, "signature"):
            return message
        match message:
            case Prepare() | CommitVote():
                digest = chance.choice([message.digest, bytes(32), proposal_digest(())])
                view = max(0, message.view + chance.choice([-1, 0, 1, 1000]))
                position = max(1, message.position + chance.choice([-1, 0, 1, 50]))
                return changed(group, member, message, digest=digest, view=view, position=position)
            case ViewChange():
                checkpoint = chance.choice([message.checkpoint, START])
                if not isinstance(checkpoint, CheckpointCertificate):
                    return message
                view = max(1, message.view + chance.choice([-1, 0, 1, 7, 10**9]))
                return changed(group, member, message, view=view, prepared=message.prepared[1:])
        return message

    return lie


LIES = {
    lie.__name__: lie for lie in (equivocate, forget_prepared, invent_new_view, favour, suspect_for_ever, at_random)
}
