"""Messages that nobody had a reason to send: suspicions, and questions about what one knows or what does not exist."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from bftkit.core.engine import EngineSpec
from bftkit.core.ids import DIGEST_BYTES, ReplicaIndex
from bftkit.core.statement import SignedMessage, Statement
from bftkit.replica.messages import FetchBodies, FetchCommits, FetchSnapshot, Progress

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
    yield FetchSnapshot(max(1, position), 0)
    yield FetchBodies((*digests, bytes(DIGEST_BYTES)))
    yield Progress(0, 0, 0, asks=True)
