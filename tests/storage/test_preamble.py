"""The first bytes of every file."""

import pytest

from bftkit.errors import UnsupportedFormat
from bftkit.storage.preamble import PREAMBLE_BYTES, check_preamble, encode_preamble

MAGIC = b"bfttest\0"


def test_its_own_version_is_recognised():
    data = encode_preamble(MAGIC, 3)
    assert len(data) == PREAMBLE_BYTES
    assert check_preamble(data + b"more", MAGIC, 3, "file")


def test_other_versions_and_kinds_are_refused_by_name():
    with pytest.raises(UnsupportedFormat, match="newer"):
        check_preamble(encode_preamble(MAGIC, 4), MAGIC, 3, "file")
    with pytest.raises(UnsupportedFormat, match="older"):
        check_preamble(encode_preamble(MAGIC, 2), MAGIC, 3, "file")
    with pytest.raises(UnsupportedFormat, match="kind"):
        check_preamble(encode_preamble(b"12345678", 3), MAGIC, 3, "file")


def test_damage_is_never_taken_for_another_version():
    data = encode_preamble(MAGIC, 3)
    for bit in range(8 * PREAMBLE_BYTES):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not check_preamble(bytes(damaged), MAGIC, 3, "file")
    assert not check_preamble(data[:-1], MAGIC, 3, "file")
