"""Checkpoint votes, and what becomes stable (Castro & Liskov, OSDI'99 §4.3)."""

from __future__ import annotations

from itertools import permutations

import msgspec

from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.outputs import Accuse
from bftkit.replica.checkpoints import Checkpoints
from bftkit.replica.messages import CheckpointVote
from tests.replica.parts import certified, checkpoint_at, genesis_of, settings_of


def fresh(members: int = 4) -> Checkpoints:
    return Checkpoints(settings_of(members=members), CheckpointCertificate(genesis_of(members).start, None))


def vote(signer: int, position: int = 4, root: bytes = b"r" * 32) -> CheckpointVote:
    return CheckpointVote(checkpoint_at(position, 9, root), bytes([signer]) * 64)


def test_a_quorum_of_equal_votes_makes_a_certificate_in_any_order():
    for order in permutations(range(4)):
        checkpoints = fresh()
        made = [checkpoints.on_vote(signer, vote(signer))[0] for signer in order]
        certificate = made[2]
        assert [made[0], made[1]] == [None, None]
        assert certificate is not None
        assert certificate.checkpoint == vote(0).checkpoint
        assert certificate.is_about_its_checkpoint()
        assert certificate.certificate is not None
        assert set(certificate.certificate.signers) == set(order[:3])


def test_votes_for_different_states_never_add_up():
    checkpoints = fresh()
    answers = [
        checkpoints.on_vote(0, vote(0)),
        checkpoints.on_vote(1, vote(1)),
        checkpoints.on_vote(2, vote(2, root=b"x" * 32)),
    ]
    assert [certificate for certificate, _ in answers] == [None, None, None]
    assert checkpoints.on_vote(3, vote(3))[0] is not None


def test_every_field_of_a_checkpoint_matters():
    base = vote(0).checkpoint
    for field in ("height", "log_root", "state_root", "sessions_root"):
        other = msgspec.structs.replace(base, **{field: 8 if field == "height" else b"x" * 32})
        checkpoints = fresh()
        checkpoints.on_vote(0, vote(0))
        checkpoints.on_vote(1, vote(1))
        assert checkpoints.on_vote(2, CheckpointVote(other, bytes(64))) == (None, None), field


def test_the_same_vote_twice_counts_once():
    checkpoints = fresh()
    for _ in range(3):
        assert checkpoints.on_vote(1, vote(1)) == (None, None)
    assert checkpoints.on_vote(2, vote(2)) == (None, None)


def test_a_certificate_is_made_once():
    checkpoints = fresh()
    for signer in range(3):
        checkpoints.on_vote(signer, vote(signer))
    assert checkpoints.on_vote(2, vote(2)) == (None, None)


def test_two_votes_of_one_member_are_evidence_and_only_the_first_counts():
    checkpoints = fresh()
    checkpoints.on_vote(1, vote(1))
    certificate, accusation = checkpoints.on_vote(1, vote(1, root=b"x" * 32))
    assert certificate is None
    assert isinstance(accusation, Accuse)
    assert accusation.evidence.proves_equivocation
    checkpoints.on_vote(2, vote(2, root=b"x" * 32))
    assert checkpoints.on_vote(3, vote(3, root=b"x" * 32)) == (None, None)


def test_votes_beyond_the_window_or_below_the_stable_checkpoint_cost_nothing():
    checkpoints = fresh()
    for signer in range(3):
        assert checkpoints.on_vote(signer, vote(signer, position=36)) == (None, None)
    assert checkpoints.on_vote(3, vote(3, position=36)) == (None, None)
    for signer in range(2):
        checkpoints.on_vote(signer, vote(signer, position=32))
    assert checkpoints.on_vote(2, vote(2, position=32))[0] is not None
    checkpoints.now_stable(certified(checkpoint_at(4)))
    for signer in range(4):
        assert checkpoints.on_vote(signer, vote(signer, position=4)) == (None, None)
    assert checkpoints.on_vote(0, vote(0, position=36)) == (None, None)
    assert checkpoints.on_vote(1, vote(1, position=36)) == (None, None)
    assert checkpoints.on_vote(2, vote(2, position=36))[0] is not None


def test_own_votes_are_repeated_until_they_are_stable():
    checkpoints = fresh()
    for position in (4, 8):
        checkpoints.own_vote(vote(0, position))
    assert checkpoints.unstable_votes() == (vote(0, 4), vote(0, 8))
    assert checkpoints.votes_above(4) == (vote(0, 8),)
    checkpoints.now_stable(certified(checkpoint_at(4)))
    assert checkpoints.unstable_votes() == (vote(0, 8),)
    assert checkpoints.own_checkpoint(8) == vote(0, 8).checkpoint
    checkpoints.now_stable(certified(checkpoint_at(12)))
    assert checkpoints.own_checkpoint(8) is None


def test_the_newest_certificate_ahead_is_remembered_until_it_is_reached():
    checkpoints = fresh()
    eight, four = certified(checkpoint_at(8)), certified(checkpoint_at(4))
    checkpoints.note_ahead(eight)
    checkpoints.note_ahead(four)
    assert checkpoints.ahead == eight
    checkpoints.now_stable(four)
    assert checkpoints.ahead == eight
    checkpoints.now_stable(eight)
    assert checkpoints.ahead is None


def test_whose_votes_are_missing():
    checkpoints = fresh()
    assert checkpoints.waiting_on() is None
    checkpoints.own_vote(vote(0))
    assert checkpoints.waiting_on() == (4, (0, 1, 2, 3))
    checkpoints.on_vote(0, vote(0))
    checkpoints.on_vote(2, vote(2, root=b"x" * 32))
    assert checkpoints.waiting_on() == (4, (1, 2, 3))
    checkpoints.now_stable(certified(checkpoint_at(4)))
    assert checkpoints.waiting_on() is None


def test_the_threshold_is_that_of_the_membership():
    for members, quorum in ((4, 3), (5, 4), (6, 4), (7, 5)):
        checkpoints = fresh(members)
        made = [checkpoints.on_vote(signer, vote(signer))[0] for signer in range(members)]
        assert next(index for index, each in enumerate(made) if each is not None) == quorum - 1


def test_checkpoints_differ_by_position():
    assert Checkpoint(4, 1, *[b"r" * 32] * 3).statement() != Checkpoint(8, 1, *[b"r" * 32] * 3).statement()
