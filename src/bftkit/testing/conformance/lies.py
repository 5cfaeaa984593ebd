"""How members lie to engines of any kind: what they say is changed, kept back or repeated, and signed by them."""

from __future__ import annotations

from random import Random
from typing import Any

from bftkit.core.statement import SignedMessage
from bftkit.testing.conformance.alterations import alterations
from bftkit.testing.engine_group import EngineGroup, Rewrite
from bftkit.testing.scenario import Lie

_REMEMBERED = 64
"""Own messages that a member may say again."""


def signed_again(group: EngineGroup, member: int, message: Any) -> Any:
    """Return a message that its sender has changed, with a signature that fits."""
    if isinstance(message, SignedMessage):
        return group.sign(group.instances[member].identity, message)
    return message


def altered(group: EngineGroup, member: int, message: Any, random: Random) -> Any:
    """Return a message with one thing changed that a receiver may believe; the message itself where there is none."""
    variants = list(alterations(message))
    context = group.instances[member].context
    for _ in range(8):
        variant = random.choice(variants) if variants else message
        if group.decodes(variant) and group.spec.check(context, context.own, variant) is None:
            return signed_again(group, member, variant)
    return message


def silent(member: int, group: EngineGroup) -> Rewrite:
    """Say nothing."""
    return lambda receiver, message: None


def partial(member: int, group: EngineGroup) -> Rewrite:
    """Speak to so many members only that they are one short of a quorum with the liar."""
    members = group.members
    heard = [(member + step) % members for step in range(1, max(2, group.quorum.quorum - 1))]
    return lambda receiver, message: message if group.instances[receiver].identity in heard else None


def two_faced(member: int, group: EngineGroup) -> Rewrite:
    """Tell the odd members something else than the even ones."""
    random = Random(f"two-faced/{member}")

    def rewrite(receiver: int, message: Any) -> Any:
        return altered(group, member, message, random) if receiver % 2 else message

    return rewrite


def altering(member: int, group: EngineGroup) -> Rewrite:
    """Change one thing in every third message, for each receiver another one."""
    random = Random(f"altering/{member}")

    def rewrite(receiver: int, message: Any) -> Any:
        return altered(group, member, message, random) if random.random() < 1 / 3 else message

    return rewrite


def stale(member: int, group: EngineGroup) -> Rewrite:
    """Say something again, in place of something new, half of the time."""
    random = Random(f"stale/{member}")
    said: list[Any] = []

    def rewrite(receiver: int, message: Any) -> Any:
        said.append(message)
        del said[:-_REMEMBERED]
        return random.choice(said) if random.random() < 1 / 2 else message

    return rewrite


LIES: dict[str, Lie] = {
    "silent": silent,
    "partial": partial,
    "two-faced": two_faced,
    "altering": altering,
    "stale": stale,
}
"""Every lie by its name in scenarios."""
