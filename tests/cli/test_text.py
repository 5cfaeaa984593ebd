"""Words of people, bytes of applications."""

import pytest

from bftkit.batteries.kv import KeyValue, put
from bftkit.cli.text import to_bytes, to_text
from bftkit.errors import Rejected


def test_an_application_translates():
    assert to_bytes(KeyValue, "command_from_text", ("put", "a", "b")) == put(b"a", b"b")
    assert to_text(KeyValue, b"\x92\x00\xc0") == "ok"
    with pytest.raises(Rejected):
        to_bytes(KeyValue, "command_from_text", ("fly",))


def test_without_one_words_are_bytes():
    assert to_bytes(None, "command_from_text", ("a", "b")) == b"a b"
    assert to_text(None, b"a\xff") == "a\\xff"
