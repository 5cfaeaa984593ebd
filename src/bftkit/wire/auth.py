"""Ed25519 keys, signatures and their verification, through one pinned implementation.

Libraries differ in what they accept at the edges of Ed25519 (RFC 8032 §5.1.7; Chalkias, Garillot and Nikolaenko,
"Taming the many EdDSAs", 2020). Replicas must not, so the edges are cut off before the library is asked: keys of
small order, non-canonical keys, keys off the curve and signatures with S >= L are refused.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bftkit.errors import ConfigurationError

SEED_BYTES: Final = 32
"""The length of a private seed."""
PUBLIC_KEY_BYTES: Final = 32
"""The length of a public key."""
SIGNATURE_BYTES: Final = 64
"""The length of a signature."""

FIELD_PRIME: Final = 2**255 - 19
"""p, over which the curve is defined."""
GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""L, the order of the base point; the S of a valid signature lies below it."""
_D: Final = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
_Y_OF_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SIGN_BIT: Final = 1 << 255

SMALL_ORDER_YS: Final = frozenset({0, 1, FIELD_PRIME - 1, _Y_OF_ORDER_8, FIELD_PRIME - _Y_OF_ORDER_8})
"""The y of the eight points of order 1, 2, 4 and 8. With either sign bit, and 0 and 1 also as p and p + 1, these
are all their encodings."""

KEYS_CACHED: Final = 16_384
"""How many parsed public keys are kept."""


class SigningKey:
    """A private Ed25519 key that does not show itself in a repr, an error or a pickle."""

    __slots__ = ("_key", "public_key", "sign")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ConfigurationError(f"a signing key's seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._key.public_key().public_bytes_raw()
        """The 32 bytes that others know this key by."""
        self.sign = self._key.sign
        """Return the 64-byte signature of some bytes (20 microseconds)."""

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def seed(self) -> bytes:
        """Return the secret itself, for writing it to its file."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"<SigningKey of {self.public_key.hex()[:16]}>"

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError("a signing key is not pickled or copied")


def public_key_fault(public_key: bytes) -> str | None:
    """Return why these bytes may not be registered as a public key, or None if they may."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}"
    y = int.from_bytes(public_key, "little") & (_SIGN_BIT - 1)
    if y >= FIELD_PRIME:
        return "the public key is not in its canonical encoding"
    if y in SMALL_ORDER_YS:
        return "the public key is a point of small order"
    # x^2 = (y^2 - 1) / (d y^2 + 1) must be a square; u / v is one if and only if u v is (Euler's criterion).
    square = y * y % FIELD_PRIME
    if pow((square - 1) * (_D * square + 1), (FIELD_PRIME - 1) // 2, FIELD_PRIME) != 1:
        return "the public key is not a point of the curve"
    return None


def check_public_key(public_key: bytes) -> None:
    """Raise `ConfigurationError` if these bytes may not be registered as a public key."""
    fault = public_key_fault(public_key)
    if fault is not None:
        raise ConfigurationError(fault)


@lru_cache(maxsize=KEYS_CACHED)
def _parse(public_key: bytes) -> Ed25519PublicKey | None:
    if public_key_fault(public_key) is not None:
        return None
    return Ed25519PublicKey.from_public_bytes(public_key)


def verify(public_key: bytes, statement: bytes, signature: bytes) -> bool:
    """Say whether the signature is valid; False, and never an exception, for any other bytes (62 microseconds)."""
    if len(signature) != SIGNATURE_BYTES or int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        return False
    key = _parse(public_key)
    if key is None:
        return False
    try:
        key.verify(signature, statement)
    except InvalidSignature:
        return False
    return True


SignedBytes = tuple[bytes, bytes, bytes]
"""(public key, statement, signature): somebody is said to have signed something."""


class SignatureVerifier:
    """Verify claims, remembering the valid ones, so that a certificate costs only the votes not seen before.

    Only valid signatures are remembered, so that a liar cannot fill the memory; at most `capacity` of them, in two
    generations of which the older is forgotten as a whole.
    """

    __slots__ = ("_old", "_young", "_young_limit", "hits", "misses")

    def __init__(self, capacity: int = 65_536) -> None:
        self._young: set[SignedBytes] = set()
        self._old: set[SignedBytes] = set()
        self._young_limit = max(1, capacity // 2)
        self.hits = 0
        """Claims answered from memory."""
        self.misses = 0
        """Claims that cost a verification."""

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def verify(self, public_key: bytes, statement: bytes, signature: bytes) -> bool:
        """Say whether this claim holds."""
        return self._verify(public_key, statement, sha256(statement).digest(), signature)

    def verify_many(self, claims: Iterable[SignedBytes]) -> list[bool]:
        """Say of each claim whether it holds; claims on one statement object share its digest."""
        verdicts: list[bool] = []
        last: bytes | None = None
        digest = b""
        for public_key, statement, signature in claims:
            if statement is not last:
                last, digest = statement, sha256(statement).digest()
            verdicts.append(self._verify(public_key, statement, digest, signature))
        return verdicts

    def add(self, public_key: bytes, statement: bytes, signature: bytes) -> None:
        """Remember a signature that another worker found valid, or that is one's own."""
        self._remember((public_key, sha256(statement).digest(), signature))

    def _verify(self, public_key: bytes, statement: bytes, digest: bytes, signature: bytes) -> bool:
        claim = (public_key, digest, signature)
        if claim in self._young or claim in self._old:
            self.hits += 1
            return True
        self.misses += 1
        if not verify(public_key, statement, signature):
            return False
        self._remember(claim)
        return True

    def _remember(self, claim: SignedBytes) -> None:
        if len(self._young) >= self._young_limit:
            self._old, self._young = self._young, set()
        self._young.add(claim)
