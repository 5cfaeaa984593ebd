"""Signatures of simulated members."""

from __future__ import annotations

from bftkit.core.ids import SIGNATURE_BYTES
from bftkit.testing.signing import RealSignatures, SignatureRegistry
from bftkit.wire.auth import verify

KEY, OTHER = b"k" * 32, b"o" * 32


def test_only_what_was_signed_verifies():
    registry = SignatureRegistry()
    signature = registry.sign(KEY, b"statement")
    assert len(signature) == SIGNATURE_BYTES
    assert registry.verify(KEY, b"statement", signature)
    assert not registry.verify(KEY, b"another", signature)
    assert not registry.verify(OTHER, b"statement", signature)
    assert not registry.verify(KEY, b"statement", bytes(64))


def test_the_right_bytes_are_not_enough_where_nobody_signed():
    honest, liar = SignatureRegistry(), SignatureRegistry()
    assert not honest.verify(KEY, b"statement", liar.sign(KEY, b"statement"))
    assert not honest.verify(KEY, b"statement", b"")


def test_signing_again_gives_the_same_bytes():
    registry = SignatureRegistry()
    assert registry.sign(KEY, b"statement") == registry.sign(KEY, b"statement")
    assert len(registry) == 1


def test_names_have_keys_of_their_own():
    registry = SignatureRegistry()
    assert registry.public_key("one") == SignatureRegistry().public_key("one") != registry.public_key("other")


def test_real_signatures_are_ed25519():
    real = RealSignatures()
    key, other = real.public_key("one"), real.public_key("other")
    signature = real.sign(key, b"statement")
    assert verify(key, b"statement", signature)
    assert real.verify(key, b"statement", signature)
    assert real.verify(key, b"statement", signature)
    assert not real.verify(other, b"statement", signature)
    assert not real.verify(key, b"another", signature)
    assert RealSignatures().public_key("one") == key
