"""Questions to one node, outside the replicated log."""

import msgspec


class AdminAsk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A question; `verb` is "status", "explain", "query" or "read".

    "query" is answered from the state as it is, which may be old; "read" once the node has executed everything that
    was decided when it was asked, by engines that can say how much that is.
    """

    id: int
    """The asker's number; comes back in the answer."""
    verb: str
    body: bytes = b""
    """The query for "query" and "read"; empty otherwise."""


class AdminAnswer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The answer: JSON for "status" and "explain", the application's bytes for "query" and "read"."""

    id: int
    ok: bool
    body: bytes
    """The answer, or the reason in words where `ok` is false."""
    height: int = 0
    """Height that the application had executed when it answered."""
    retry: bool = False
    """Where `ok` is false: whether another node may answer, or this one later."""
