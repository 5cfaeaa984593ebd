"""Ed25519 at its edges: what one library accepts and another does not is refused before either is asked."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError
from bftkit.wire import auth
from bftkit.wire.auth import (
    FIELD_PRIME,
    GROUP_ORDER,
    SMALL_ORDER_YS,
    SignatureVerifier,
    SigningKey,
    check_public_key,
    public_key_fault,
    verify,
)

P = FIELD_PRIME
D = -121665 * pow(121666, -1, P) % P
IDENTITY = (0, 1)
KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(b"\x07" * 32)
STATEMENT = b"statement"
SIGNATURE = KEY.sign(STATEMENT)


def add(first, second):
    """Add points of the twisted Edwards curve -x^2 + y^2 = 1 + d x^2 y^2."""
    (x1, y1), (x2, y2) = first, second
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x, y


def root(square):
    """Return a square root modulo p (p = 5 mod 8), or None."""
    candidate = pow(square, (P + 3) // 8, P)
    for factor in (1, pow(2, (P - 1) // 4, P)):
        if candidate * factor * candidate * factor % P == square % P:
            return candidate * factor % P
    return None


def points(y):
    x = root((y * y - 1) * pow(D * y * y + 1, -1, P))
    return [] if x is None else [(x, y), (-x % P, y)]


def times(scalar, point):
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def small_order_encodings():
    for y in (*sorted(SMALL_ORDER_YS), P, P + 1):
        for sign in (0, 1):
            yield (y | sign << 255).to_bytes(32, "little")


def test_the_listed_ys_are_the_eight_points_of_small_order():
    found = {point for y in SMALL_ORDER_YS for point in points(y)}
    assert len(found) == 8
    assert all(times(8, point) == IDENTITY for point in found)


def test_an_honest_key_is_of_large_order():
    y = int.from_bytes(KEY.public_key, "little") & (2**255 - 1)
    assert all(times(8, point) != IDENTITY for point in points(y))
    assert public_key_fault(KEY.public_key) is None


@pytest.mark.parametrize("encoding", list(small_order_encodings()))
def test_small_order_keys_are_refused_and_verify_nothing(encoding):
    with pytest.raises(ConfigurationError, match=r"small order|canonical"):
        check_public_key(encoding)
    # With R = A = the identity and S = 0 the bare equation holds for every message.
    assert not verify(encoding, b"anything", encoding + bytes(32))
    assert not verify(encoding, b"anything", (1).to_bytes(32, "little") + bytes(32))


@pytest.mark.parametrize("y", range(P, 2**255))
def test_non_canonical_keys_are_refused(y):
    with pytest.raises(ConfigurationError, match="canonical"):
        check_public_key(y.to_bytes(32, "little"))


@pytest.mark.parametrize("y", range(2, 40))
def test_only_points_of_the_curve_are_accepted(y):
    assert (public_key_fault(y.to_bytes(32, "little")) is None) == bool(points(y))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_other_lengths_are_refused(length):
    with pytest.raises(ConfigurationError, match="32 bytes"):
        check_public_key(bytes(length))
    assert not verify(bytes(length), STATEMENT, SIGNATURE)


def test_a_signature_holds_for_its_key_and_statement_only():
    assert verify(KEY.public_key, STATEMENT, SIGNATURE)
    assert not verify(OTHER.public_key, STATEMENT, SIGNATURE)
    assert not verify(KEY.public_key, STATEMENT + b"!", SIGNATURE)


@pytest.mark.parametrize("multiple", range(1, 16))
def test_a_signature_with_s_plus_l_is_refused(multiple):
    s = int.from_bytes(SIGNATURE[32:], "little") + multiple * GROUP_ORDER
    if s < 2**256:
        assert not verify(KEY.public_key, STATEMENT, SIGNATURE[:32] + s.to_bytes(32, "little"))


def test_s_is_checked_before_the_library_is_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(auth, "_parse", lambda key: asked.append(key))
    s = int.from_bytes(SIGNATURE[32:], "little") + GROUP_ORDER
    assert not verify(KEY.public_key, STATEMENT, SIGNATURE[:32] + s.to_bytes(32, "little"))
    assert asked == []


@given(st.binary(max_size=70), st.binary(max_size=40), st.binary(max_size=130))
def test_no_bytes_make_verification_raise(public_key, statement, signature):
    assert not verify(public_key, statement, signature)
    assert not verify(KEY.public_key, statement, signature)


@given(st.binary(min_size=32, max_size=32))
def test_no_key_of_the_right_length_makes_verification_raise(public_key):
    assert not verify(public_key, STATEMENT, SIGNATURE)


@given(st.integers(0, 511))
def test_any_flipped_bit_breaks_a_signature(bit):
    changed = bytearray(SIGNATURE)
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify(KEY.public_key, STATEMENT, bytes(changed))


def test_a_signing_key_shows_nothing_of_itself():
    assert KEY.seed().hex() not in repr(KEY)
    assert KEY.public_key.hex()[:16] in repr(KEY)
    with pytest.raises(ConfigurationError):
        pickle.dumps(KEY)


def test_generated_keys_differ_and_come_back_from_their_seeds():
    first, second = SigningKey.generate(), SigningKey.generate()
    assert first.public_key != second.public_key
    assert SigningKey(first.seed()).public_key == first.public_key


def test_a_short_seed_is_refused():
    with pytest.raises(ConfigurationError, match="32 bytes, not 31"):
        SigningKey(bytes(31))


def test_the_verifier_asks_once_for_each_valid_signature():
    verifier = SignatureVerifier()
    claims = [(key.public_key, STATEMENT, key.sign(STATEMENT)) for key in (KEY, OTHER)]
    assert verifier.verify_many(claims) == [True, True]
    assert (verifier.hits, verifier.misses) == (0, 2)
    assert verifier.verify_many(claims) == [True, True]
    assert (verifier.hits, verifier.misses) == (2, 2)


def test_the_verifier_tells_good_claims_from_bad_ones_and_forgets_the_bad():
    verifier = SignatureVerifier()
    good = (KEY.public_key, STATEMENT, SIGNATURE)
    bad = (OTHER.public_key, STATEMENT, SIGNATURE)
    other_statement = (KEY.public_key, b"another", SIGNATURE)
    assert verifier.verify_many([good, bad, other_statement, good]) == [True, False, False, True]
    assert len(verifier) == 1
    assert not verifier.verify(*bad)


def test_what_another_found_valid_costs_nothing():
    verifier = SignatureVerifier()
    verifier.add(KEY.public_key, STATEMENT, SIGNATURE)
    assert verifier.verify(KEY.public_key, bytes(bytearray(STATEMENT)), SIGNATURE)
    assert (verifier.hits, verifier.misses) == (1, 0)


def test_the_verifier_is_bounded_and_keeps_the_newest():
    verifier = SignatureVerifier(capacity=8)
    claims = [(KEY.public_key, b"%d" % number, KEY.sign(b"%d" % number)) for number in range(50)]
    for claim in claims:
        assert verifier.verify(*claim)
        assert len(verifier) <= 8
    before = verifier.misses
    assert verifier.verify_many(claims[-4:]) == [True] * 4
    assert verifier.misses == before
