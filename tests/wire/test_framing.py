"""Frames: what is cut out of a stream, what is refused, and before how much is allocated."""

import re
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import FrameTooLarge, WireError
from bftkit.wire.framing import (
    CAPS,
    CLIENT_FRAMES,
    HANDSHAKE_FRAMES,
    HEADER_BYTES,
    LARGE_PAYLOAD_BYTES,
    PEER_FRAMES,
    Frame,
    FrameDecoder,
    FrameType,
    encode_frame,
    frame_header,
)

TYPES = st.sampled_from(FrameType)


def encoded(frame_type, payload):
    return b"".join(encode_frame(frame_type, payload))


def plain(frames):
    return [(frame.type, bytes(frame.payload)) for frame in frames]


@st.composite
def frame_lists(draw):
    frames = []
    for frame_type in draw(st.lists(TYPES, max_size=8)):
        longest = min(CAPS[frame_type], 300)
        frames.append((frame_type, draw(st.binary(max_size=longest))))
    return frames


def test_header_is_magic_version_type_and_length():
    assert frame_header(FrameType.VOTE, 0x0102) == b"bk\x01\x11\x00\x00\x01\x02"


def test_encoding_copies_no_buffer():
    blob = bytearray(1000)
    header, first, second = encode_frame(FrameType.BODY, b"ab", blob)
    assert header == frame_header(FrameType.BODY, 1002)
    assert (first, second) == (b"ab", blob)
    assert second is blob


def test_every_type_has_a_cap_of_at_most_two_mebibytes():
    assert set(CAPS) == set(FrameType)
    assert all(0 < cap <= 2 * 1024 * 1024 for cap in CAPS.values())


@pytest.mark.parametrize("frame_type", FrameType)
def test_the_cap_itself_passes_and_one_more_does_not(frame_type):
    cap = CAPS[frame_type]
    assert plain(FrameDecoder().feed(encoded(frame_type, bytes(cap)))) == [(frame_type, bytes(cap))]
    with pytest.raises(FrameTooLarge, match=frame_type.name):
        frame_header(frame_type, cap + 1)
    with pytest.raises(FrameTooLarge, match=frame_type.name):
        FrameDecoder().feed(b"bk\x01" + bytes([frame_type]) + (cap + 1).to_bytes(4))


@given(frame_lists(), st.data())
def test_any_chunking_gives_the_same_frames(frames, data):
    stream = b"".join(encoded(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = FrameDecoder()
    received = []
    for start, end in pairwise([0, *cuts, len(stream)]):
        received += decoder.feed(stream[start:end])
    assert plain(received) == frames
    assert not decoder.in_frame
    assert decoder.pending_bytes == 0


@given(frame_lists())
def test_byte_by_byte_gives_the_same_frames(frames):
    decoder = FrameDecoder()
    received = []
    for byte in b"".join(encoded(*frame) for frame in frames):
        received += decoder.feed(bytes([byte]))
    assert plain(received) == frames


@given(st.lists(st.binary(max_size=40), max_size=5), st.booleans())
def test_random_bytes_raise_nothing_but_wire_errors(chunks, with_header):
    decoder = FrameDecoder()
    try:
        for chunk in chunks:
            decoder.feed(b"bk\x01" + chunk if with_header else chunk)
    except WireError:
        with pytest.raises(WireError):
            decoder.feed(b"")


@pytest.mark.parametrize("piece", [1000, 65_536, 999_983])
def test_a_large_frame_comes_in_pieces_and_the_next_frame_follows(piece):
    payload = bytes(range(256)) * 4096
    stream = encoded(FrameType.PING, b"before") + encoded(FrameType.BODY, payload) + encoded(FrameType.PONG, b"after")
    decoder = FrameDecoder()
    frames = [frame for at in range(0, len(stream), piece) for frame in decoder.feed(stream[at : at + piece])]
    assert plain(frames) == [(FrameType.PING, b"before"), (FrameType.BODY, payload), (FrameType.PONG, b"after")]
    assert isinstance(frames[1].payload, memoryview)
    assert frames[1].payload.readonly


def test_a_large_frame_is_gathered_in_one_buffer_of_its_size():
    size = 1024 * 1024
    stream = encoded(FrameType.BODY, bytes(size))
    chunks = [stream[at : at + 16_384] for at in range(0, len(stream), 16_384)]
    decoder = FrameDecoder()
    tracemalloc.start()
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(frames) == 1
    assert peak < size + 128 * 1024


@pytest.mark.parametrize("cut", range(1, HEADER_BYTES + 1))
def test_four_gibibytes_are_refused_before_any_allocation(cut):
    header = b"bk\x01\x13\xff\xff\xff\xff"
    decoder = FrameDecoder()
    decoder.feed(header[: cut - 1])
    tracemalloc.start()
    with pytest.raises(FrameTooLarge, match="BODY frame of 4294967295 bytes"):
        decoder.feed(header[cut - 1 :])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"GET / HT", "not a bftkit frame"),
        (b"bk\x02\x11\x00\x00\x00\x00", "frame version 2"),
        (b"bk\x01\x63\x00\x00\x00\x00", "unknown frame type 99"),
    ],
)
@pytest.mark.parametrize("cut", [0, 3])
def test_foreign_headers_are_refused_with_the_reason(header, reason, cut):
    decoder = FrameDecoder()
    decoder.feed(header[:cut])
    with pytest.raises(WireError, match=reason):
        decoder.feed(header[cut:])


def test_after_an_error_the_decoder_stays_dead():
    decoder = FrameDecoder()
    with pytest.raises(WireError):
        decoder.feed(b"x" * 8)
    with pytest.raises(WireError, match="not a bftkit frame"):
        decoder.feed(encoded(FrameType.PING, b""))


def test_types_outside_the_role_are_refused():
    assert plain(FrameDecoder(CLIENT_FRAMES).feed(encoded(FrameType.REQUEST, b"r"))) == [(FrameType.REQUEST, b"r")]
    with pytest.raises(WireError, match="a VOTE frame is not accepted here"):
        FrameDecoder(CLIENT_FRAMES).feed(encoded(FrameType.VOTE, b"v"))


@pytest.mark.parametrize("cut", [0, 5, 12, 20])
def test_what_follows_the_proof_waits_for_the_role(cut):
    stream = encoded(FrameType.PROOF, b"proof") + encoded(FrameType.VOTE, b"vote") + encoded(FrameType.VOTE, b"next")
    decoder = FrameDecoder(HANDSHAKE_FRAMES)
    early = decoder.feed(stream[:cut]) + decoder.feed(stream[cut:])
    assert plain(early) == [(FrameType.PROOF, b"proof")]
    assert decoder.pending_bytes == len(stream) - HEADER_BYTES - 5
    assert plain(decoder.accept(PEER_FRAMES)) == [(FrameType.VOTE, b"vote"), (FrameType.VOTE, b"next")]
    assert plain(decoder.feed(encoded(FrameType.PROOF, b"")[:0])) == []


def test_a_stranger_gets_no_large_buffer():
    decoder = FrameDecoder(HANDSHAKE_FRAMES)
    with pytest.raises(WireError, match="a BULK frame is not accepted here"):
        decoder.feed(frame_header(FrameType.BULK, 2 * 1024 * 1024))


def test_little_is_held_behind_an_unfinished_handshake():
    decoder = FrameDecoder(HANDSHAKE_FRAMES)
    decoder.feed(encoded(FrameType.PROOF, b"") + b"x")
    with pytest.raises(FrameTooLarge):
        decoder.feed(bytes(256 * 1024))


def test_the_open_frame_is_reported():
    decoder = FrameDecoder()
    assert not decoder.in_frame
    decoder.feed(b"bk\x01")
    assert (decoder.in_frame, decoder.pending_bytes) == (True, 3)
    decoder.feed(b"\x11\x00\x00\x00\x04ab")
    assert (decoder.in_frame, decoder.pending_bytes) == (True, 10)
    assert plain(decoder.feed(b"cd")) == [(FrameType.VOTE, b"abcd")]
    assert (decoder.in_frame, decoder.pending_bytes) == (False, 0)


@pytest.mark.parametrize("length", [10, LARGE_PAYLOAD_BYTES + 1])
def test_a_buffer_that_the_caller_reuses_does_not_change_what_was_handed_out(length):
    reused = bytearray(encoded(FrameType.BODY, b"a" * length))
    (frame,) = FrameDecoder().feed(memoryview(reused))
    reused[:] = bytes(len(reused))
    assert frame == Frame(FrameType.BODY, b"a" * length)


def test_the_documented_caps_are_the_caps():
    page = Path(__file__).parents[2] / "docs" / "protocols" / "wire.md"
    units = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
    documented: dict[tuple[str, int], int] = {}
    for names, numbers, cap in re.findall(
        r"^\| ([A-Z_, ]+) \| ([\d, ]+) \| ([^|]*B) \|", page.read_text(), re.MULTILINE
    ):
        size = sum(int(amount) * units[unit] for amount, unit in re.findall(r"(\d+) (\w+)", cap))
        documented |= dict.fromkeys(zip(names.split(", "), map(int, numbers.split(", ")), strict=True), size)
    assert documented == {(frame_type.name, frame_type.value): cap for frame_type, cap in CAPS.items()}
