"""Signatures of simulated members."""

from __future__ import annotations

from bftkit.core.ids import SIGNATURE_BYTES
from bftkit.testing.signing import SignatureRegistry

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
