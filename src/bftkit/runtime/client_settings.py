"""How a client behaves, and what it knows of its cluster."""

import msgspec

from bftkit.runtime.session_policy import SessionPolicy


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a client behaves, and what it knows of the cluster."""

    names: tuple[str, ...] = ()
    """The members' names, by index; for people."""
    policy: SessionPolicy = SessionPolicy()
    sessions: int = 1
    """Sessions, each with a contact of its own: several spread the making of batches over the replicas.

    0 for questions only, which need no cluster that decides: opening waits until each replica was tried.
    """
    contact: int = 0
    """Index of the replica that the first session turns to."""
    max_command_bytes: int = 65_536
    """Longest command, and longest query, that the cluster takes."""
    one_answer_is_enough: bool = False
    """Whether a single replica answers reads, knowing how recent it is; elsewhere they go through the log."""
    open_timeout_s: float = 15.0
    """How long opening may take."""
