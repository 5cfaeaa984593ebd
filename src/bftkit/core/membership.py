"""Who votes in an epoch."""

import msgspec

from bftkit.core.ids import PUBLIC_KEY_BYTES, ReplicaIndex
from bftkit.core.quorum import FaultModel, Quorum


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One voting replica: its name, and the key that its votes are checked against."""

    name: str
    public_key: bytes
    """Raw Ed25519 public key, 32 bytes."""
    weight: int = 1
    """Steers how often it leads; quorums ignore it."""


class Membership:
    """The members of one epoch in the order of their names; a member's place is its index.

    Raises ValueError where names or keys repeat, a key has the wrong length, or there is nobody.
    """

    __slots__ = ("_index_of_name", "fault_model", "members", "quorum")

    def __init__(self, members: tuple[Member, ...], fault_model: FaultModel) -> None:
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.fault_model = fault_model
        self.quorum = Quorum.of(fault_model, len(self.members))
        self._index_of_name = {member.name: index for index, member in enumerate(self.members)}
        if len(self._index_of_name) != len(self.members):
            raise ValueError("two members have one name")
        if len({member.public_key for member in self.members}) != len(self.members):
            raise ValueError("two members have one key")
        for member in self.members:
            if len(member.public_key) != PUBLIC_KEY_BYTES:
                raise ValueError(f"the key of {member.name} has {len(member.public_key)} bytes, not {PUBLIC_KEY_BYTES}")

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: ReplicaIndex) -> str:
        """Return the name of the member at an index."""
        return self.members[index].name

    def public_key(self, index: ReplicaIndex) -> bytes:
        """Return the key of the member at an index."""
        return self.members[index].public_key

    def index(self, name: str) -> ReplicaIndex | None:
        """Return the index of a name, or None for somebody who is no member."""
        return self._index_of_name.get(name)
