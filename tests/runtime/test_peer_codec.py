"""Messages between replicas as frames."""

from __future__ import annotations

import pytest

from bftkit.core.batch import BatchRef, make_batch
from bftkit.core.checkpoint import Checkpoint
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.replica.messages import CheckpointVote, Commits, FetchBodies, OfferBodies, SnapshotChunk
from bftkit.replica.settings import ReplicaTuning
from bftkit.runtime.channel import BULK, CONTROL, PROPOSALS
from bftkit.runtime.peer_codec import ENGINE_KIND, REPLICA_KIND, PeerCodec
from bftkit.wire.envelope import decode_body, decode_envelope
from bftkit.wire.framing import FrameType
from tests.replica.parts import Note, settings_of
from tests.runtime.parts import frames_of

SETTINGS = settings_of()
CODEC = PeerCodec(SETTINGS)
LARGEST_REFS = (BatchRef(b"d" * 32, 2**31, 2**31, 2**31),) * 512


@pytest.mark.parametrize(
    ("message", "kind", "priority", "codec"),
    [
        (Note("x"), FrameType.VOTE, CONTROL, ENGINE_KIND),
        (Note("x" * 70_000), FrameType.PROPOSAL, PROPOSALS, ENGINE_KIND),
        (CheckpointVote(Checkpoint(4, 4, *[bytes(32)] * 3), bytes(64)), FrameType.CONTROL, CONTROL, REPLICA_KIND),
        (FetchBodies((bytes(32),) * 512), FrameType.CONTROL, CONTROL, REPLICA_KIND),
        (OfferBodies(LARGEST_REFS), FrameType.CONTROL, CONTROL, REPLICA_KIND),
        (Commits((CommitEntry(1, (), CommitProof()),), 1), FrameType.BULK, BULK, REPLICA_KIND),
        (SnapshotChunk(1, 10**7, 0, b"x" * ReplicaTuning().snapshot_chunk_bytes), FrameType.BULK, BULK, REPLICA_KIND),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_message_takes_the_frame_of_its_kind_and_comes_back(message, kind, priority, codec):
    encoded = CODEC.encode(message)
    assert encoded.priority == priority
    (frame,) = frames_of(encoded.buffers)
    assert frame.type == kind
    envelope = decode_envelope(frame.payload)
    assert (envelope.group, envelope.epoch, envelope.kind) == (0, 0, codec)
    half = CODEC.engine if codec == ENGINE_KIND else CODEC.replica
    assert half.decode(memoryview(envelope.body)) == message


def test_a_body_travels_as_it_is():
    body = make_batch(0, 1, [b"\xc4\x01x"], 1)
    for encoded in (CODEC.encode(body), CODEC.encode_body(body.header, memoryview(body.blob))):
        (frame,) = frames_of(encoded.buffers)
        assert (frame.type, encoded.priority) == (FrameType.BODY, PROPOSALS)
        header, blob = decode_body(frame.payload)
        assert (header, bytes(blob)) == (body.header, body.blob)


def test_the_blob_of_a_body_is_not_copied():
    blob = memoryview(bytes(1000))
    assert any(isinstance(b, memoryview) and b.obj is blob.obj for b in CODEC.encode_body(b"header", blob).buffers)
