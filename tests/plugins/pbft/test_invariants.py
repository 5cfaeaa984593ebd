"""Each invariant of PBFT, broken once."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest

from bftkit.core.batch import BatchRef
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.statement import Statement
from bftkit.testing.invariants import load_invariants
from bftkit_pbft.invariants import PbftInvariants
from bftkit_pbft.messages import PreparedProof, proposal_digest
from bftkit_pbft.state import Watched
from tests.plugins.pbft.lone import Lone, view_change

A, B = b"a" * 32, b"b" * 32


def certificate(view: int, position: int, content: bytes) -> QuorumCertificate:
    return QuorumCertificate.of(Statement("commit", view, position, content), dict.fromkeys(range(3), bytes(64)), 4)


def test_simulations_find_them_by_the_name_of_the_engine():
    assert isinstance(load_invariants("pbft", 4), PbftInvariants)
    assert load_invariants("solo", 1) is None


@pytest.mark.parametrize("kind", ["pre-prepare", "prepare", "commit"])
def test_no_vote_below_a_view_that_was_asked_for(kind):
    watch = PbftInvariants(4)
    assert watch.signs(1, Statement(kind, 0, 3, A)) is None
    assert watch.signs(1, Statement("view-change", 2, 0, A)) is None
    assert "after it has asked for view 2" in (watch.signs(1, Statement(kind, 1, 3, A)) or "")
    assert watch.signs(1, Statement(kind, 2, 3, A)) is None
    assert watch.signs(0, Statement("prepare", 1, 3, A)) is None, "another member"
    watch.restarted(1)
    assert watch.signs(1, Statement(kind, 1, 3, A)) is not None, "a crash changes nothing about it"


def test_no_new_view_below_a_view_that_was_asked_for():
    watch = PbftInvariants(4)
    watch.signs(1, Statement("view-change", 6, 0, A))
    assert "begins view 5" in (watch.signs(1, Statement("new-view", 5, 0, A)) or "")


def test_one_proposal_prepares_in_a_view_at_a_position():
    watch = PbftInvariants(4)
    assert watch.signs(0, Statement("commit", 0, 3, A)) is None
    assert watch.signs(1, Statement("commit", 1, 3, B)) is None
    assert "two proposals prepared" in (watch.signs(2, Statement("commit", 0, 3, B)) or "")


def test_what_was_decided_is_voted_for_in_every_later_view():
    watch = PbftInvariants(4)
    assert watch.decided(3, certificate(1, 3, A)) is None
    assert watch.signs(0, Statement("prepare", 1, 3, B)) is None, "in the same view a liar may have told another story"
    assert watch.signs(0, Statement("prepare", 2, 3, A)) is None
    assert "votes against what view 1 decided" in (watch.signs(1, Statement("prepare", 2, 3, B)) or "")
    assert watch.decided(3, certificate(2, 3, A)) is None
    assert "twice, differently" in (watch.decided(3, certificate(2, 3, B)) or "")


def test_marks_only_rise_and_tables_are_bounded():
    watch, replica = PbftInvariants(4), Lone(own=1)
    state = replica.state
    assert watch.stepped(1, replica.engine) is None
    state.view = 3
    assert watch.stepped(1, replica.engine) is None
    state.view = 2
    assert "falls" in (watch.stepped(1, replica.engine) or "")
    watch.restarted(1)
    assert watch.stepped(1, replica.engine) is None
    watch.recorded(1, replica.engine)
    state.view = 4
    assert watch.stepped(1, replica.engine) is None
    watch.restarted(1)
    state.view = 1
    assert "falls" in (watch.stepped(1, replica.engine) or ""), "what was recorded is not taken back"
    state.view = 2
    assert watch.stepped(1, replica.engine) is None
    state.slot(state.window_end + 1)
    assert "positions outside" in (watch.stepped(1, replica.engine) or "")
    state.slots.clear()
    state.view_changes[2] = {view: view_change(2, view) for view in range(3, 9)}
    assert "too many view changes" in (watch.stepped(1, replica.engine) or "")
    state.view_changes[2] = {}
    proof = QuorumCertificate.of(Statement("prepare", 0, 1, A), dict.fromkeys(range(2), bytes(64)), 4)
    thin = PreparedProof(proof, ())
    state.view_changes[2] = {3: msgspec.structs.replace(view_change(2, 3), prepared=(thin,))}
    assert "not of a quorum" in (watch.stepped(1, replica.engine) or "")
    state.view_changes[2] = {}
    state.early[0] = deque([(0, None)] * 500)  # type: ignore[list-item]  # only their number counts
    assert "later views" in (watch.stepped(1, replica.engine) or "")
    state.early[0].clear()
    state.named[3] = {}
    assert "settled" in (watch.stepped(1, replica.engine) or "")


def test_what_a_primary_proposes_is_what_was_decided():
    watch = PbftInvariants(4)
    assert watch.decided(3, certificate(1, 3, A)) is None
    assert watch.signs(2, Statement("pre-prepare", 2, 3, A)) is None
    assert "it proposes against" in (watch.signs(2, Statement("pre-prepare", 2, 3, B)) or "")


@pytest.mark.parametrize("kind", ["pre-prepare", "prepare", "commit"])
def test_votes_of_later_views_are_judged_when_the_decision_becomes_known(kind):
    watch = PbftInvariants(4)
    assert watch.signs(1, Statement(kind, 1, 3, B)) is None
    assert watch.signs(1, Statement(kind, 2, 3, A)) is None
    assert watch.decided(3, certificate(1, 3, A)) is None, "in its own view a liar may have told another story"
    watch = PbftInvariants(4)
    assert watch.signs(1, Statement(kind, 2, 3, B)) is None
    assert "members voted in view 2 against what view 1 decided" in (watch.decided(3, certificate(1, 3, A)) or "")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda refs: (Statement("commit", 0, 1, proposal_digest(refs)), range(3), refs),
        lambda refs: (Statement("prepare", 3, 1, proposal_digest(refs)), range(3), refs),
        lambda refs: (Statement("prepare", 0, 1, A), range(3), refs),
        lambda refs: (Statement("prepare", 0, 1, proposal_digest(refs)), range(2, 5), refs),
    ],
    ids=["another kind", "a later view", "another proposal", "no members"],
)
def test_a_view_change_proves_what_it_stands_for(spoil):
    watch, replica = PbftInvariants(4), Lone(own=1)
    fine = (Statement("prepare", 0, 1, proposal_digest(())), range(3), ())
    for (statement, signers, refs), ok in ((fine, True), (spoil(()), False)):
        proof = QuorumCertificate.of(statement, dict.fromkeys(signers, bytes(64)), 8)
        kept = msgspec.structs.replace(view_change(2, 3), prepared=(PreparedProof(proof, refs),))
        replica.state.view_changes[2] = {3: kept}
        assert (watch.stepped(1, replica.engine) is None) is ok


def test_work_without_a_timer_of_its_kind_is_found():
    watch, replica = PbftInvariants(4), Lone(own=1)
    state = replica.state
    assert watch.forgotten(replica.engine, set()) is None
    waiting = BatchRef(A, 2, 1, 10)
    state.watched[2][A] = state.unoffered[A] = Watched(waiting, 0)
    assert watch.forgotten(replica.engine, {"relay", "retransmit"}) == "batches for the primary"
    assert watch.forgotten(replica.engine, {"watch"}) == "batches to be offered"
    assert watch.forgotten(replica.engine, {"watch", "relay"}) is None
    state.top = 1
    assert watch.forgotten(replica.engine, {"watch", "relay"}) == "words to be said again"
    state.active, state.view = False, 1
    assert watch.forgotten(replica.engine, {"retransmit"}) is None, "the others have not left the views below"
    state.spoken = [1, 1, 1, 0]
    assert watch.forgotten(replica.engine, {"retransmit", "watch"}) == "members for a new view"
    assert watch.forgotten(replica.engine, {"retransmit", "view-change"}) is None
    state.sealed = 3
    assert watch.forgotten(replica.engine, set()) is None
