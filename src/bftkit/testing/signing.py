"""Signatures that cost nothing and cannot be forged.

A signature is a tag over key and statement, and it is valid only if the registry remembers that this
key signed this statement; so nothing in a simulated run can invent one, whatever bytes it puts together.
"""

from hashlib import blake2b


class SignatureRegistry:
    """Everything that was really signed in one run. Stands where `SignatureVerifier` does in a node."""

    def __init__(self) -> None:
        self._signed: dict[tuple[bytes, bytes], bytes] = {}

    def sign(self, public_key: bytes, statement: bytes) -> bytes:
        """Sign with the key behind a public key; the caller vouches that it is its own."""
        signed = self._signed.get((public_key, statement))
        if signed is None:
            signed = blake2b(statement, digest_size=64, key=public_key).digest()
            self._signed[public_key, statement] = signed
        return signed

    def verify(self, public_key: bytes, statement: bytes, signature: bytes) -> bool:
        """Say whether this key signed this statement."""
        return self._signed.get((public_key, statement)) == signature

    def __len__(self) -> int:
        return len(self._signed)
