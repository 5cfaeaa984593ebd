"""A digest over a dictionary of byte strings that is cheap to keep up to date.

A Merkle tree of fixed shape: a key belongs to the leaf that the first two bytes of its SHA-256 name, a leaf is the hash
of its keys and values in order, an inner node the hash of its 16 children, and what is empty is zeros. So the root
depends on the content only, not on the way there, and two contents with one root would be a collision of SHA-256. An
XOR of hashes would not have this property (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997).
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import msgspec

FAN_OUT = 16
"""Children of an inner node."""
LEVELS = 4
"""Levels of inner nodes; the tree has `FAN_OUT ** LEVELS` leaves, which 16 bits of a key's hash choose."""
DIGEST_BYTES = 32
"""Length of a node: SHA-256."""

_EMPTY = bytes(DIGEST_BYTES)
_EMPTY_CHILDREN = bytes(FAN_OUT * DIGEST_BYTES)
_encode = msgspec.msgpack.Encoder().encode


class StateTree:
    """Keep the root over a dictionary that somebody else changes.

    Whoever changes the dictionary enters the key into `changed`; nothing is hashed before `root` is called.
    """

    __slots__ = ("_data", "_keys", "_levels", "changed")

    def __init__(self, data: Mapping[bytes, bytes]) -> None:
        self._data = data
        self._keys: dict[int, set[bytes]] = {}
        # Level 0 is the leaves, the last one the root. Zeroed memory is not touched before it is written.
        self._levels = [bytearray(FAN_OUT**level * DIGEST_BYTES) for level in range(LEVELS, -1, -1)]
        self.changed: dict[bytes, None] = dict.fromkeys(data)
        """Keys that were set or removed since the last root."""

    def root(self) -> bytes:
        """Return the digest of the whole content, 32 bytes; zeros for an empty dictionary."""
        if self.changed:
            nodes = self._update_leaves()
            for level in range(1, LEVELS + 1):
                nodes = self._update_level(level, nodes)
        return bytes(self._levels[LEVELS])

    def _update_leaves(self) -> Iterable[int]:
        """Hash the leaves of the changed keys; return the numbers of their parents."""
        data, members = self._data, self._keys
        leaves: dict[int, None] = {}
        for key in self.changed:
            leaf = int.from_bytes(sha256(key).digest()[:2], "big")
            leaves[leaf] = None
            if key in data:
                members.setdefault(leaf, set()).add(key)
            elif leaf in members:
                members[leaf].discard(key)
        self.changed.clear()
        digests = self._levels[0]
        for leaf in leaves:
            keys = sorted(members.get(leaf, ()))
            if not keys:
                members.pop(leaf, None)
            # Msgpack writes the lengths, so no two contents share their bytes; the prefix tells leaves from nodes.
            content = _encode([(key, data[key]) for key in keys])
            digest = sha256(b"\x00" + content).digest() if keys else _EMPTY
            digests[leaf * DIGEST_BYTES : (leaf + 1) * DIGEST_BYTES] = digest
        return dict.fromkeys(leaf // FAN_OUT for leaf in leaves)

    def _update_level(self, level: int, nodes: Iterable[int]) -> Iterable[int]:
        """Hash nodes of a level from their children; return the numbers of their parents."""
        below, digests = self._levels[level - 1], self._levels[level]
        width = FAN_OUT * DIGEST_BYTES
        for node in nodes:
            children = below[node * width : (node + 1) * width]
            digest = _EMPTY if children == _EMPTY_CHILDREN else sha256(b"\x01" + children).digest()
            digests[node * DIGEST_BYTES : (node + 1) * DIGEST_BYTES] = digest
        return dict.fromkeys(node // FAN_OUT for node in nodes)
