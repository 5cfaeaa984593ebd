"""Batches of commands: opaque bytes, named by their digest.

A batch body is a header followed by a blob. The header says who made it and how many commands it
holds; the blob is a msgpack array of client envelopes that nobody opens before execution. The digest
covers both, so a reference cannot lie about a body that somebody holds.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from bftkit.core.ids import DIGEST_BYTES, ReplicaIndex, canonical


class BatchRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The name of a batch: what engines order."""

    digest: bytes
    """SHA-256 over header and blob, 32 bytes."""
    origin: ReplicaIndex
    """Who made it; it counts against his quota."""
    count: int
    """How many commands it says it holds."""
    size: int
    """Length of the blob in bytes."""
    control: bool = False
    """Whether it is a single control command, which the replica itself interprets."""


class BatchHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What stands before the blob."""

    epoch: int
    """The epoch whose membership `origin` is an index into."""
    origin: ReplicaIndex
    count: int
    control: bool = False
    number: int = 0
    """The origin's own, different for each of its batches: the same commands sent again are another batch."""


class BatchBody(msgspec.Struct, frozen=True, gc=False):
    """A whole batch as it travels and is stored."""

    ref: BatchRef
    header: bytes
    """Canonical encoding of `BatchHeader`."""
    blob: bytes | memoryview
    """Msgpack array of envelopes."""


class CommittedBatch(msgspec.Struct, frozen=True, gc=False):
    """What a state machine applies: commands with their place in the one order."""

    epoch: int
    height: int
    """Global count of executed batches, from 1."""
    commands: list[bytes]


_header_decoder = msgspec.msgpack.Decoder(BatchHeader)


def batch_digest(header: bytes, blob: bytes | memoryview) -> bytes:
    """Hash a body, without copying its blob."""
    state = sha256(header)
    state.update(blob)
    return state.digest()


def make_batch(
    epoch: int, origin: ReplicaIndex, envelopes: Sequence[bytes], count: int, *, control: bool = False, number: int = 0
) -> BatchBody:
    """Join encoded envelopes with `count` commands in all to one body."""
    header = canonical(BatchHeader(epoch, origin, count, control, number))
    blob = array_header(len(envelopes)) + b"".join(envelopes)
    return BatchBody(BatchRef(batch_digest(header, blob), origin, count, len(blob), control), header, blob)


def open_body(header: bytes, blob: bytes | memoryview) -> BatchBody:
    """Hash and name a body that came from outside; ValueError where its header is not canonical or absurd."""
    try:
        parsed = _header_decoder.decode(header)
    except msgspec.DecodeError as error:
        raise ValueError(f"batch header: {error}") from error
    if canonical(parsed) != header:
        raise ValueError("batch header is not in canonical form")
    if parsed.origin < 0 or parsed.count < 1 or parsed.epoch < 0 or parsed.number < 0:
        raise ValueError("batch header is out of range")
    ref = BatchRef(batch_digest(header, blob), parsed.origin, parsed.count, len(blob), parsed.control)
    return BatchBody(ref, header, blob)


def array_header(length: int) -> bytes:
    """Return the msgpack header of an array."""
    if length < 16:
        return bytes((0x90 | length,))
    if length < 65536:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def ref_problem(ref: BatchRef, members: int, max_bytes: int) -> str | None:
    """Say what is wrong with a reference that a peer sent, or None."""
    if len(ref.digest) != DIGEST_BYTES:
        return "a batch digest has the wrong length"
    if not 0 <= ref.origin < members:
        return "a batch names an origin that is no member"
    if ref.count < 1 or not 0 < ref.size <= max_bytes:
        return "a batch is empty or too large"
    return None


def refs_problem(what: str, refs: Sequence[BatchRef], most: int, members: int, max_bytes: int) -> str | None:
    """Say what is wrong with the references of a peer's message, or None: `most` of them at most, no two alike.

    `what` names the message in the answer: "a proposal".
    """
    if len(refs) > most:
        return f"{what} names too many batches"
    if len(refs) > 1 and len({ref.digest for ref in refs}) != len(refs):
        return f"{what} names a batch twice"
    for ref in refs:
        problem = ref_problem(ref, members, max_bytes)
        if problem is not None:
            return problem
    return None
