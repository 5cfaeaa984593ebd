"""A batch may be named again after it was decided: by a slow member, a restarted client, or a liar who leads."""

from __future__ import annotations

from bftkit.core.inputs import Available
from bftkit.core.outputs import Want
from bftkit.replica.messages import StableCheckpoint
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import Host, body_of, certified, scripted_spec, settings_of


def test_the_engine_hears_of_a_body_that_was_decided_meanwhile_only_if_it_asked_for_it():
    asked, other = body_of("asked"), body_of("other")
    host = Host(settings_of())
    host.start()
    host.do(Want((asked.ref,), (1,)))
    host.commit(asked, other)
    host.hear(1, other)
    host.hear(1, asked)
    assert [(event.refs, event.decided) for event in host.engine.told(Available)] == [((asked.ref,), True)]


def test_a_body_whose_decision_is_forgotten_is_a_new_one_even_if_the_engine_once_asked_for_it():
    late = body_of("late")
    host = Host(settings_of())
    host.start()
    host.do(Want((late.ref,), (1,)))
    host.commit(late)
    host.replica.payloads.forget_through(host.replica.commits.position)
    host.hear(late.ref.origin, late)
    assert [(event.refs, event.decided) for event in host.engine.told(Available)] == [((late.ref,), False)]
    assert host.replica.mempool.uncommitted == (late.ref,), "the engine sees to it that it is settled"


def test_bodies_are_kept_a_window_longer_than_their_decision_for_they_may_be_named_again():
    host = Host(settings_of(tuning=ReplicaTuning(snapshot_positions=4), spec=scripted_spec(window=8)))
    host.start()
    body = body_of("early")
    host.hear(1, body)
    host.commit(body)
    for number in range(11):
        other = body_of(f"other {number}")
        host.hear(1, other)
        host.commit(other)
    for position, kept in ((4, True), (8, True), (12, False)):
        own = host.replica.checkpoints.own_checkpoint(position)
        assert own is not None
        host.hear(2, StableCheckpoint(certified(own)))
        assert host.replica.payloads.holds(body.ref) is kept
