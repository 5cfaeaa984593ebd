"""The record's header: what it carries and what it notices."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bftkit.storage.record import HEADER_BYTES, RecordCodec, RecordHeader, digest_of

CODEC = RecordCodec(bytes(range(16)))
NUMBERS = st.integers(0, 2**64 - 1)


@given(st.integers(0, 255), NUMBERS, NUMBERS, NUMBERS, st.binary(min_size=16, max_size=16), st.binary(max_size=300))
def test_a_header_comes_back_as_it_was_encoded(kind, epoch, index, durable, previous, payload):
    digest = hashlib.sha256(payload).digest()
    data, check = CODEC.encode_header(kind, epoch, index, durable, previous, len(payload), digest)
    assert len(data) == HEADER_BYTES
    header = CODEC.decode_header(b"??" + data, 2)
    assert header == RecordHeader(len(payload), kind, epoch, index, durable, previous, check)
    assert CODEC.verify(header, digest)
    assert not CODEC.verify(header, hashlib.sha256(payload + b"!").digest())


def test_every_flipped_bit_of_a_header_shows():
    data, _ = CODEC.encode_header(1, 2, 3, 2, bytes(16), 5, hashlib.sha256(b"12345").digest())
    for bit in range(8 * HEADER_BYTES):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert CODEC.decode_header(bytes(damaged)) is None
    assert CODEC.decode_header(data[:-1]) is None


def test_another_salt_does_not_recognise_it():
    digest = hashlib.sha256(b"").digest()
    data, _ = CODEC.encode_header(1, 2, 3, 2, bytes(16), 0, digest)
    header = CODEC.decode_header(data)
    assert header is not None
    other = RecordCodec(bytes(16))
    assert other.decode_header(data) is None
    assert not other.verify(header, digest)


@given(st.lists(st.binary(max_size=50)))
def test_the_digest_of_buffers_is_that_of_their_concatenation(parts):
    assert digest_of(parts) == hashlib.sha256(b"".join(parts)).digest()
