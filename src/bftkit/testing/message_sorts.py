"""What sort of message one is, for an engine of any kind: told from the name of its type."""

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
