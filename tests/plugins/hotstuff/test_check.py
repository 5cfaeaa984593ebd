"""Messages that a correct member would not send are turned away before the engine sees them."""

import msgspec
import pytest

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.statement import Statement
from bftkit_hotstuff.check import (
    MAX_BLOCKS,
    MAX_LINKS,
    check,
    claims,
    commit_problem,
    headers_of,
    lane_key,
    links_of,
    references,
)
from bftkit_hotstuff.engine import SPEC
from bftkit_hotstuff.messages import (
    GENESIS,
    GENESIS_QC,
    Block,
    Blocks,
    Certificates,
    FetchBlocks,
    Header,
    Proposal,
    Timeout,
    TimeoutCertificate,
    Vote,
)
from tests.plugins.hotstuff.parts import (
    batch,
    block_on,
    chain_of,
    context_of,
    proposal,
    qc_for,
    signature_of,
    signed,
    tc_for,
)

CONTEXT = context_of(0, 4, batches_per_block=2, leaders="round_robin")
A, B, C = batch("a"), batch("b"), batch("c")
CHAIN = chain_of(3)
FIRST, SECOND = CHAIN[:2]
QC = qc_for(FIRST)
TC = tc_for(2, [GENESIS_QC, QC, GENESIS_QC])
AFTER = block_on(FIRST, 3, [A])


def changed(value, **fields):
    return msgspec.structs.replace(value, **fields)


GOOD = [
    (1, proposal(block_on(None, 1, [A, B]))),
    (2, proposal(SECOND)),
    (3, proposal(AFTER, TC)),
    (3, signed(3, Vote(1, FIRST.header().id))),
    (0, signed(0, Timeout(1, GENESIS_QC, None))),
    (0, signed(0, Timeout(2, QC, None))),
    (0, signed(0, Timeout(3, QC, TC))),
    (1, Certificates(QC, None)),
    (1, Certificates(GENESIS_QC, TC)),
    (1, FetchBlocks(FIRST.header().id, 0)),
    (1, Blocks(SECOND.header().id, 0, (SECOND, FIRST))),
    (1, Blocks(SECOND.header().id, 7, ())),
]


@pytest.mark.parametrize(("sender", "message"), GOOD, ids=lambda value: type(value).__name__)
def test_what_correct_members_say_passes(sender, message):
    assert check(CONTEXT, sender, message) is None
    for claim in claims(sender, message):
        assert claim.signature == signature_of(claim.signer, claim.statement)
    assert lane_key(message)


def stated(**fields) -> QuorumCertificate:
    return changed(QC, statement=changed(QC.statement, **fields))


def proposed(block: Block, tc: TimeoutCertificate | None = None) -> tuple[int, Proposal]:
    return block.author, Proposal(block, tc)


BAD = [
    ("somebody who is not its author", 2, Proposal(FIRST, None)),
    ("does not lead", *proposed(changed(FIRST, author=2))),
    ("no member", *proposed(changed(FIRST, author=9))),
    ("rounds begin at 1", *proposed(changed(FIRST, round=0))),
    ("out of range", *proposed(changed(FIRST, round=2**53 + 1))),
    ("impossible height", *proposed(changed(FIRST, height=0))),
    ("impossible height", *proposed(changed(FIRST, height=2))),
    ("later round than its parent", *proposed(changed(FIRST, justify=QC))),
    ("too many batches", *proposed(changed(FIRST, refs=(A, B, C)))),
    ("a batch twice", *proposed(changed(FIRST, refs=(A, A)))),
    ("why the round before was skipped", *proposed(AFTER)),
    ("why the round before was skipped", *proposed(AFTER, tc_for(1))),
    ("that nothing needs", *proposed(SECOND, tc_for(1))),
    ("not that of the first block", *proposed(changed(FIRST, justify=changed(GENESIS_QC, bitmap=b"\x01")))),
    ("something else than votes", *proposed(changed(SECOND, justify=stated(kind="timeout")))),
    ("something else than votes", *proposed(changed(SECOND, justify=stated(position=1)))),
    ("wrong length", *proposed(changed(SECOND, justify=stated(content=b"x")))),
    ("2 signatures where 3", *proposed(changed(SECOND, justify=qc_for(FIRST, (0, 1))))),
    ("signers and signatures differ", *proposed(changed(SECOND, justify=changed(QC, signatures=QC.signatures[1:])))),
    ("bit map", *proposed(changed(SECOND, justify=changed(QC, bitmap=b"\x07\x00")))),
    ("not a member", *proposed(changed(SECOND, justify=changed(QC, bitmap=b"\x13")))),
    ("rounds begin at 1", 0, Vote(0, bytes(32))),
    ("wrong length", 0, Vote(1, bytes(31))),
    ("rounds begin at 1", 0, Timeout(0, GENESIS_QC, None)),
    ("not of an earlier round", 0, Timeout(1, QC, None)),
    ("why the round before was skipped", 0, Timeout(3, QC, None)),
    ("that nothing needs", 0, Timeout(2, QC, tc_for(1))),
    ("too few signers", 0, Timeout(3, QC, tc_for(2, [QC, QC]))),
    ("distinct members", 0, Timeout(3, QC, changed(TC, votes=(*TC.votes[:2], TC.votes[1])))),
    ("distinct members", 0, Timeout(3, QC, changed(TC, votes=TC.votes[::-1]))),
    ("distinct members", 0, Timeout(3, QC, changed(TC, votes=(*TC.votes[:2], changed(TC.votes[2], signer=7))))),
    ("wrong length", 0, Timeout(3, QC, changed(TC, votes=(changed(TC.votes[0], signature=b""), *TC.votes[1:])))),
    ("newer than itself", 0, Timeout(3, QC, changed(TC, votes=(changed(TC.votes[0], high_qc_round=2), *TC.votes[1:])))),
    ("does not hold the newest", 0, Timeout(3, QC, changed(TC, high_qc=GENESIS_QC))),
    ("does not hold the newest", 0, Certificates(QC, changed(TC, high_qc=GENESIS_QC))),
    ("rounds begin at 1", 0, Certificates(QC, changed(TC, round=0))),
    ("2 signatures where 3", 0, Certificates(qc_for(FIRST, (0, 1)), None)),
    ("wrong length", 0, FetchBlocks(b"", 0)),
    ("out of range", 0, FetchBlocks(bytes(32), -1)),
    ("too many blocks", 0, Blocks(FIRST.header().id, 0, (FIRST,) * (MAX_BLOCKS + 1))),
    ("nobody has asked for", 0, Blocks(FIRST.header().id, 0, (SECOND,))),
    ("nobody has asked for", 0, Blocks(SECOND.header().id, 0, (SECOND, SECOND))),
    ("does not lead", 0, Blocks(FIRST.header().id, 0, (changed(FIRST, author=3),))),
    ("out of range", 0, Blocks(FIRST.header().id, -1, ())),
]


@pytest.mark.parametrize(("problem", "sender", "message"), BAD)
def test_what_they_would_not_say_is_refused(problem, sender, message):
    assert problem in (check(CONTEXT, sender, message) or "")


def test_by_reputation_anybody_may_be_a_leader():
    context = context_of(0, 4, leaders="reputation")
    assert check(context, 3, signed(3, Proposal(changed(FIRST, author=3), None))) is None


def test_every_message_type_is_looked_at():
    from bftkit_hotstuff.check import _CHECKS
    from bftkit_hotstuff.engine import MESSAGE_HANDLERS

    assert set(_CHECKS) == set(MESSAGE_HANDLERS) == set(SPEC.messages.__args__)


def test_the_batches_of_a_message_are_named():
    assert list(references(Proposal(FIRST, None))) == list(FIRST.refs)
    assert list(references(Blocks(bytes(32), 0, (SECOND, FIRST)))) == [*SECOND.refs, *FIRST.refs]
    assert list(references(Vote(1, bytes(32)))) == []


def test_an_id_says_everything_but_signatures():
    block = SECOND
    other = changed(block, justify=qc_for(FIRST, (1, 2, 3)))
    assert other.header().id != block.header().id, "who certified the parent"
    forged = changed(block, justify=changed(block.justify, signatures=(bytes(64),) * 3))
    assert forged.header().id == block.header().id
    for fields in ({"round": 9}, {"height": 9}, {"author": 3}, {"refs": ()}, {"justify": GENESIS_QC}):
        assert changed(block, **fields).header().id != block.header().id


# --- Proofs ---------------------------------------------------------------------------------------------------------


def proof(chain: list[Block], position: int, top: int) -> CommitProof:
    headers = [block.header() for block in reversed(chain[position - 1 : top])]
    return CommitProof(qc_for(chain[top - 1]), links_of(headers))


def entry(chain: list[Block], position: int, top: int) -> CommitEntry:
    return CommitEntry(position, chain[position - 1].refs, proof(chain, position, top))


def test_a_decision_is_proved_by_a_certified_chain_above_it():
    chain = chain_of(5)
    assert commit_problem(CONTEXT, entry(chain, 2, 3)) is None
    assert commit_problem(CONTEXT, entry(chain, 1, 5)) is None
    three = context_of(0, 4, rules="three_chain")
    assert "does not decide" in str(commit_problem(three, entry(chain, 2, 3)))
    assert commit_problem(three, entry(chain, 2, 4)) is None


def test_a_gap_at_the_top_proves_nothing_and_one_below_does_no_harm():
    first = block_on(None, 1, [A])
    second = block_on(first, 3)
    third = block_on(second, 4)
    chain = [first, second, third]
    assert "does not decide" in str(commit_problem(CONTEXT, entry(chain, 1, 2)))
    assert commit_problem(CONTEXT, entry(chain, 1, 3)) is None


LINKS = proof(CHAIN, 1, 2).links
GOOD_ENTRY = entry(CHAIN, 1, 2)
HEADERS = headers_of(LINKS) or ()
NO_PROOF = [
    ("without votes", changed(GOOD_ENTRY, proof=CommitProof(None, LINKS))),
    ("cannot be read", changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, links=b""))),
    ("cannot be read", changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, links=links_of(())))),
    ("cannot be read", changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, links=LINKS + b"\0"))),
    (
        "cannot be read",
        changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, links=links_of([GENESIS] * (MAX_LINKS + 1)))),
    ),
    ("about another block", changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, certificate=qc_for(CHAIN[2])))),
    ("does not decide", changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, links=links_of(HEADERS[:1])))),
    ("another position", changed(GOOD_ENTRY, position=2)),
    ("other batches", changed(GOOD_ENTRY, refs=(A,))),
    ("2 signatures", changed(GOOD_ENTRY, proof=changed(GOOD_ENTRY.proof, certificate=qc_for(SECOND, (0, 1))))),
]


@pytest.mark.parametrize(("problem", "claimed"), NO_PROOF)
def test_nothing_else_proves_it(problem, claimed):
    assert problem in (commit_problem(CONTEXT, claimed) or "")


def test_a_chain_that_is_not_linked_proves_nothing():
    other = Header(1, 1, GENESIS.id, 0, b"", 3, FIRST.header().content)
    claimed = CommitEntry(1, FIRST.refs, CommitProof(qc_for(SECOND), links_of([SECOND.header(), other])))
    assert "does not decide" in str(commit_problem(CONTEXT, claimed))
    lower = CommitEntry(
        1, FIRST.refs, CommitProof(qc_for(CHAIN[2]), links_of([*map(Block.header, CHAIN[:0:-1]), other]))
    )
    assert "do not follow each other" in str(commit_problem(CONTEXT, lower))


def test_timeouts_prove_no_decision():
    statement = Statement("timeout", 2, 0, SECOND.header().id)
    votes = {who: signature_of(who, statement) for who in range(3)}
    claimed = changed(GOOD_ENTRY, proof=CommitProof(QuorumCertificate.of(statement, votes, 4), LINKS))
    assert "something else than votes" in str(commit_problem(CONTEXT, claimed))
