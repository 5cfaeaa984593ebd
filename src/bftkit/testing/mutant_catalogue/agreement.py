"""Quorums, certificates, digests and the right to sign, broken on purpose."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.engine import EngineContext
from bftkit.core.epoch import Limits
from bftkit.core.ids import digest_of
from bftkit.core.leaders import weights_problem
from bftkit.core.membership import Member, Membership
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.core.statement import Statement, statement_bytes
from bftkit.replica.messages import StableCheckpoint, message_problem
from bftkit.replica.records import StepRecord
from bftkit.replica.safety import SigningGuard
from bftkit.testing.mutant_catalogue.schedules import AWAY, BUSY, REPEATING, SPLIT
from bftkit.testing.mutants import Check, Mutant, Schedules, doing_nothing
from bftkit.testing.solo import solo_spec


def _thresholds(change: Callable[[Quorum], Quorum]) -> Any:
    """Make what replaces `Quorum.of` by one with other thresholds."""

    def make(original: Any) -> Any:
        real = original.__func__
        return classmethod(lambda cls, fault_model, members: change(real(cls, fault_model, members)))

    return make


def _smaller_quorum(quorum: Quorum) -> Quorum:
    return msgspec.structs.replace(quorum, quorum=max(1, quorum.quorum - 1))


def _half(quorum: Quorum) -> Quorum:
    return msgspec.structs.replace(quorum, quorum=max(1, quorum.members >> 1))


def _smaller_weak_quorum(quorum: Quorum) -> Quorum:
    return msgspec.structs.replace(quorum, weak=max(1, quorum.weak - 1))


def _one_vote(original: Any) -> Any:
    def certificate(self: Any, content: bytes, threshold: int) -> Any:
        return original(self, content, min(threshold, 1))

    return certificate


def _no_low_mark(original: Any) -> Any:
    def stable(self: Any, position: int) -> None:
        self._slots = {slot: content for slot, content in self._slots.items() if slot[2] > position}

    return stable


def _no_forgetting(original: Any) -> Any:
    def stable(self: Any, position: int) -> None:
        self.low_mark = max(self.low_mark, position)

    return stable


def _look_at_thin_certificates() -> str | None:
    """A checkpoint certificate with too few signers is refused."""
    members = tuple(Member(f"n{index}", bytes([index]) * 32) for index in range(4))
    context = EngineContext(0, Membership(members, FaultModel.BYZANTINE), None, Limits())
    checkpoint = Checkpoint(8, 8, bytes(32), bytes(32), bytes(32))
    certificate = QuorumCertificate.of(checkpoint.statement(), {0: bytes(64), 1: bytes(64)}, 4)
    message = StableCheckpoint(CheckpointCertificate(checkpoint, certificate))
    if message_problem(context, solo_spec(), message) is not None:
        return None
    return "a state with two signatures of four members is taken for certified"


def _look_at_the_guard_after_a_restart() -> str | None:
    """What was signed before a restart binds afterwards."""
    guard = SigningGuard({})
    record = StepRecord((), False, 3, 8, guard.slots_of([Statement("vote", 4, 9, b"a" * 32)]))
    guard.restore(record)
    if guard.admit(Statement("vote", 4, 9, b"b" * 32)) is None:
        return "two contents may be signed for one slot, before and after a restart"
    if guard.admit(Statement("vote", 2, 9, b"a" * 32)) is None:
        return "a view that was given up is voted in after a restart"
    return None


def _look_at_the_low_mark() -> str | None:
    """Nothing is signed at or below a stable checkpoint."""
    guard = SigningGuard({})
    guard.admit(Statement("vote", 0, 4, b"a" * 32))
    guard.stable(8)
    if guard.admit(Statement("vote", 0, 4, b"b" * 32)) is None:
        return "a slot below a stable checkpoint, forgotten by now, is signed once more"
    return None


def _without_roots(original: Any) -> Any:
    return property(lambda checkpoint: digest_of("checkpoint", (checkpoint.height, checkpoint.log_root)))


def _header_only(original: Any) -> Any:
    return lambda header, blob: sha256(header).digest()


def _any_weights(original: Any) -> Any:
    return lambda order, members, faults, successive: False


def _weights_leave_chains_to_the_others() -> str | None:
    """Weights are refused with which one silent member stands between all turns of the others, and no others are."""
    if weights_problem([3, 1, 1, 1], 1, 2) is not None:
        return "weights are refused that leave two successive views to the others"
    return None if weights_problem([4, 1, 1, 1], 1, 2) is not None else "weights pass with which nothing is decided"


def _without_field(**fields: Any) -> Any:
    """Make what is signed cover nothing of some fields."""

    def make(original: Any) -> Any:
        return lambda domain, statement: original(domain, msgspec.structs.replace(statement, **fields))

    return make


def _look_at_another_cluster() -> str | None:
    """What was signed in one cluster says nothing in another."""
    statement = Statement("vote", 1, 1, bytes(32))
    same = statement_bytes(b"one cluster", statement) == statement_bytes(b"another cluster", statement)
    return "the bytes under a signature are the same in two clusters" if same else None


_FALSE_LABELS = msgspec.structs.replace(SPLIT, loss=0.1, link_us=(200, 20_000), checkpoint_interval=16)
"""Views change, members lag, and certificates are handed around."""

MUTANTS = (
    Mutant(
        "quorum: one too small",
        "Two quorums share f members in place of f + 1 (PBFT §4.2).",
        "bftkit.core.quorum:Quorum.of",
        _thresholds(_smaller_quorum),
        (
            Schedules(profile=SPLIT, liar="equivocating"),
            Schedules(profile=msgspec.structs.replace(SPLIT, liars=1, twins=True)),
        ),
    ),
    Mutant(
        "quorum: half of the members",
        "A quorum of n / 2, of which there are two at once.",
        "bftkit.core.quorum:Quorum.of",
        _thresholds(_half),
        (Schedules(profile=SPLIT), Schedules(profile=SPLIT, liar="equivocating")),
    ),
    Mutant(
        "certificate: one signer is enough",
        "A certificate is assembled from a single vote.",
        "bftkit.core.votes:VoteTally.certificate",
        _one_vote,
        (Schedules(profile="calm"),),
    ),
    Mutant(
        "certificate: signers are not counted",
        "A transferred state is taken without a quorum's certificate.",
        "bftkit.core.certificate:certificate_problem",
        doing_nothing,
        (Schedules(profile=AWAY, liar="thin certificates"), Check(_look_at_thin_certificates)),
    ),
    Mutant(
        "checkpoint: any certificate is good",
        "A certified checkpoint is taken from a peer without a look at its votes (PBFT §4.3).",
        "bftkit.replica.messages:_certificate_problem",
        doing_nothing,
        (Schedules(profile=AWAY, liar="thin certificates"),),
    ),
    Mutant(
        "signing: what was signed is forgotten",
        "A restarted replica may sign another content for a slot.",
        "bftkit.replica.safety:SigningGuard.restore",
        doing_nothing,
        (Check(_look_at_the_guard_after_a_restart),),
    ),
    Mutant(
        "signing: no low mark",
        "Slots below a stable checkpoint are forgotten, and may be signed again.",
        "bftkit.replica.safety:SigningGuard.stable",
        _no_low_mark,
        (Check(_look_at_the_low_mark),),
    ),
    Mutant(
        "signing: every slot is remembered",
        "Slots below a stable checkpoint are kept for ever.",
        "bftkit.replica.safety:SigningGuard.stable",
        _no_forgetting,
        (Schedules(profile=BUSY),),
    ),
    Mutant(
        "quorum: f members are believed",
        "What f members say alike is taken for true, though all of them may lie.",
        "bftkit.core.quorum:Quorum.of",
        _thresholds(_smaller_weak_quorum),
        (Schedules(profile=msgspec.structs.replace(SPLIT, partitions=0, cuts=0), liar="boasting"),),
    ),
    Mutant(
        "checkpoint: the state is not in what is signed",
        "Members certify a height and a log, whatever state they have come to (PBFT §4.3).",
        "bftkit.core.checkpoint:Checkpoint.content",
        _without_roots,
        (Schedules(profile=AWAY, liar="wrong roots"),),
    ),
    Mutant(
        "batch: the commands are not in the digest",
        "A batch's name says nothing of its commands, so that one name can stand for two bodies.",
        "bftkit.core.batch:batch_digest",
        _header_only,
        (Schedules(profile=REPEATING, liar="wrong bodies"),),
    ),
    Mutant(
        "any weights are good",
        "Members may lead so unevenly that the others of a silent one never lead in succession.",
        "bftkit.core.leaders:_may_stop",
        _any_weights,
        (Check(_weights_leave_chains_to_the_others),),
    ),
    Mutant(
        "signature: the kind is not signed",
        "A vote to prepare is one to commit as well.",
        "bftkit.core.statement:statement_bytes",
        _without_field(kind=""),
        (Schedules(profile=_FALSE_LABELS, liar="relabelling"),),
    ),
    Mutant(
        "signature: the view is not signed",
        "Votes of one view, or of one round, prove something in the next.",
        "bftkit.core.statement:statement_bytes",
        _without_field(view=0),
        (
            Schedules("hotstuff", profile=_FALSE_LABELS, liar="relabelling"),
            Schedules(profile=_FALSE_LABELS, liar="relabelling"),
        ),
    ),
    Mutant(
        "signature: the position is not signed",
        "Votes for one position prove the same decision at the next.",
        "bftkit.core.statement:statement_bytes",
        _without_field(position=0),
        (Schedules(profile=_FALSE_LABELS, liar="relabelling"),),
    ),
    Mutant(
        "signature: the domain is not signed",
        "Votes of one cluster count in another with the same members.",
        "bftkit.core.statement:statement_bytes",
        lambda original: lambda domain, statement: original(b"", statement),
        (Check(_look_at_another_cluster),),
    ),
)
"""All of them."""
