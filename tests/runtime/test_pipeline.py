"""The verify stage: what comes through, and what does not."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from bftkit.core.batch import make_batch
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import CheckpointCertificate
from bftkit.core.ids import canonical
from bftkit.core.inputs import Received
from bftkit.core.statement import Statement, statement_bytes
from bftkit.plugins import load_engine
from bftkit.replica.messages import CheckpointVote, Commits, FetchBodies, Progress, StableCheckpoint
from bftkit.replica.settings import ReplicaSettings
from bftkit.runtime.channel import CONTROL, PROPOSALS, PriorityChannel
from bftkit.runtime.peer_codec import PeerCodec
from bftkit.runtime.pipeline import VerifyPipeline
from bftkit.wire.auth import SignatureVerifier
from bftkit.wire.envelope import decode_envelope, encode_envelope
from bftkit.wire.framing import Frame, FrameType
from tests.replica.parts import KEYS, LIMITS, Note, checkpoint_at, genesis_of, settings_of
from tests.runtime.parts import Hands, frames_of, respelt

pytestmark = pytest.mark.anyio

SPEC = load_engine("pbft")
GENESIS = genesis_of(spec=SPEC)
PBFT = ReplicaSettings(0, SPEC, GENESIS, SPEC.options_type())
CODEC = PeerCodec(PBFT)
MESSAGE = SPEC.messages.__args__


def signature(signer: int, statement: Statement) -> bytes:
    return KEYS[signer].sign(statement_bytes(PBFT.domain, statement))


def vote(signer: int = 2, position: int = 4) -> CheckpointVote:
    unsigned = CheckpointVote(checkpoint_at(position))
    return msgspec.structs.replace(unsigned, signature=signature(signer, unsigned.statement()))


def engine_vote(position: int, signer: int = 2, view: int = 0):
    prepare = next(kind for kind in MESSAGE if kind.__name__ == "Prepare")
    unsigned = prepare(view, position, b"d" * 32)
    return msgspec.structs.replace(unsigned, signature=signature(signer, unsigned.statement()))


def certificate(signers=(0, 1, 2), position: int = 4) -> CheckpointCertificate:
    checkpoint = checkpoint_at(position)
    statement = checkpoint.statement()
    votes = {signer: signature(signer, statement) for signer in signers}
    return CheckpointCertificate(checkpoint, QuorumCertificate.of(statement, votes, 4))


class Stage:
    """A pipeline that runs, and the inbox behind it."""

    def __init__(self, settings=PBFT, lanes: int = 1) -> None:
        self.inbox: PriorityChannel = PriorityChannel((100, 100, 100, 100))
        self.clock = Hands()
        self.verifier = SignatureVerifier()
        self.pipeline = VerifyPipeline(settings, PeerCodec(settings), self.verifier, self.clock, self.inbox, lanes)

    async def through(self, sender: int, *frames: Frame) -> list[Received]:
        """Let frames go through all lanes; return what came out."""
        async with anyio.create_task_group() as tasks:
            self.pipeline.start(tasks)
            await self.pipeline.submit(sender, frames)
            for _ in range(8):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        return self.inbox.receive_nowait()


def frame_of(message, codec: PeerCodec = CODEC) -> Frame:
    (frame,) = frames_of(codec.encode(message).buffers)
    return frame


GOOD = [vote(), engine_vote(1), StableCheckpoint(certificate()), Progress(1, 1, 0), FetchBodies((bytes(32),))]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: type(message).__name__)
async def test_good_messages_are_delivered_with_their_sender_and_time(message):
    stage = Stage()
    assert await stage.through(2, frame_of(message)) == [Received(1000, 2, message)]
    counters = stage.pipeline.counters
    assert (counters.received, counters.rejected, counters.foreign) == (1, 0, 0)


async def test_bodies_are_delivered_with_the_reference_that_their_bytes_give():
    body = make_batch(0, 1, [b"\xc4\x01x"], 1)
    (event,) = await Stage().through(1, frame_of(body))
    assert event.message.ref == body.ref
    assert bytes(event.message.blob) == body.blob


def changed(message, **fields) -> Frame:
    return frame_of(msgspec.structs.replace(message, **fields))


def reenveloped(message, group: int = 0, epoch: int = 0, kind: int | None = None, body: bytes | None = None) -> Frame:
    frame = frame_of(message)
    envelope = decode_envelope(frame.payload)
    whole = bytes(memoryview(envelope.body)) if body is None else body
    kind = envelope.kind if kind is None else kind
    return Frame(frame.type, encode_envelope(group, epoch, envelope.lane_key, kind, whole))


def body_frame(body) -> Frame:
    return frame_of(body)


REJECTED = {
    "forged checkpoint vote": changed(vote(), signature=bytes(64)),
    "vote under another's name": frame_of(vote(signer=3)),
    "forged engine vote": changed(engine_vote(1), signature=bytes(63) + b"\x01"),
    "certificate with a forged part": frame_of(
        StableCheckpoint(
            CheckpointCertificate(
                checkpoint_at(4),
                QuorumCertificate.of(
                    checkpoint_at(4).statement(),
                    {s: signature(s if s < 2 else 3, checkpoint_at(4).statement()) for s in (0, 1, 2)},
                    4,
                ),
            )
        )
    ),
    "certificate of too few": frame_of(StableCheckpoint(certificate((0, 1)))),
    "certificate of a stranger": frame_of(
        StableCheckpoint(
            msgspec.structs.replace(
                certificate(),
                certificate=msgspec.structs.replace(certificate().certificate, bitmap=b"\x13"),
            )
        )
    ),
    "check of the replica": frame_of(Progress(-1, 0, 0)),
    "check of the engine": frame_of(engine_vote(0)),
    "another spelling": reenveloped(vote(), body=respelt(canonical(vote()))),
    "unknown kind": reenveloped(vote(), kind=9),
    "engine message as a replica's": reenveloped(engine_vote(1), kind=1),
    "no message": reenveloped(vote(), body=b"\xc0"),
    "no envelope": Frame(FrameType.VOTE, b"junk"),
    "empty frame": Frame(FrameType.CONTROL, b""),
    "no body": Frame(FrameType.BODY, b"\x00"),
    "body with a bad header": Frame(FrameType.BODY, b"\x00\x01\xc0blob"),
    "body of a stranger": body_frame(make_batch(0, 4, [b"\xc0"], 1)),
    "body without commands": body_frame(msgspec.structs.replace(make_batch(0, 1, [b"\xc0"], 1), blob=b"")),
    "body too large": body_frame(make_batch(0, 1, [b"\xc0" * (LIMITS.max_batch_bytes + 1)], 1)),
}


@pytest.mark.parametrize("frame", REJECTED.values(), ids=REJECTED.keys())
async def test_what_cannot_be_trusted_is_rejected_and_counted_and_the_next_is_taken(frame):
    stage = Stage()
    delivered = await stage.through(2, frame, frame_of(vote()))
    assert [event.message for event in delivered] == [vote()]
    counters = stage.pipeline.counters
    assert (counters.received, counters.rejected) == (2, 1)
    assert counters.last_rejection.startswith("n2: ")
    assert stage.pipeline.rejections == [0, 0, 1, 0]


@pytest.mark.parametrize("where", [{"group": 1}, {"epoch": 1}])
async def test_what_belongs_elsewhere_is_counted_apart_before_it_is_decoded(where):
    stage = Stage()
    assert await stage.through(2, reenveloped(vote(), body=b"\xc1junk"[1:2], **where)) == []
    assert (stage.pipeline.counters.foreign, stage.pipeline.counters.rejected) == (1, 0)


async def test_a_signature_that_was_seen_is_not_verified_again():
    stage = Stage()
    await stage.through(2, frame_of(vote()), frame_of(vote()), frame_of(StableCheckpoint(certificate((1, 2, 3)))))
    assert stage.pipeline.counters.verified == 5
    assert stage.verifier.misses == 3


async def test_a_claim_of_somebody_who_is_no_member_is_rejected():
    spec = msgspec.structs.replace(
        settings_of().spec, claims=lambda sender, message: [(7, Statement("vote", 0, 1, b"d" * 32), bytes(64))]
    )
    settings = settings_of(spec=spec)
    stage = Stage(settings)
    assert await stage.through(2, frame_of(Note("x"), PeerCodec(settings))) == []
    assert "not a member" in stage.pipeline.counters.last_rejection


async def test_large_messages_wait_apart_from_votes():
    stage = Stage()
    body = make_batch(0, 1, [b"\xc4\x01x"], 1)
    await stage.pipeline.submit(1, [frame_of(body), frame_of(engine_vote(1)), frame_of(Commits((), 1))])
    async with anyio.create_task_group() as tasks:
        stage.pipeline.start(tasks)
        for _ in range(8):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    depth = stage.inbox.statistics().depth
    assert (depth[CONTROL], depth[PROPOSALS], depth[3]) == (0, 1, 1), "n1 may not vote for n2; nothing else is lost"


async def test_the_same_proposal_takes_the_same_lane_and_lanes_lose_nothing():
    stage = Stage(lanes=4)
    frames = [frame_of(engine_vote(position, view=view)) for position in range(1, 17) for view in (0, 1)]
    async with anyio.create_task_group() as tasks:
        await stage.pipeline.submit(2, frames)
        depths = [sum(lane.depth) for lane in stage.pipeline.statistics()]
        assert sum(depths) == 32
        assert all(depth % 2 == 0 for depth in depths)
        assert sum(depth > 0 for depth in depths) > 1
        stage.pipeline.start(tasks)
        for _ in range(8):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    delivered = stage.inbox.receive_nowait()
    assert len(delivered) == 32
    assert len({event.message.position for event in delivered}) == 16


async def test_a_full_inbox_holds_the_lane_back_and_loses_nothing():
    stage = Stage()
    frames = [frame_of(engine_vote(position)) for position in range(1, 151)]
    received: list[Received] = []
    async with anyio.create_task_group() as tasks:
        stage.pipeline.start(tasks)
        await stage.pipeline.submit(2, frames)
        with anyio.fail_after(5):
            while len(received) < 150:
                received += await stage.inbox.receive()
        tasks.cancel_scope.cancel()
    assert [event.message.position for event in received] == list(range(1, 151))


@pytest.mark.parametrize(
    ("epoch", "control", "reason"),
    [(PBFT.epoch + 1, False, "of epoch"), (PBFT.epoch, True, "control")],
    ids=["another epoch", "control"],
)
async def test_bodies_of_another_epoch_or_that_claim_control_are_rejected(epoch, control, reason):
    stage = Stage()
    assert await stage.through(2, frame_of(make_batch(epoch, 1, [b"x"], 1, control=control))) == []
    assert reason in stage.pipeline.counters.last_rejection
    assert len(await stage.through(2, frame_of(make_batch(PBFT.epoch, 1, [b"x"], 1)))) == 1
