"""Walking through a segment and judging what is found there."""

import hashlib
import random

import pytest

from bftkit.errors import CorruptLog, StorageError
from bftkit.storage.record import HEADER_BYTES, RecordCodec
from bftkit.storage.segment import (
    SEGMENT_HEADER_BYTES,
    WINDOW_BYTES,
    SegmentHeader,
    SegmentReader,
    chain_start,
    encode_segment_header,
    list_segments,
    read_segment_header,
    segment_name,
)
from bftkit.testing.disk import SimulatedDisk

IDENTITY = bytes(range(32))
SALT = bytes(range(16))
CODEC = RecordCodec(SALT)


def record(index, previous, payload=b"payload", durable=0):
    header, check = CODEC.encode_header(1, 2, index, durable, previous, len(payload), hashlib.sha256(payload).digest())
    return header + payload, check


def segment(disk, *records, first_index=1):
    header = SegmentHeader(IDENTITY, SALT, first_index, chain_start(IDENTITY))
    disk.open_append(segment_name(first_index)).write((encode_segment_header(header), *records))


@pytest.fixture
def disk():
    return SimulatedDisk(random.Random(1))


def test_a_walk_yields_the_chain_of_records(disk):
    payloads = [b"", b"x" * 1000, b"y" * (WINDOW_BYTES - 10), b"z" * (3 * WINDOW_BYTES), b"end"]
    previous, parts = chain_start(IDENTITY), []
    for index, payload in enumerate(payloads, 1):
        data, previous = record(index, previous, payload)
        parts.append(data)
    segment(disk, *parts)
    reader = SegmentReader(disk, "", 1, IDENTITY)
    assert [scanned.payload for scanned in reader.walk()] == payloads
    assert (reader.fault, reader.end, reader.next_index, reader.chain) == ("", reader.size, 6, previous)
    lazy = SegmentReader(disk, "", 1, IDENTITY)
    assert [scanned.payload for scanned in lazy.walk(payloads=False)] == [None] * 5
    assert lazy.chain == previous


def test_a_record_of_another_history_is_not_accepted(disk):
    """It is intact and has the right index; what it follows from is not what is there."""
    first, check = record(1, chain_start(IDENTITY))
    _, other_check = record(1, chain_start(IDENTITY), b"another")
    good, _ = record(2, check)
    stale, _ = record(2, other_check)
    segment(disk, first, stale, good)
    reader = SegmentReader(disk, "", 1, IDENTITY)
    assert [scanned.header.index for scanned in reader.walk()] == [1]
    assert reader.fault == "it does not follow from the record before it"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: data[:5], "its header is damaged"),
        (lambda data: data[:-1], "it is cut short"),
        (lambda data: data[:-1] + b"?", "its payload is damaged"),
        (lambda data: bytes(len(data)), "its header is damaged"),
    ],
)
def test_a_walk_says_why_it_stopped(disk, damage, fault):
    first, check = record(1, chain_start(IDENTITY))
    second, _ = record(2, check)
    segment(disk, first, damage(second))
    reader = SegmentReader(disk, "", 1, IDENTITY)
    assert len(list(reader.walk())) == 1
    assert reader.fault == fault
    assert reader.end == SEGMENT_HEADER_BYTES + len(first)


@pytest.mark.parametrize("gap", [0, 1, WINDOW_BYTES - 40, WINDOW_BYTES, 2 * WINDOW_BYTES - HEADER_BYTES])
def test_a_later_header_proves_what_was_durable_wherever_it_lies(disk, gap):
    later, _ = record(9, bytes(16), durable=5)
    segment(disk, b"?" * gap, later[:HEADER_BYTES])
    reader = SegmentReader(disk, "", 1, IDENTITY)
    assert list(reader.walk()) == []
    proof = reader.find_proof(5)
    assert proof is not None
    assert (proof.index, proof.durable) == (9, 5)
    assert reader.find_proof(6) is None, "it says nothing about what was not durable"


def test_an_earlier_record_proves_nothing(disk):
    stale, _ = record(3, bytes(16), durable=2)
    segment(disk, b"?", stale)
    assert SegmentReader(disk, "", 1, IDENTITY).find_proof(3) is None


def test_a_header_binds_the_segment_to_its_node_and_place(disk):
    segment(disk, first_index=5)
    assert read_segment_header(disk, segment_name(5), IDENTITY).first_index == 5
    with pytest.raises(StorageError, match="another node or cluster"):
        read_segment_header(disk, segment_name(5), bytes(32))
    disk.rename(segment_name(5), segment_name(6))
    with pytest.raises(CorruptLog, match="says that it starts at index 5"):
        SegmentReader(disk, "", 6, IDENTITY)
    disk.flip_bit(segment_name(6))
    with pytest.raises(CorruptLog, match="damaged"):
        read_segment_header(disk, segment_name(6), IDENTITY)


def test_segments_are_listed_by_number_and_other_files_ignored(disk):
    for name in (segment_name(100), segment_name(9), "mark.0", "x.log", segment_name(7) + ".temporary"):
        disk.open_append(name)
    assert list_segments(disk, "") == [9, 100]
