"""Codecs: one encoding for each message, and one exception for everything else."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError, MalformedMessage
from bftkit.wire.codec import Codec


class Vote(msgspec.Struct, array_like=True, tag="vote", frozen=True, gc=False, forbid_unknown_fields=True):
    view: int
    digest: bytes
    name: str = ""


class Tree(msgspec.Struct, array_like=True, tag="tree", frozen=True, forbid_unknown_fields=True):
    children: tuple["Tree", ...] = ()
    names: dict[str, int] = {}
    ids: frozenset[int] = frozenset()


CODEC: Codec[Vote | Tree] = Codec(Vote | Tree)
SMALL_INTS = st.integers(-(2**63), 2**64 - 1)
VOTES = st.builds(Vote, SMALL_INTS, st.binary(max_size=80), st.text(max_size=20))
TREES = st.recursive(
    st.builds(
        Tree, st.just(()), st.dictionaries(st.text(max_size=3), SMALL_INTS, max_size=3), st.frozensets(SMALL_INTS)
    ),
    lambda children: st.builds(Tree, st.lists(children, max_size=3).map(tuple)),
    max_leaves=6,
)


@given(st.one_of(VOTES, TREES))
def test_round_trip(message):
    data = CODEC.encode(message)
    assert CODEC.decode(data) == message
    assert CODEC.decode(memoryview(data)) == message
    assert CODEC.decode(bytearray(data)) == message


@given(st.binary(max_size=200))
def test_random_bytes_raise_one_exception_or_are_canonical(data):
    try:
        message = CODEC.decode(data)
    except MalformedMessage:
        return
    assert CODEC.encode(message) == data


@given(st.one_of(VOTES, TREES), st.data())
def test_changed_messages_raise_one_exception_or_are_another_message(message, data):
    encoded = bytearray(CODEC.encode(message))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        other = CODEC.decode(encoded)
    except MalformedMessage:
        return
    assert other != message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x94\xa4vote\x01\xc4\x01a\xa0\x00", id="trailing byte"),
        pytest.param(b"\x94\xa4vote\xcc\x01\xc4\x01a\xa0", id="int in two bytes"),
        pytest.param(b"\x94\xa4vote\xd3" + bytes(7) + b"\x01\xc4\x01a\xa0", id="int in eight bytes"),
        pytest.param(b"\x94\xa4vote\x01\xc5\x00\x01a\xa0", id="bytes with a long length"),
        pytest.param(b"\xdc\x00\x04\xa4vote\x01\xc4\x01a\xa0", id="array with a long length"),
        pytest.param(b"\x94\xd9\x04vote\x01\xc4\x01a\xa0", id="tag with a long length"),
        pytest.param(b"\x93\xa4vote\x01\xc4\x01a", id="default left out"),
        pytest.param(b"\x95\xa4vote\x01\xc4\x01a\xa0\x01", id="field too many"),
        pytest.param(b"\x94\xa4vote\x01\xc4\x01a\xa2\xff\xfe", id="not UTF-8"),
        pytest.param(b"\x94\xa4vote\x01\xa1a\xa0", id="text for bytes"),
        pytest.param(b"\x94\xa4vote\xcb\x7f\xf8" + bytes(6) + b"\xc4\x01a\xa0", id="NaN for an int"),
        pytest.param(b"\x94\xa4vote\xca\x7f\xc0\x00\x00\xc4\x01a\xa0", id="short NaN for an int"),
        pytest.param(b"\x94\xa4vote\xcb\x3f\xf0" + bytes(6) + b"\xc4\x01a\xa0", id="float for an int"),
        pytest.param(b"\x94\xa4vote\xc7\x09\x01" + b"\xff" * 9 + b"\xc4\x01a\xa0", id="extension for an int"),
        pytest.param(b"\x94\xa4vote\x01\xc6\xff\xff\xff\xff", id="four gibibytes announced"),
        pytest.param(b"\x94\xa4tree\xdd\xff\xff\xff\xff\x80\x90", id="four billion items announced"),
        pytest.param(b"\x94\xa4tree\x90\x82\xa1a\x01\xa1a\x01\x90", id="duplicate map key"),
        pytest.param(b"\x94\xa4tree\x90\x82\xa1b\x01\xa1a\x01\x90", id="map keys out of order"),
        pytest.param(b"\x94\xa4tree\x90\x80\x92\x02\x01", id="set out of order"),
        pytest.param(b"\x94\xa4tree\x90\x80\x92\x01\x01", id="set with a duplicate"),
        pytest.param(b"\x94\xa4tree\x91" * 20_000, id="deep nesting"),
        pytest.param(b"\x91" * 60_000, id="deep nesting of nothing"),
        pytest.param(b"\x94\xa4nope\x01\xc4\x01a\xa0", id="unknown tag"),
    ],
)
def test_other_encodings_are_refused(data):
    with pytest.raises(MalformedMessage):
        CODEC.decode(data)


def test_the_canonical_neighbour_of_those_is_accepted():
    assert CODEC.decode(b"\x94\xa4vote\x01\xc4\x01a\xa0") == Vote(1, b"a")
    assert CODEC.decode(b"\x94\xa4tree\x90\x82\xa1a\x01\xa1b\x01\x92\x01\x02") == Tree(
        (), {"a": 1, "b": 1}, frozenset({1, 2})
    )


def test_integers_beyond_64_bits_cannot_be_said():
    with pytest.raises(OverflowError):
        CODEC.encode(Vote(2**64, b""))


def test_a_bound_in_the_type_holds_integers_below_two_to_the_63():
    height = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    codec: Codec = Codec(msgspec.defstruct("Bounded", [("height", height)], array_like=True, tag="b"))
    assert codec.decode(b"\x92\xa1b\xcf\x7f" + b"\xff" * 7).height == 2**63 - 1
    with pytest.raises(MalformedMessage):
        codec.decode(b"\x92\xa1b\xcf\x80" + bytes(7))


def test_what_a_constructor_refuses_is_malformed():
    class Even(msgspec.Struct, array_like=True, tag="even"):
        number: int

        def __post_init__(self):
            if self.number % 2:
                raise ValueError("odd")

    even: Codec = Codec(Even)
    assert even.decode(b"\x92\xa4even\x02").number == 2
    with pytest.raises(MalformedMessage, match="odd"):
        even.decode(b"\x92\xa4even\x01")


def test_the_reason_is_short_and_printable():
    with pytest.raises(MalformedMessage) as caught:
        CODEC.decode(b"\x94\xd9\xff" + b"\x1b" * 255)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "kind", [float, datetime, Any, list[float], dict[str, float], tuple[int, float], tuple[float, ...]]
)
def test_types_without_one_checked_encoding_are_refused(kind):
    message = msgspec.defstruct("Loose", [("field", kind)], array_like=True, tag=True)
    with pytest.raises(ConfigurationError, match=r"Loose\.field"):
        Codec(message)
    with pytest.raises(ConfigurationError, match=r"Loose\.field"):
        Codec(Vote | message)
