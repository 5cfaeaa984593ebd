"""Messages that nobody had a reason to send: suspicions, idle questions, batches of what no client has asked for."""

from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Any, get_args, get_type_hints

import msgspec

from bftkit.core.batch import BatchBody, BatchHeader, make_batch
from bftkit.core.engine import EngineSpec
from bftkit.core.ids import DIGEST_BYTES, SIGNATURE_BYTES, ReplicaIndex, canonical
from bftkit.core.statement import SignedMessage, Statement
from bftkit.replica.client_messages import AnyRequest, Envelope, decode_batch, decode_commands
from bftkit.replica.messages import MAX_PART_BYTES, FetchBodies, FetchCommits, FetchSnapshot, Progress

NUMBER_BITS = 40
"""Numbers of made-up batches have so many random bits: none is made twice."""

_FILLED = (int, bytes)
"""Types of fields that something can be made up for."""


@lru_cache
def _plain_types(messages: Any) -> tuple[tuple[type, tuple[tuple[str, type], ...]], ...]:
    """List the types of unsigned messages that consist of numbers and digests alone, with their fields."""
    found = []
    for kind in get_args(messages) or (messages,):
        hints = get_type_hints(kind)
        fields = tuple((name, hints[name]) for name in kind.__struct_fields__)
        if not issubclass(kind, SignedMessage) and all(type_ in _FILLED for _, type_ in fields):
            found.append((kind, fields))
    return tuple(found)


def made_up_talk(spec: EngineSpec, about: Statement, to: ReplicaIndex) -> Iterator[Any]:
    """Make one of each sort of an engine's short unsigned messages, about what a statement is about.

    Among them are, for any engine, the suspicion of its leader and the questions that its members ask each other.
    """
    known = {"view": about.view, "term": about.view, "round": about.view, "position": max(1, about.position)}
    for kind, fields in _plain_types(spec.messages):
        yield kind(**{name: about.content if type_ is bytes else known.get(name, to) for name, type_ in fields})


def made_up_questions(position: int, digests: tuple[bytes, ...]) -> Iterator[Any]:
    """Ask for everything that replicas hand out: all decisions, a state, bodies, and how far they are."""
    yield FetchCommits(0)
    yield FetchSnapshot(max(1, position), 0, MAX_PART_BYTES)
    yield FetchBodies((*digests, bytes(DIGEST_BYTES)))
    yield Progress(0, 0, 0, asks=True)


def _header(body: BatchBody) -> BatchHeader:
    return msgspec.msgpack.decode(body.header, type=BatchHeader)


def same_requests_again(body: BatchBody, own: ReplicaIndex, random: Random) -> BatchBody:
    """Make another batch of the same requests: well-formed, signed by its clients, and of no use to anybody."""
    requests = [canonical(request) for request in decode_batch(body.blob)]
    return make_batch(_header(body).epoch, own, requests, body.ref.count, number=random.getrandbits(NUMBER_BITS))


def invented_requests(body: BatchBody, own: ReplicaIndex, random: Random) -> BatchBody:
    """Make a well-formed batch of what clients might have asked for and have not, in sessions that are open.

    Whatever was changed has the signature of the request that it was made of, or none; now and then a request is left
    as it was, and now and then the batch lies about how much it holds.
    """
    requests = [_invented(request, random) for request in decode_batch(body.blob)]
    count = sum(request.count if isinstance(request, Envelope) else 1 for request in requests)
    lie = random.random() < 0.1
    encoded = [canonical(request) for request in requests]
    return make_batch(_header(body).epoch, own, encoded, count + lie, number=random.getrandbits(NUMBER_BITS))


def _invented(request: AnyRequest, random: Random) -> AnyRequest:
    if not isinstance(request, Envelope):
        nonce = random.choice((request.nonce, random.randbytes(len(request.nonce))))
        return msgspec.structs.replace(request, nonce=nonce)
    changes: dict[str, Any] = random.choice(
        (
            {},
            {"commands": msgspec.Raw(canonical([_another(command) for command in decode_commands(request.commands)]))},
            {"first": request.first + request.count},
            {"acknowledged": request.acknowledged + request.count},
            {"session": (request.session[0], request.session[1] + 1)},
        )
    )
    if random.random() < 0.5:
        changes["signature"] = random.randbytes(SIGNATURE_BYTES)
    return msgspec.structs.replace(request, **changes)


def _another(command: bytes) -> bytes:
    """Return a command that differs in its first bit, and that a state machine takes as it takes this one."""
    return bytes([command[0] ^ 0x80]) + command[1:] if command else b"\0"
