"""Bodies: whose quota they count against, and what becomes of those that nobody has."""

from bftkit.core.inputs import Available
from bftkit.core.outputs import Want
from bftkit.replica.dissemination import FETCH_TIMER, forget_given_up
from bftkit.replica.messages import FetchBodies, OfferBodies
from bftkit.replica.payloads import MAX_ASKED
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import Host, body_of, settings_of

TUNING = ReplicaTuning(origin_batches=4)


def host_with_small_quotas() -> Host:
    host = Host(settings_of(0, tuning=TUNING))
    host.start()
    return host


def test_a_liar_cannot_fill_the_quota_of_an_honest_origin():
    host = host_with_small_quotas()
    forged = [body_of(f"forged {number}", origin=1) for number in range(8)]
    host.hear(3, OfferBodies(tuple(body.ref for body in forged)))
    for body in forged:
        host.hear(3, body)
    honest = body_of("honest", origin=1)
    host.hear(1, honest)
    assert host.replica.payloads.is_known(honest.ref.digest)
    assert honest.ref in host.replica.mempool.uncommitted


def test_what_a_member_offers_counts_against_its_own_quota():
    host = host_with_small_quotas()
    bodies = [body_of(f"batch {number}", origin=1) for number in range(8)]
    for body in bodies:
        host.hear(3, OfferBodies((body.ref,)))
        host.hear(3, body)
    held = [ref for ref in host.replica.mempool.uncommitted if host.replica.payloads.is_known(ref.digest)]
    assert len(held) == TUNING.origin_batches
    asked = [digest for _, message in host.messages(FetchBodies) for digest in message.digests]
    assert len(asked) == TUNING.origin_batches


def test_what_a_member_offers_at_once_counts_against_its_own_quota_too():
    host = host_with_small_quotas()
    bodies = [body_of(f"batch {number}", origin=1) for number in range(8)]
    host.hear(3, OfferBodies(tuple(body.ref for body in bodies)))
    for body in bodies:
        host.hear(3, body)
    assert len(host.replica.mempool.uncommitted) == TUNING.origin_batches
    assert not host.replica.payloads.missing, "what found no room is not asked for again"
    host.hear(1, bodies[-1])
    assert len(host.replica.mempool.uncommitted) == TUNING.origin_batches + 1, "its maker has room of its own"


def test_what_a_member_has_ordered_again_counts_against_its_quota():
    host = host_with_small_quotas()
    bodies = [body_of(f"batch {number}", origin=1) for number in range(8)]
    for body in bodies:
        host.hear(1, body)
        host.commit(body)
    host.replica.commits.trim(len(bodies))
    host.hear(3, OfferBodies(tuple(body.ref for body in bodies)))
    assert len(host.replica.mempool.uncommitted) == TUNING.origin_batches


def test_what_nobody_has_is_forgotten_with_the_next_stable_checkpoint():
    host = host_with_small_quotas()
    invented = body_of("invented", origin=2)
    host.do(Want((invented.ref,), (3,)))
    assert invented.ref.digest in host.replica.asked.refs
    for _ in range(MAX_ASKED + 1):
        if FETCH_TIMER in host.timers:
            host.fire(FETCH_TIMER)
    assert not host.replica.payloads.is_wanted(invented.ref.digest)
    forget_given_up(host.replica)
    assert invented.ref.digest not in host.replica.asked.refs


def test_what_is_still_being_fetched_is_not_forgotten():
    host = host_with_small_quotas()
    missing = body_of("missing", origin=2)
    host.do(Want((missing.ref,), (3,)))
    forget_given_up(host.replica)
    host.hear(3, missing)
    assert host.engine.told(Available)[-1].refs == (missing.ref,)


def test_after_a_restart_a_body_counts_against_the_origin_that_it_names_and_what_a_proposal_names_is_fetched_anyway():
    """The log does not say who brought what."""
    host = host_with_small_quotas()
    forged = [body_of(f"forged {number}", origin=1) for number in range(TUNING.origin_batches)]
    for body in forged:
        host.hear(3, OfferBodies((body.ref,)))
        host.hear(3, body)
    assert host.replica.mempool.charged == (0, 0, 0, TUNING.origin_batches)
    again = host.restarted()
    again.start()
    assert again.replica.mempool.charged == (0, TUNING.origin_batches, 0, 0)
    refused, wanted = body_of("sent", origin=1), body_of("proposed", origin=1)
    again.hear(1, refused)
    assert not again.replica.payloads.is_known(refused.ref.digest)
    again.do(Want((wanted.ref,), (1,)))
    again.hear(1, wanted)
    assert again.replica.payloads.is_known(wanted.ref.digest)
    again.commit(forged[0])
    again.hear(1, refused)
    assert again.replica.payloads.is_known(refused.ref.digest), "there is room again once one is decided"
