"""What a liar says though nobody has asked and nothing has happened: questions, bodies, offers, votes.

Each function is a way to treat a message, as those of `Liar` are: the message itself goes on, and something with it.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from bftkit.core.batch import BatchBody, BatchRef
from bftkit.core.ids import DIGEST_BYTES, ReplicaIndex
from bftkit.replica.messages import OfferBodies, Progress, StableCheckpoint
from bftkit.testing.made_up_messages import invented_requests, made_up_questions, made_up_talk, same_requests_again
from bftkit.testing.message_sorts import proposed_batches

if TYPE_CHECKING:
    from bftkit.testing.byzantine import Liar, Said

MakeBody = Callable[[BatchBody, ReplicaIndex, Random], BatchBody]
"""Makes a body of another one."""

FLOOD_OF_BODIES = 12
"""How many batches a flooding liar makes of one of its own."""

FLOOD_OF_CHECKPOINTS = 24
"""For how many positions it votes at once: three times as many as anybody counts votes for."""

FLOOD_OF_OFFERS = 96
"""How many batches it offers at once: half as many again as anybody asks one member for."""


# --- Bodies ---------------------------------------------------------------------------------------------------------


def _besides(liar: "Liar", body: BatchBody, make: MakeBody, count: int) -> list[BatchBody]:
    """Make so many bodies of one, the same for all who are sent it."""
    if body.ref.digest not in liar.made_up:
        liar.made_up[body.ref.digest] = [make(body, liar.own, liar.random) for _ in range(count)]
    return liar.made_up[body.ref.digest]


def invent(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Put requests on their way that no client has made."""
    return [(to, message), *((to, body) for body in _besides(liar, message, invented_requests, 1))]


def flood_bodies(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Put the same requests on their way again and again, beyond every quota."""
    digest = message.ref.digest
    if message.ref.origin != liar.own or digest in liar.flooded or liar.count(to, digest) > 1:
        return [(to, message)]  # the flood of a flood would never end
    bodies = _besides(liar, message, same_requests_again, FLOOD_OF_BODIES)
    liar.flooded.update(body.ref.digest for body in bodies)
    return [(to, message), *((to, body) for body in bodies)]


# --- Offers ---------------------------------------------------------------------------------------------------------


def _offer(liar: "Liar", to: ReplicaIndex, message: Any, count: int) -> "Said":
    if not isinstance(message, OfferBodies | Progress | StableCheckpoint):
        return [(to, message)]
    invented = tuple(BatchRef(liar.random.randbytes(DIGEST_BYTES), liar.own, 1, 10) for _ in range(count))
    return [(to, message), (to, OfferBodies(invented))]


def offer_nothing(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Offer a batch that does not exist, and claim a checkpoint for it."""
    return _offer(liar, to, message, 1)


def flood_offers(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Offer more batches that do not exist than anybody may be asked for."""
    return _offer(liar, to, message, FLOOD_OF_OFFERS)


# --- Votes ----------------------------------------------------------------------------------------------------------


def flood_checkpoints(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Vote for checkpoints at positions that nobody has reached, one interval after the other."""
    before = liar.before.get(type(message), message)
    position = message.checkpoint.position
    interval = abs(position - before.checkpoint.position) or position
    ahead = (
        msgspec.structs.replace(message.checkpoint, position=position + step * interval)
        for step in range(1, FLOOD_OF_CHECKPOINTS)
    )
    return [(to, message), *((to, msgspec.structs.replace(message, checkpoint=one)) for one in ahead)]


# --- Questions ------------------------------------------------------------------------------------------------------


def nag(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Suspect every leader, and ask about everything that the engine knows, with each new message."""
    if liar.count(to, message) > 1:
        return [(to, message)]  # the answers to an answer would never end
    return [(to, message), *((to, talk) for talk in made_up_talk(liar.spec, message.statement(), to))]


def ask_for_all(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Ask for all that replicas hand out, with each new message."""
    if liar.count(to, message) > 1:
        return [(to, message)]
    for ref in proposed_batches(message)[1]:
        if ref.digest not in liar.heard:
            liar.heard.append(ref.digest)
    questions = made_up_questions(message.statement().position, tuple(liar.heard))
    return [(to, message), *((to, question) for question in questions)]
