"""Digests and the few plain types that name things."""

from hashlib import sha256
from typing import Any

import msgspec

DIGEST_BYTES = 32
"""Length of every digest: SHA-256."""

SIGNATURE_BYTES = 64
"""Length of an Ed25519 signature."""

PUBLIC_KEY_BYTES = 32
"""Length of an Ed25519 public key."""

PROTOCOL_VERSION = 1
"""Version of what is signed and sent; it stands in every signed statement."""

ZERO_DIGEST = bytes(DIGEST_BYTES)
"""What a chain of digests starts from."""

ReplicaIndex = int
"""A member's place in the membership of one epoch, 0 to n - 1."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def canonical(value: Any) -> bytes:
    """Encode a Struct, list, number, string or bytes to its one msgpack form."""
    return _encoder.encode(value)


def digest_of(label: str, value: Any) -> bytes:
    """Hash a value under a label, so that values of different kinds never share a digest."""
    return sha256(_encoder.encode((label, value))).digest()
