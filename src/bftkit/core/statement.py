"""What is signed: statements, the messages that carry one, and claims to be verified.

The bytes under a signature are the domain of the epoch followed by the statement. They do not name
the signer, whose key does; so the votes of many for one thing are equal bytes, and a certificate
is one statement with many signatures.
"""

from typing import NamedTuple

import msgspec

from bftkit.core.ids import ReplicaIndex, canonical

_PREFIX = b"bftkit/statement\x00"


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One thing that a member can vouch for.

    Kind, view and position are the *slot*: a correct member signs at most one content for a slot,
    and two contents under one key are evidence of equivocation.
    """

    kind: str
    """Message type, unique among the engine's and the library's own ("prepare", "checkpoint", ...)."""
    view: int
    """Term, view or round; 0 where there is none."""
    position: int
    """Index within the epoch; 0 where there is none."""
    content: bytes
    """Digest of everything else that the statement says, 32 bytes."""

    @property
    def slot(self) -> tuple[str, int, int]:
        """Return what a correct member signs only once."""
        return (self.kind, self.view, self.position)


def statement_bytes(domain: bytes, statement: Statement) -> bytes:
    """Return the bytes under a signature; `domain` is `Genesis.domain()` of the epoch."""
    return _PREFIX + domain + canonical(statement)


class SignedMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of messages that their sender signs.

    A subclass has a last field `signature: bytes = b""`. It leaves the engine empty; the shell, which
    holds the key, fills it in while it performs the output.
    """

    def statement(self) -> Statement:
        """Return what the sender vouches for."""
        raise TypeError(f"{type(self).__name__} does not say what it states")


class Claim(NamedTuple):
    """A statement that a message says a member has signed; the pipeline verifies it."""

    signer: ReplicaIndex
    statement: Statement
    signature: bytes
