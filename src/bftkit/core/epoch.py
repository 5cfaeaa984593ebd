"""Epochs: one configuration of a group, and the statement that it starts from."""

from hashlib import sha256

import msgspec

from bftkit.core.checkpoint import Checkpoint
from bftkit.core.ids import PROTOCOL_VERSION, ZERO_DIGEST, canonical, digest_of
from bftkit.core.membership import Member, Membership
from bftkit.core.quorum import FaultModel


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds that all replicas must share, because what is accepted depends on them."""

    max_command_bytes: int = 65_536
    """Longest single command."""
    max_batch_bytes: int = 262_144
    """Longest blob of a batch."""
    checkpoint_interval: int = 128
    """Positions between checkpoints, K."""
    max_sessions: int = 10_000
    """Open client sessions; the least recently used one goes first."""
    session_window: int = 65_536
    """Command sequences above a session's low mark that may be in flight."""
    session_reply_bytes: int = 4_194_304
    """Bytes of results kept for one session."""


class EpochConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that all members must agree on before they can agree on anything."""

    cluster: str
    group: int
    epoch: int
    engine: str
    engine_version: str
    fault_model: FaultModel
    options: bytes
    """The engine's options Struct in canonical msgpack."""
    members: tuple[Member, ...]
    limits: Limits = Limits()

    def membership(self) -> Membership:
        """Return the members in the order of their names; ValueError where they cannot form a group."""
        return Membership(self.members, self.fault_model)

    def digest(self) -> bytes:
        """Return the digest that stands in every signed statement of the epoch."""
        members = tuple(sorted(self.members, key=lambda member: member.name))
        return digest_of("config", msgspec.structs.replace(self, members=members))


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The statement that an epoch starts from.

    The first epoch starts from the state of an empty cluster, a later one from what its predecessor
    handed over; a replica's place in the certificate chain is the digest of this statement.
    """

    config: EpochConfig
    start: Checkpoint
    """State at the start: position 0 of the epoch, the height and the roots handed over."""
    parent: bytes = ZERO_DIGEST
    """Digest of the previous epoch's genesis; zeros for the first epoch."""

    def digest(self) -> bytes:
        """Return the genesis digest."""
        return digest_of("genesis", (self.config.digest(), self.start, self.parent))

    def cluster_digest(self) -> bytes:
        """Return what both ends of a connection must share: the cluster, its group and its members with their keys.

        Settings are compared one by one besides, so that one that differs can be named.
        """
        members = tuple((member.name, member.public_key) for member in self.config.membership().members)
        return digest_of("cluster", (self.config.cluster, self.config.group, members))

    def domain(self) -> bytes:
        """Return the 32 bytes that bind a signature to this protocol version, cluster, group, epoch and engine."""
        config = self.config
        fields = (
            PROTOCOL_VERSION,
            config.cluster,
            config.group,
            config.epoch,
            self.digest(),
            config.engine,
            config.engine_version,
            config.digest(),
        )
        return sha256(b"bftkit/domain\x00" + canonical(fields)).digest()
