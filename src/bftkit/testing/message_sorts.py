"""What sort of message one is, for an engine of any kind: told from the name of its type; and what it proposes."""

from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.testing.message_mutation import Path
from bftkit.testing.twins_scenarios import PROPOSALS, VIEW_CHANGES, VOTES

NAMES_OF_VIEW_CHANGES = ("ViewChange", "NewView", "Suspect", "Timeout", "RequestVote", "PreVote", "Election")
NAMES_OF_PROPOSALS = ("PrePrepare", "Propos", "Append", "Block")
"""How messages are told apart: by parts of their types' names. All others are votes."""


def sort_of(message_type: type) -> str:
    """Return what a type of message is about: one of the sorts that a view may lose."""
    name = message_type.__name__
    if any(part in name for part in NAMES_OF_VIEW_CHANGES):
        return VIEW_CHANGES
    return PROPOSALS if any(part in name for part in NAMES_OF_PROPOSALS) else VOTES


def proposed_batches(message: Any) -> tuple[Path, tuple[BatchRef, ...]]:
    """Return where in a message or one of its parts batches are named, and the batches; nothing where they are not."""
    parts: list[Path] = []
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, tuple) and value and all(isinstance(one, BatchRef) for one in value):
            return (name,), value
        if isinstance(value, msgspec.Struct):
            parts.append((name,))
    for place in parts:
        path, refs = proposed_batches(getattr(message, str(place[0])))
        if path:
            return (*place, *path), refs
    return (), ()
