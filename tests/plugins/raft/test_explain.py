"""What a member says about itself."""

from __future__ import annotations

from bftkit_raft.messages import AppendEntries
from tests.plugins.raft.lone import Lone, batch, entry

A, B = batch("a"), batch("b")


def said(lone: Lone) -> tuple[str, str, tuple[int, ...]]:
    status = lone.engine.status()
    return status.mode, status.waiting_for, status.waiting_on


def test_with_nothing_to_do_nothing_is_waited_for():
    assert said(Lone()) == ("follower", "", ())


def test_without_a_leader():
    lone = Lone()
    lone.have(A)
    assert said(lone) == ("follower", "a leader", (1, 2))
    lone.fire("election", 1_200)
    assert said(lone) == ("pre-candidate", "votes for the term 1", (1, 2))


def test_a_leader_names_who_has_not_acknowledged():
    lone = Lone()
    lone.win()
    assert said(lone) == ("leader", "acknowledgements of position 1", (1, 2))
    lone.accept(1)
    assert said(lone) == ("leader", "", ())
    assert lone.engine.status().leader == 0
    lone.read(5)
    assert said(lone) == ("leader", "answers to round 2, to serve reads", (1, 2))


def test_a_follower_names_what_it_lacks():
    lone = Lone()
    lone.hear(1, AppendEntries(1, 0, 0, (entry(1), entry(1, A)), 0, 1))
    assert said(lone) == ("follower", "bodies of 1 batches behind position 1", (1,))
    lone.have(A)
    assert said(lone) == ("follower", "word that position 1 is committed", (1,))
    lone.append(2, 1, commit=2)
    lone.have(B)
    assert said(lone) == ("follower", "entries for 1 waiting batches", (1,))
    lone.append(2, 1, entry(1, B), commit=3)
    lone.read(1)
    assert said(lone) == ("follower", "the read index for 1 reads", (1,))
    status = lone.engine.status()
    assert (status.view, status.leader, status.position) == (1, 1, 3)
