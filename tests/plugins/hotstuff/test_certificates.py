"""What certificates are made of."""

import itertools

from bftkit.core.statement import Statement
from bftkit_hotstuff.certificates import SCHEMES
from tests.plugins.hotstuff.parts import context_of, signature_of

STATEMENT, OTHER = (Statement("vote", 3, 0, bytes([one]) * 32) for one in (1, 2))


def test_a_quorum_of_equal_votes_in_any_order_is_a_certificate():
    scheme, context = SCHEMES["ed25519"], context_of(0, 4)
    for order in itertools.permutations(range(4), 3):
        tally = scheme.tally(4)
        for count, who in enumerate(order, 1):
            assert tally.add(who, STATEMENT, signature_of(who, STATEMENT)) is None
            made = tally.certificate(STATEMENT.content, 3)
            assert (made is not None) == (count == 3)
        assert made is not None
        assert made.signers == tuple(sorted(order))
        assert scheme.problem(made, context.membership, 3) is None
        signatures = [claim.signature for claim in made.claims()]
        assert signatures == [signature_of(who, STATEMENT) for who in sorted(order)]


def test_votes_for_another_block_are_not_counted():
    tally = SCHEMES["ed25519"].tally(4)
    for who in (0, 1):
        tally.add(who, STATEMENT, signature_of(who, STATEMENT))
    tally.add(2, OTHER, signature_of(2, OTHER))
    assert tally.certificate(STATEMENT.content, 3) is None
    evidence = tally.add(2, STATEMENT, signature_of(2, STATEMENT))
    assert evidence is not None
    assert evidence.proves_equivocation
    assert tally.certificate(STATEMENT.content, 3) is None


def test_a_certificate_of_too_few_is_refused():
    scheme, context = SCHEMES["ed25519"], context_of(0, 4)
    tally = scheme.tally(4)
    for who in (0, 3):
        tally.add(who, STATEMENT, signature_of(who, STATEMENT))
    made = tally.certificate(STATEMENT.content, 2)
    assert made is not None
    assert "2 signatures where 3 are needed" in str(scheme.problem(made, context.membership, 3))
