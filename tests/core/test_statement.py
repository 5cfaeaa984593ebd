"""Statements: the bytes under a signature say one thing only."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.statement import SignedMessage, Statement, statement_bytes

statements = st.builds(
    Statement,
    st.text(max_size=12),
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    st.binary(min_size=32, max_size=32),
)
domains = st.binary(min_size=32, max_size=32)


@given(domains, statements, domains, statements)
def test_different_statements_are_different_bytes(first_domain, first, second_domain, second):
    same = (first_domain, first) == (second_domain, second)
    assert (statement_bytes(first_domain, first) == statement_bytes(second_domain, second)) is same


@given(statements, st.binary(min_size=32, max_size=32))
def test_a_slot_is_everything_but_the_content(statement, content):
    assert msgspec.structs.replace(statement, content=content).slot == statement.slot
    assert statement.slot == (statement.kind, statement.view, statement.position)


def test_a_signed_message_has_to_say_what_it_states():
    class Silent(SignedMessage, frozen=True):
        signature: bytes = b""

    with pytest.raises(TypeError, match="Silent"):
        Silent().statement()
