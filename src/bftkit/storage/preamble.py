"""The first sixteen bytes of every file, frozen for all versions to come.

They say what the file is and in which version of its format, under a checksum of their own, so that an older library
recognises newer data as such and never misreads it, and never takes a damaged version number for a newer one.
"""

import struct
import zlib

from bftkit.errors import UnsupportedFormat

_PREAMBLE = struct.Struct(">8sHHI")

PREAMBLE_BYTES = _PREAMBLE.size
"""Magic (8), version (2), zero (2), CRC-32 of these twelve (4)."""


def encode_preamble(magic: bytes, version: int) -> bytes:
    """Return the preamble for a file of the kind `magic` (eight bytes)."""
    head = _PREAMBLE.pack(magic, version, 0, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "big")


def check_preamble(data: bytes, magic: bytes, version: int, path: str) -> bool:
    """Say whether `data` starts as a file of this kind and version does; False means damaged.

    Raises `UnsupportedFormat` when the preamble is intact and names another version or kind.
    """
    if len(data) < PREAMBLE_BYTES:
        return False
    found_magic, found_version, _, checksum = _PREAMBLE.unpack_from(data)
    if checksum != zlib.crc32(data[: PREAMBLE_BYTES - 4]):
        return False
    if found_magic != magic:
        raise UnsupportedFormat(f"{path} is a file of the kind {found_magic!r}, not {magic!r}", path)
    if found_version != version:
        age = "newer" if found_version > version else "older"
        raise UnsupportedFormat(
            f"{path} has format {found_version} of {magic.decode()}, {age} than the {version} that this version reads",
            path,
        )
    return True
