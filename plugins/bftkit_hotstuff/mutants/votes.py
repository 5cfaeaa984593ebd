"""Votes and proposals, broken on purpose (Jolteon Fig. 2, "Vote" and "Propose")."""

from typing import Any

import msgspec

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import EMPTY_CHECKPOINT, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.inputs import Available, Received
from bftkit.core.membership import Member, Membership
from bftkit.core.outputs import Persist
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import Statement
from bftkit.core.votes import VoteTally
from bftkit.testing.mutants import Check, Mutant
from bftkit_hotstuff import rules, voting
from bftkit_hotstuff.config import HotStuffOptions
from bftkit_hotstuff.messages import GENESIS_QC, VOTE_KIND, Block, Proposal, TimeoutCertificate, TimeoutVote
from bftkit_hotstuff.mutants.schedules import aimed, calm, rough
from bftkit_hotstuff.state import initial_state


def _unrecorded(original: Any) -> Any:
    def cast_vote(state: Any, node: Any, out: list[Any]) -> None:
        original(state, node, out)
        out[:] = [output for output in out if not isinstance(output, Persist)]

    return cast_vote


def _without_bodies(original: Any) -> Any:
    def consider(state: Any, out: list[Any]) -> None:
        if state.proposal is not None:
            state.proposal.missing = {}
        original(state, out)

    return consider


def _after_a_timeout(original: Any) -> Any:
    def give_up(state: Any, out: list[Any]) -> None:
        before = state.voted_round
        original(state, out)
        state.voted_round = before

    return give_up


def _replaceable(original: Any) -> Any:
    def compare(state: Any, node: Any, message: Any, out: list[Any]) -> None:
        if message.statement().content != node.id and not state.has_given_up:
            second = state.tree.add(message.block)
            second.proposal = message
            state.proposal, state.voted_round = second, node.round - 1
            return
        original(state, node, message, out)

    return compare


def _any_certificate(original: Any) -> Any:
    def may_vote(self: Any, block: Any, tc: Any, lock: Any) -> bool:
        return bool(original(self, block, tc, lock)) or (tc is not None and block.round == tc.round + 1)

    return may_vote


def _old_certificates_get_no_vote() -> str | None:
    """A block on an older certificate than its timeout certificate speaks of gets no vote."""
    qc = QuorumCertificate(Statement(VOTE_KIND, 3, 0, bytes(32)), b"\x07", ())
    tc = TimeoutCertificate(4, tuple(TimeoutVote(who, who + 1, bytes(64)) for who in range(3)), qc)
    block = Block(5, 1, 0, (), GENESIS_QC)
    fine = rules.RULES["jolteon"].may_vote(msgspec.structs.replace(block, justify=qc), tc, None)
    if not fine:
        return "a block on the newest certificate gets no vote"
    return "it gets one" if rules.RULES["jolteon"].may_vote(block, tc, None) else None


class _Mixed(VoteTally):
    """Counts all votes of a round for whatever was voted for."""

    __slots__ = ()

    def certificate(self, content: bytes, threshold: int) -> QuorumCertificate | None:
        if len(self._votes) < threshold:
            return None
        chosen = {signer: self._votes[signer][1] for signer in sorted(self._votes)[:threshold]}
        statement = next(vote for vote, _ in self._votes.values() if vote.content == content)
        return QuorumCertificate.of(statement, chosen, self._members)


def _mixed(original: Any) -> Any:
    return lambda self, members: _Mixed(members)


def _ordered_when_proposed(original: Any) -> Any:
    def accept(state: Any, message: Any, out: list[Any]) -> None:
        original(state, message, out)
        if state.proposal is not None:
            for ref in state.proposal.block.refs:
                state.pending.discard(ref.digest)
                state.watched.pop(ref.digest, None)

    return accept


def _what_was_proposed_waits_on() -> str | None:
    """A batch waits until it is committed, also while a block names it that may be left behind."""
    members = Membership(tuple(Member(f"n{who}", bytes([who]) * 32) for who in range(4)), FaultModel.BYZANTINE)
    context = EngineContext(0, members, HotStuffOptions(), Limits())
    state = initial_state(context, CheckpointCertificate(EMPTY_CHECKPOINT, None))
    ref = BatchRef(bytes(32), 1, 1, 1)
    voting.on_available(state, Available(0, (ref,)))
    voting.on_proposal(state, Received(0, 1, Proposal(Block(1, 1, 1, (ref,), GENESIS_QC), None)))
    return None if state.pending.holds(ref) else "it does not"


def _newest_lock(original: Any) -> Any:
    def cast_vote(state: Any, node: Any, out: list[Any]) -> None:
        parent = state.tree.parent(node)
        lock = state.rules.lock_of(node.block, parent.block if parent is not None else None)
        original(state, node, out)
        if lock is not None:
            state.lock = lock

    return cast_vote


def _wherever(original: Any) -> Any:
    return lambda state, node: state.rules.may_vote(node.block, None, None) and node.round == state.round


MUTANTS = (
    Mutant(
        "hotstuff: a vote is not recorded",
        "A vote leaves without the record of its block and the newest QC (Jolteon Fig. 2; here: durable first).",
        "bftkit_hotstuff.voting:cast_vote",
        _unrecorded,
        (rough(),),
    ),
    Mutant(
        "hotstuff: a vote without the body",
        "A replica votes for batches that it does not hold.",
        "bftkit_hotstuff.voting:consider",
        _without_bodies,
        (calm(liar="withholding bodies"), rough()),
    ),
    Mutant(
        "hotstuff: a vote after a timeout",
        "A replica votes in a round that it has given up (Jolteon Fig. 2, Timeout).",
        "bftkit_hotstuff.synchronizer:give_up",
        _after_a_timeout,
        (rough(),),
    ),
    Mutant(
        "hotstuff: two votes in a round",
        "A second block of a leader is voted for like the first (Jolteon Fig. 2, r > r_vote).",
        "bftkit_hotstuff.voting:_compare",
        _replaceable,
        (calm(liar="contradicting itself"),),
    ),
    Mutant(
        "hotstuff: rounds of the newest certificates are not compared",
        "After a timeout any parent will do (Jolteon Fig. 2, qc.r >= max).",
        "bftkit_hotstuff.rules:Jolteon.may_vote",
        _any_certificate,
        (Check(_old_certificates_get_no_vote),),
    ),
    Mutant(
        "hotstuff: votes for all blocks are one",
        "A certificate counts votes of a round whatever they are for.",
        "bftkit_hotstuff.certificates:Ed25519Certificates.tally",
        _mixed,
        (calm(liar="equivocating votes"), calm(liar="equivocating proposals")),
    ),
    Mutant(
        "hotstuff: an orphan keeps its batches",
        "What was proposed once is proposed by nobody else, though its block was left behind.",
        "bftkit_hotstuff.voting:accept",
        _ordered_when_proposed,
        (Check(_what_was_proposed_waits_on),),
    ),
    Mutant(
        "hotstuff: the parent is not looked at",
        "A block is voted for whose parent is not here, at whatever height it says.",
        "bftkit_hotstuff.voting:may_vote",
        _wherever,
        (rough(),),
    ),
    Mutant(
        "hotstuff: the lock falls",
        "A vote locks what it says, also where an earlier one has locked a later block (HotStuff Algorithm 5).",
        "bftkit_hotstuff.voting:cast_vote",
        _newest_lock,
        (aimed(rules="three_chain"),),
    ),
)
"""All of them."""
