"""Lies to those who lag: what a lying member answers when it is asked for decisions and states.

Each takes the liar, the receiver and the message, and returns what is said instead; see `bftkit.testing.byzantine`.
"""

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bftkit.core.ids import ReplicaIndex
from bftkit.replica.messages import Commits, SnapshotAvailable, SnapshotChunk

if TYPE_CHECKING:
    from bftkit.testing.byzantine import Liar, Said

ENORMOUS = 1 << 31
"""How long a state is said to be, in bytes."""

FED = 4
"""Parts of such a state that come with each message."""


def cut_answers(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Answer with less than was asked for, in another order, or with other bytes."""
    match message:
        case Commits() if message.entries:
            entries = liar.random.choice((message.entries[1:], message.entries[:-1], message.entries[::-1]))
            return [(to, replace(message, entries=entries))]
        case SnapshotChunk():
            changes = liar.random.choice(
                (
                    {"data": bytes([message.data[0] ^ 1]) + message.data[1:]},
                    {"data": message.data[:-1]},
                    {"data": b""},
                    {"offset": max(0, message.offset - 1)},
                    {"size": message.size + 1},
                )
            )
            return [(to, replace(message, **changes))]
        case SnapshotAvailable():
            return [(to, replace(message, size=message.size + 1))]
    return [(to, message)]


def drip_states(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Answer every second question for a part of a state, with one byte of it."""
    if not isinstance(message, SnapshotChunk):
        return [(to, message)]
    return [] if liar.random.random() < 0.5 else [(to, replace(message, data=message.data[:1]))]


def feed_enormous_states(liar: "Liar", to: ReplicaIndex, message: Any) -> "Said":
    """Offer states that nobody could hold, and send part after part of them with whatever else is said."""
    said = [(to, message)]
    match message:
        case SnapshotAvailable():
            return [(to, replace(message, size=ENORMOUS))]
        case SnapshotChunk():
            said = []
            if message.offset == 0:
                liar.fed[to] = message
    if to in liar.fed:
        part = liar.fed[to]
        parts = [replace(part, size=ENORMOUS, offset=part.offset + place * len(part.data)) for place in range(FED + 1)]
        liar.fed[to] = parts.pop()
        said += [(to, each) for each in parts]
    return said
