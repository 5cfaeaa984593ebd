"""Frames, encodings and who is at the other end, broken on purpose."""

from typing import Any

from bftkit.errors import MalformedMessage, WireError
from bftkit.replica.messages import FetchCommits
from bftkit.testing.mutants import Check, Mutant, doing_nothing
from bftkit.wire.auth import SigningKey, public_key_fault
from bftkit.wire.codec import Codec
from bftkit.wire.framing import FrameDecoder, FrameType, frame_header
from bftkit.wire.handshake import ChannelIdentity, Handshake, LocalIdentity


def _look_at_long_frames() -> str | None:
    """A vote that announces 64 MiB is refused before anything is kept for it."""
    header = bytearray(frame_header(FrameType.VOTE, 1))
    header[-4:] = (1 << 26).to_bytes(4, "big")
    decoder = FrameDecoder()
    try:
        decoder.feed(bytes(header))
    except WireError:
        return None
    return f"a header that announces 64 MiB is taken; {decoder.pending_bytes} bytes are held"


_KEYS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("n0", "n1", "stranger"), 1)}
_MEMBERS = {name: _KEYS[name].public_key for name in ("n0", "n1")}


def _digest(name: str) -> bytes:
    return name.encode().ljust(32, b"-")


def _any_encoding(original: Any) -> Any:
    return lambda self, data: self._decode(data)


def _look_at_second_encodings() -> str | None:
    """A message has one encoding: a number that is written longer than it needs to be is refused."""
    codec: Codec[FetchCommits] = Codec(FetchCommits)
    data = codec.encode(FetchCommits(1))
    longer = data[:-1] + b"\xcc" + data[-1:]
    try:
        message = codec.decode(longer)
    except MalformedMessage:
        return None
    return f"{longer.hex()} and {data.hex()} are both {message}"


def _shake_hands(claimed: str, signed_with: str, certificate: str) -> Handshake:
    """Let somebody dial n1 under a name, with the key and over the connection of whomever; return n1's side."""

    def identity(name: str, key: str) -> LocalIdentity:
        return LocalIdentity("c", "peer", name, _KEYS[key], name.encode().ljust(32), certificate_digest=_digest(name))

    here, there = (
        Handshake(own, initiator=dials, members=_MEMBERS, channel=ChannelIdentity("node", other, _digest(other)))
        for own, dials, other in (
            (identity("n1", "n1"), False, certificate),
            (identity(claimed, signed_with), True, "n1"),
        )
    )
    waiting = [(here, data) for data in there.start()]
    while waiting:
        side, data = waiting.pop(0)
        (frame,) = FrameDecoder().feed(data)
        waiting += [(there if side is here else here, answer) for answer in side.receive(frame)]
    return here


def _look_at_strangers() -> str | None:
    """Whoever calls himself a member must have that member's key."""
    side = _shake_hands("n0", "stranger", "n0")
    return f"another key is taken for {side.result.name}'s" if side.failure is None else None


def _look_at_borrowed_names() -> str | None:
    """Whoever speaks over a connection is the one whose certificate made it."""
    side = _shake_hands("n0", "n0", "stranger")
    return f"a stranger's connection is taken for {side.result.name}'s" if side.failure is None else None


def _look_at_small_keys() -> str | None:
    """A key of small order, under which one signature fits many statements, is refused."""
    return None if public_key_fault((1).to_bytes(32, "little")) else "the neutral point may be registered as a key"


MUTANTS = (
    Mutant(
        "wire: the length of a frame is not looked at",
        "A header may announce more than its type allows.",
        "bftkit.wire.framing:_kinds_of",
        lambda original: lambda accepted: {word: (kind, 1 << 40) for word, (kind, _) in original(accepted).items()},
        (Check(_look_at_long_frames),),
    ),
    Mutant(
        "wire: any encoding is taken",
        "A message may be encoded in two ways, so that replicas may differ on what was said.",
        "bftkit.wire.codec:Codec.decode",
        _any_encoding,
        (Check(_look_at_second_encodings),),
    ),
    Mutant(
        "handshake: keys are not compared",
        "Any key may speak for a member.",
        "bftkit.wire.handshake:Handshake._check_member",
        doing_nothing,
        (Check(_look_at_strangers),),
    ),
    Mutant(
        "handshake: the certificate is not compared",
        "The consensus key is not bound to the connection over which it is shown.",
        "bftkit.wire.handshake:Handshake._check_channel",
        doing_nothing,
        (Check(_look_at_borrowed_names),),
    ),
    Mutant(
        "auth: any key may be registered",
        "Keys of small order are taken (Chalkias et al., 2020).",
        "bftkit.wire.auth:public_key_fault",
        doing_nothing,
        (Check(_look_at_small_keys),),
    ),
)
"""All of them."""
