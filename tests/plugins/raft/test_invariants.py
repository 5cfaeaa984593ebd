"""Each invariant of Raft, broken once."""

from __future__ import annotations

from bftkit.core.certificate import QuorumCertificate
from bftkit.core.statement import Statement
from bftkit.testing.invariants import load_invariants
from bftkit_raft.invariants import RaftInvariants
from bftkit_raft.messages import Entry
from bftkit_raft.state import Asked, Role
from tests.plugins.raft.lone import Lone, batch, entry

A, B = batch("a"), batch("b")


def test_simulations_find_them_by_the_name_of_the_engine():
    assert isinstance(load_invariants("raft", 3), RaftInvariants)


def test_one_leader_in_a_term():
    watch, one, other = RaftInvariants(3), Lone(0), Lone(1)
    one.win()
    other.win(voters=(2,))
    assert watch.stepped(0, one.engine) is None
    assert "two members lead term 1" in (watch.stepped(1, other.engine) or "")


def test_one_vote_in_a_term():
    watch, one, other = RaftInvariants(5), Lone(0, 5), Lone(1, 5)
    for lone in (one, other):
        lone.state.role, lone.state.term, lone.state.votes = Role.CANDIDATE, 3, 1 << 4 | 1 << lone.own
    assert watch.stepped(0, one.engine) is None
    watch.restarted(4)
    assert "n4 has voted twice in term 3" in (watch.stepped(1, other.engine) or "")


def test_a_leader_only_appends():
    watch, lone = RaftInvariants(3), Lone()
    lone.win()
    lone.have(A)
    assert watch.stepped(0, lone.engine) is None
    lone.state.truncate(2)
    assert "dropped entries" in (watch.stepped(0, lone.engine) or "")


def test_logs_match():
    watch, one, other = RaftInvariants(3), Lone(0), Lone(1)
    one.append(0, 0, entry(1), entry(1, A))
    other.append(0, 0, entry(1), entry(1, B), leader=2)
    assert watch.stepped(0, one.engine) is None
    assert "two logs differ at position 2" in (watch.stepped(1, other.engine) or "")
    watch, third = RaftInvariants(3), Lone(2)
    third.append(0, 0, entry(2), entry(3, A), term=3)
    assert watch.stepped(2, third.engine) is None
    third.state.log.entries[0] = Entry(1, ())
    assert "two logs differ at position 2" in (watch.stepped(2, third.engine) or "")


def test_marks_only_rise_and_are_in_order():
    watch, lone = RaftInvariants(3), Lone()
    lone.append(0, 0, entry(1), term=4, commit=1)
    assert watch.stepped(0, lone.engine) is None
    lone.state.term = 3
    assert "falls" in (watch.stepped(0, lone.engine) or "")
    watch.restarted(0)
    assert watch.stepped(0, lone.engine) is None
    lone.state.term = 5
    watch.recorded(0, lone.engine)
    lone.state.term = 4
    watch.restarted(0)
    assert "falls" in (watch.stepped(0, lone.engine) or ""), "a recorded term is not taken back"
    lone.state.term = 5
    assert watch.stepped(0, lone.engine) is None
    lone.state.commit = 7
    assert "out of order" in (watch.stepped(0, lone.engine) or "")


def test_terms_rise_and_the_window_holds():
    watch, lone = RaftInvariants(3), Lone(interval=2, window_factor=2)
    lone.append(0, 0, entry(2), term=2)
    lone.state.log.append(Entry(1, ()))
    lone.state.matched = 2
    assert "terms fall" in (watch.stepped(0, lone.engine) or "")
    watch, lone = RaftInvariants(3), Lone(interval=2, window_factor=2)
    for number in range(6):
        lone.state.append(entry(1, batch(f"m{number}")))
    assert "beyond the window" in (watch.stepped(0, lone.engine) or "")


def test_too_much_is_not_deferred():
    watch, lone = RaftInvariants(3), Lone(interval=2, window_factor=2)
    lone.state.deferred = [entry(1)] * 100
    assert "defers" in (watch.stepped(0, lone.engine) or "")


def test_raft_signs_nothing_and_proves_nothing_by_votes():
    watch = RaftInvariants(3)
    statement = Statement("commit", 0, 3, b"c" * 32)
    assert watch.signs(0, Statement("checkpoint", 0, 8, b"c" * 32)) is None
    assert "signs a commit" in (watch.signs(0, statement) or "")
    assert "certificate" in (watch.decided(3, QuorumCertificate.of(statement, {0: bytes(64)}, 3)) or "")


def test_a_new_leader_holds_what_is_committed():
    watch, old, new = RaftInvariants(3), Lone(0), Lone(1)
    old.win()
    old.have(A)
    old.state.commit = old.state.log.last
    assert watch.stepped(0, old.engine) is None
    assert watch.landmarks(old.engine) != watch.landmarks(new.engine)
    new.state.term = 1
    new.win(voters=(2,))
    assert "the leader of term 2 lacks what is committed at position 1" in (watch.stepped(1, new.engine) or "")
    new.state.log.base = new.state.commit = 2
    assert watch._incomplete(new.state) is None, "a state holds it"


def test_a_leader_commits_what_is_of_its_term():
    watch, lone = RaftInvariants(3), Lone()
    lone.state.append(Entry(1, ()))
    lone.state.term = 1
    lone.win()
    lone.state.commit = 1
    assert "the leader of term 2 commits by counting what is of term 1" in (watch.stepped(0, lone.engine) or "")
    watch = RaftInvariants(3)
    lone.state.commit = 2
    assert watch.stepped(0, lone.engine) is None


def test_work_without_a_timer_of_its_kind_is_found():
    watch, lone = RaftInvariants(3), Lone()
    state = lone.state
    assert watch.forgotten(lone.engine, {"heartbeat", "relay"}) == "elections"
    assert watch.forgotten(lone.engine, {"election"}) is None
    lone.have(A)
    assert watch.forgotten(lone.engine, {"election"}) is None, "nobody is known to lead"
    state.leader = 1
    assert watch.forgotten(lone.engine, {"election", "read"}) == "batches for the leader"
    state.reads.asked = Asked(1, 1, [5])
    assert watch.forgotten(lone.engine, {"election", "relay"}) == "reads"
    assert watch.forgotten(lone.engine, {"election", "relay", "read"}) is None
    state.role = Role.LEADER
    assert watch.forgotten(lone.engine, {"election", "relay", "read"}) == "followers"
    assert watch.forgotten(lone.engine, {"heartbeat"}) is None
    state.sealed = 3
    assert watch.forgotten(lone.engine, set()) is None
