"""How long the small steps take that every vote goes through: decode, count, decide.

Not a part of the tests, because timings depend on the machine: `uv run pytest benchmarks`.
"""

from bftkit.core.inputs import Available, Received
from bftkit.core.outputs import Commit
from bftkit.core.statement import Statement
from bftkit.core.votes import VoteTally
from bftkit.wire.codec import Codec
from bftkit_pbft.engine import SPEC, build
from bftkit_pbft.messages import CommitVote, Prepare, PrePrepare, proposal_digest
from tests.plugins.pbft.parts import START, batch, context_of, genesis_of, signature_of, signed

MEMBERS = 4
QUORUM = 3
REFS = (batch("one"),)
DIGEST = proposal_digest(REFS)


def test_a_vote_is_decoded_and_its_encoding_checked(benchmark):
    codec = Codec(SPEC.messages)
    vote = signed(1, CommitVote(7, 123_456, DIGEST))
    assert benchmark(codec.decode, codec.encode(vote)) == vote


def test_a_quorum_of_votes_is_counted_into_a_certificate(benchmark):
    statement = Statement("commit", 0, 1, DIGEST)
    votes = [(signer, statement, signature_of(signer, statement)) for signer in range(QUORUM)]

    def count():
        tally = VoteTally(MEMBERS)
        for vote in votes:
            tally.add(*vote)
        return tally.certificate(DIGEST, QUORUM)

    assert benchmark(count).signers == tuple(range(QUORUM))


def test_a_backup_decides_a_position(benchmark):
    """All of an engine's steps for one position, from the body at hand to the decision, without signatures and disk."""
    own = 1
    context = context_of(own, MEMBERS)
    messages = [
        (0, PrePrepare(0, 1, REFS)),
        *((sender, Prepare(0, 1, DIGEST)) for sender in range(MEMBERS)),
        *((sender, CommitVote(0, 1, DIGEST)) for sender in range(MEMBERS)),
    ]
    steps = [Available(0, REFS), *(Received(0, sender, signed(sender, message)) for sender, message in messages)]

    def fresh():
        engine = build(context, genesis_of(context), START, ())
        engine.start(0)
        return (engine,), {}

    def decide(engine):
        return [output for step in steps for output in engine.step(step)]

    outputs = benchmark.pedantic(decide, setup=fresh, rounds=500)
    assert [output.position for output in outputs if isinstance(output, Commit)] == [1]
