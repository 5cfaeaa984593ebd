"""Batches: a digest covers header and blob, and a reference cannot lie about either."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.batch import BatchHeader, array_header, make_batch, open_body, ref_problem, refs_problem
from bftkit.core.ids import canonical

blobs = st.lists(st.binary(max_size=20), min_size=1, max_size=30)


@given(blobs, st.integers(0, 6), st.booleans())
def test_a_body_opens_to_the_reference_it_was_made_with(items, origin, control):
    body = make_batch(3, origin, [canonical(item) for item in items], len(items), control=control)
    opened = open_body(body.header, body.blob)
    assert opened.ref == body.ref
    assert body.ref.size == len(body.blob)
    assert msgspec.msgpack.decode(body.blob, type=list[bytes]) == items
    assert ref_problem(body.ref, 7, len(body.blob)) is None


@given(blobs)
def test_whatever_changes_in_a_body_changes_its_digest(items):
    envelopes = [canonical(item) for item in items]
    body = make_batch(3, 1, envelopes, len(items))
    others = [
        make_batch(4, 1, envelopes, len(items)),
        make_batch(3, 2, envelopes, len(items)),
        make_batch(3, 1, envelopes, len(items) + 1),
        make_batch(3, 1, envelopes, len(items), control=True),
        make_batch(3, 1, [*envelopes, canonical(b"")], len(items)),
    ]
    assert len({one.ref.digest for one in [body, *others]}) == 6


@pytest.mark.parametrize("length", [0, 1, 15, 16, 65_535, 65_536, 1 << 20])
def test_the_header_of_an_array_is_msgpack(length):
    data = array_header(length) + b"\xc0" * length
    assert len(msgspec.msgpack.decode(data)) == length


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        canonical([1, 2]),
        canonical(BatchHeader(0, 0, 1))[:-1],
        canonical(BatchHeader(0, -1, 1)),
        canonical(BatchHeader(0, 0, 0)),
        canonical(BatchHeader(-1, 0, 1)),
        b"\x94\xcd\x00\x00\x00\x01\xc2",
    ],
)
def test_a_header_that_is_not_canonical_or_absurd_is_refused(header):
    with pytest.raises(ValueError, match="batch header"):
        open_body(header, b"\x90")


def test_a_reference_of_a_peer_is_checked():
    ref = make_batch(0, 1, [canonical(b"x")], 1).ref
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"digest": b"short"}, "digest"),
        ({"origin": 4}, "origin"),
        ({"origin": -1}, "origin"),
        ({"count": 0}, "empty"),
        ({"size": 0}, "empty"),
        ({"size": 101}, "too large"),
    ]
    assert ref_problem(ref, 4, 100) is None
    for fields, words in wrong:
        problem = ref_problem(msgspec.structs.replace(ref, **fields), 4, 100)
        assert problem is not None
        assert words in problem


def test_the_references_of_a_message_are_checked_together():
    one, other = (make_batch(0, 1, [canonical(name)], 1).ref for name in (b"x", b"y"))
    assert refs_problem("a proposal", (), 0, 4, 100) is None
    assert refs_problem("a proposal", (one, other), 2, 4, 100) is None
    assert refs_problem("an entry", (one, other), 1, 4, 100) == "an entry names too many batches"
    assert refs_problem("a block", (one, one), 2, 4, 100) == "a block names a batch twice"
    bad = msgspec.structs.replace(other, origin=9)
    assert refs_problem("a block", (one, bad), 2, 4, 100) == ref_problem(bad, 4, 100)
