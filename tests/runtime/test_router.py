"""The router: known answers of FNV-1a, and an even spread over the lanes."""

from hashlib import sha256
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError
from bftkit.runtime.router import ShardRouter, fnv1a_32, lane_of


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0x811C9DC5),
        (b"a", 0xE40C292C),
        (b"b", 0xE70C2DE5),
        (b"foobar", 0xBF9CF968),
        (b"\0", 0x050C5D1F),
    ],
)
def test_known_answers(data, expected):
    assert fnv1a_32(data) == expected


def test_the_high_half_is_folded_into_the_low_half():
    assert lane_of(b"foobar", 1 << 16) == 0xBF9C ^ 0xF968


@given(st.binary(max_size=64), st.sampled_from([1, 2, 8, 64]))
def test_a_proposal_keeps_its_lane(proposal_id, lanes):
    router = ShardRouter(lanes)
    assert router.lane(proposal_id) == router.lane(bytes(proposal_id)) == lane_of(proposal_id, lanes)
    assert 0 <= router.lane(proposal_id) < lanes


@pytest.mark.parametrize("lanes", [0, -8, 3, 12, 1 << 17])
def test_only_powers_of_two_are_lanes(lanes):
    with pytest.raises(ConfigurationError):
        ShardRouter(lanes)


def uuids(count):
    random = Random(1)
    return [UUID(int=random.getrandbits(128), version=4).bytes for _ in range(count)]


IDS = {
    "sequential, big-endian": [number.to_bytes(8, "big") for number in range(8192)],
    "sequential, little-endian": [number.to_bytes(8, "little") for number in range(8192)],
    "sequential, decimal": [b"proposal-%d" % number for number in range(8192)],
    "views and sequences": [b"%c%c" % (view, seq) * 4 for view in range(32) for seq in range(256)],
    "uuids": uuids(8192),
    "digests": [sha256(b"%d" % number).digest() for number in range(8192)],
}

# Upper 0.1 % points of the chi-square distribution with lanes - 1 degrees of freedom.
CRITICAL = {2: 10.83, 8: 24.32, 16: 37.70, 64: 103.44}


@pytest.mark.parametrize("lanes", CRITICAL)
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_ids_spread_evenly(ids, lanes):
    router = ShardRouter(lanes)
    counts = [0] * lanes
    for proposal_id in ids:
        counts[router.lane(proposal_id)] += 1
    expected = len(ids) / lanes
    assert sum((count - expected) ** 2 / expected for count in counts) < CRITICAL[lanes]
