"""Keys and signatures of simulated members and clients: tags that cost nothing, or Ed25519.

A tag over key and statement is valid only if the registry remembers that this key signed this statement; so
nothing in a simulated run can invent one, whatever bytes it puts together. Some runs pay for the real thing.
"""

from hashlib import blake2b, sha256
from typing import Protocol

from bftkit.wire.auth import SigningKey, verify


class Signatures(Protocol):
    """Whoever signs and verifies in one run. Stands where keys and `SignatureVerifier` do in a node."""

    def public_key(self, name: str) -> bytes:
        """Return the public key of somebody, the same for the same name."""
        ...

    def sign(self, public_key: bytes, statement: bytes) -> bytes:
        """Sign with the key behind a public key; the caller vouches that it is its own."""
        ...

    def verify(self, public_key: bytes, statement: bytes, signature: bytes) -> bool:
        """Say whether this key signed this statement."""
        ...


class SignatureRegistry:
    """Everything that was really signed in one run."""

    def __init__(self) -> None:
        self._signed: dict[tuple[bytes, bytes], bytes] = {}

    def public_key(self, name: str) -> bytes:
        """Return a name's stand-in for a public key."""
        return sha256(name.encode()).digest()

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


class RealSignatures:
    """Ed25519, with a key for each name that follows from the name."""

    def __init__(self) -> None:
        self._keys: dict[bytes, SigningKey] = {}
        self._verified: dict[tuple[bytes, bytes, bytes], bool] = {}

    def public_key(self, name: str) -> bytes:
        """Return the public key of a name."""
        key = SigningKey(sha256(b"simulated key\x00" + name.encode()).digest())
        self._keys[key.public_key] = key
        return key.public_key

    def sign(self, public_key: bytes, statement: bytes) -> bytes:
        """Sign with the key behind a public key."""
        return self._keys[public_key].sign(statement)

    def verify(self, public_key: bytes, statement: bytes, signature: bytes) -> bool:
        """Say whether this key signed this statement; the same question is answered from memory."""
        question = (public_key, statement, signature)
        verdict = self._verified.get(question)
        if verdict is None:
            verdict = self._verified[question] = verify(public_key, statement, signature)
        return verdict


class SimulatedKey:
    """A key of one run, where the product's code wants a `SigningKey`."""

    def __init__(self, signatures: Signatures, public_key: bytes) -> None:
        self.public_key = public_key
        self._signatures = signatures

    def sign(self, statement: bytes) -> bytes:
        """Sign a statement."""
        return self._signatures.sign(self.public_key, statement)
