"""Envelopes and bodies: routed without being decoded, copied or trusted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import MalformedMessage
from bftkit.wire.envelope import (
    BODY_HEADER_BYTES,
    LANE_KEY_BYTES,
    decode_body,
    decode_envelope,
    encode_body,
    encode_envelope,
)
from bftkit.wire.framing import CAPS, FrameType

BODIES = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=30), st.text(max_size=10)),
    lambda items: st.lists(items, max_size=4),
    max_leaves=10,
).map(msgspec.msgpack.encode)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63 - 1),
    st.binary(max_size=LANE_KEY_BYTES),
    st.integers(0, 255),
    BODIES,
)
def test_envelope_round_trip(group, epoch, lane_key, kind, body):
    payload = encode_envelope(group, epoch, lane_key, kind, body)
    for form in (payload, memoryview(payload), bytearray(payload)):
        envelope = decode_envelope(form)
        assert (envelope.group, envelope.epoch, envelope.lane_key, envelope.kind) == (group, epoch, lane_key, kind)
        assert bytes(envelope.body) == body


@given(st.binary(max_size=120))
def test_random_bytes_are_malformed_or_canonical(data):
    try:
        envelope = decode_envelope(data)
    except MalformedMessage:
        return
    again = encode_envelope(envelope.group, envelope.epoch, envelope.lane_key, envelope.kind, bytes(envelope.body))
    assert again == data


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x95\xcc\x01\x01\xc4\x00\x01\x01", id="group in two bytes"),
        pytest.param(b"\x95\xff\x01\xc4\x00\x01\x01", id="negative group"),
        pytest.param(b"\x95\x01\xcf" + b"\xff" * 8 + b"\xc4\x00\x01\x01", id="epoch of 2**64 - 1"),
        pytest.param(b"\x95\x01\x01\xc4\x21" + bytes(33) + b"\x01\x01", id="lane key of 33 bytes"),
        pytest.param(b"\x95\x01\x01\xc4\x00\xcd\x01\x00\x01", id="kind 256"),
        pytest.param(b"\x94\x01\x01\xc4\x00\x01", id="no body"),
        pytest.param(b"\x96\x01\x01\xc4\x00\x01\x01\x01", id="field too many"),
        pytest.param(b"\x95\x01\x01\xc4\x00\x01\x01\x01", id="trailing byte"),
        pytest.param(b"\x95\x01\x01\xc4\x00\x01" + b"\x91" * 50_000, id="deep body"),
    ],
)
def test_bad_envelopes_are_refused(payload):
    with pytest.raises(MalformedMessage):
        decode_envelope(payload)


def test_the_body_is_a_view_and_not_decoded():
    payload = encode_envelope(0, 1, b"key", 2, msgspec.msgpack.encode({"any": [1.5]}))
    assert decode_envelope(payload).lane_key == b"key"


@given(st.binary(max_size=BODY_HEADER_BYTES), st.binary(max_size=200))
def test_body_round_trip(header, blob):
    buffers = encode_body(header, blob)
    assert buffers[-1] is blob
    assert decode_body(b"".join(buffers)) == (header, blob)


def test_the_blob_is_a_view_of_the_payload():
    payload = b"".join(encode_body(b"header", bytes(1000)))
    _, blob = decode_body(memoryview(payload))
    assert blob.obj is payload


def test_a_mebibyte_of_blob_fits_beside_the_longest_header():
    assert sum(map(len, encode_body(bytes(BODY_HEADER_BYTES), bytes(1024 * 1024)))) == CAPS[FrameType.BODY]


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x02a", b"\xff\xff" + bytes(65_536)])
def test_bodies_shorter_than_they_say_are_refused(payload):
    with pytest.raises(MalformedMessage):
        decode_body(payload)


def test_too_long_a_header_is_refused_at_the_sender():
    with pytest.raises(MalformedMessage, match="body header"):
        encode_body(bytes(BODY_HEADER_BYTES + 1), b"")
