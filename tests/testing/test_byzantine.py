"""Lying members: that they lie, and that a group of PBFT bears as many as it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

import msgspec
import pytest

from bftkit.core.batch import BatchBody, BatchRef, make_batch, open_body
from bftkit.core.certificate import QuorumCertificate
from bftkit.core.checkpoint import Checkpoint, CheckpointCertificate
from bftkit.core.ids import canonical
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.quorum import Quorum
from bftkit.core.statement import Statement
from bftkit.plugins import load_engine
from bftkit.replica.client_messages import Envelope, OpenSession, decode_batch
from bftkit.replica.messages import CheckpointVote, Commits, FetchCommits, OfferBodies, Progress, StableCheckpoint
from bftkit.testing import application, edge
from bftkit.testing.byzantine import (
    BEHAVIOURS,
    EVERYTHING,
    PATIENCE,
    Behaviour,
    draw_behaviour,
    kind_of,
    make_behaviour,
)
from bftkit.testing.message_mutation import mutations
from bftkit.testing.mutants import Schedules, applied, load_mutants
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import finish, make_world
from bftkit.testing.unasked_lies import FLOOD_OF_BODIES, FLOOD_OF_CHECKPOINTS, FLOOD_OF_OFFERS
from bftkit.testing.verify_stage import VerifyStage
from bftkit.testing.world import World
from bftkit_pbft.messages import (
    CommitVote,
    NewView,
    Prepare,
    PreparedProof,
    PrePrepare,
    Suspect,
    ViewChange,
    proposal_digest,
)
from tests.plugins.pbft.lone import view_change

SPEC = load_engine("pbft")
ROUGH = Profile(
    duration_ms=2_500,
    link_us=(200, 5_000),
    loss=0.05,
    partitions=2,
    crashes=2,
    resets=2,
    down_ms=(300, 700),
    clients=2,
    envelopes=8,
    think_ms=60,
    checkpoint_interval=2,
    snapshot_positions=4,
)
"""Views change, members lag and take over states: every kind of message is sent."""
BRIEF = Profile(duration_ms=400, clients=1, envelopes=3, think_ms=20, checkpoint_interval=2)
OF_A_VIEW_CHANGE = (Suspect, ViewChange, NewView, OfferBodies, StableCheckpoint)


def world_of(seed: int, members: int, profile: Profile, **liars: str | Behaviour) -> World:
    named = {int(index.removeprefix("n")): how for index, how in liars.items()}
    return make_world(seed, SPEC, members, profile, liars=named)


def test_there_are_many_ways_to_lie():
    assert len(BEHAVIOURS) >= 40
    assert {draw_behaviour(Random(seed)) for seed in range(600)} == set(BEHAVIOURS)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_one_liar_among_four_changes_something_and_stops_nobody(name):
    changed = 0
    for seed in range(12):
        world = world_of(seed, 4, ROUGH, **{f"n{seed % 2}": name})
        node = world.nodes[seed % 2]
        speak = node.speak

        def watched(to, message, speak=speak):
            nonlocal changed
            said = speak(to, message)
            changed += said != [(to, message)]
            return said

        node.speak = watched
        outcome = finish(world)
        assert outcome.violations == (), f"seed {seed}: {outcome.violations}"
        assert outcome.commits
        if changed and seed >= 2:
            break
    assert changed, "it never had an occasion to lie"


@pytest.mark.parametrize("seed", range(12))
def test_two_different_liars_among_seven_stop_nobody(seed):
    chance = Random(f"two liars {seed}")
    one, other = chance.sample(range(7), 2)
    liars = {f"n{one}": draw_behaviour(chance), f"n{other}": draw_behaviour(chance)}
    outcome = finish(world_of(seed, 7, ROUGH, **liars))
    assert outcome.violations == (), f"{liars}: {outcome.violations}"


def test_more_liars_than_are_tolerated_are_never_drawn():
    world = make_world(1, SPEC, 7, Profile(liars=31))
    assert sum(not node.honest for node in world.nodes) == Quorum.of(SPEC.fault_model, 7).faults


def test_a_crash_tolerant_engine_gets_no_liar():
    from bftkit.testing.solo import solo_spec

    assert all(node.honest for node in make_world(1, solo_spec(), 1, Profile(liars=3)).nodes)


def test_a_behaviour_follows_from_its_seed():
    def said(seed: int) -> list[object]:
        speak = make_behaviour("corrupt", spec=SPEC, own=0, members=4, random=Random(seed))
        return [speak(1, message) for message in messages_of(without_a_fault)]

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_kinds_are_told_apart():
    said = messages_of(without_a_fault) + messages_of(with_a_change_of_views)
    found = {kind_of(message): type(message) for message in said}
    assert set(EVERYTHING) - set(found) == {"question"}
    assert found["proposal"] is PrePrepare
    assert Suspect in {type(message) for message in said if kind_of(message) == "talk"}
    assert found["checkpoint"] is CheckpointVote
    assert kind_of(FetchCommits(3)) == "question"
    assert kind_of(Prepare(0, 1, bytes(32))) == kind_of(CommitVote(0, 1, bytes(32))) == "vote"


def test_a_liar_that_says_everything_as_it_is_changes_nothing(monkeypatch):
    monkeypatch.setattr(application, "LIES", 0.0)
    monkeypatch.setattr(edge, "LIES_BEFOREHAND", 0.0)
    distrusted, liar = (world_of(3, 4, ROUGH, n0=lambda to, message: [(to, message)]) for _ in range(2))
    distrusted.nodes[0].speak = None
    assert finish(distrusted).ok
    assert finish(liar).ok
    assert distrusted.trace_hash == liar.trace_hash


@pytest.mark.parametrize("name", ["never voting", "forking", "wrong roots", "wrong bodies", "corrupt votes"])
def test_a_liar_deceives_others_and_not_itself(name):
    world = world_of(2, 4, Profile(clients=2, envelopes=6), n3=name)
    assert finish(world).ok
    liar, honest = world.nodes[3], world.nodes[0]
    assert liar.executor.height == honest.executor.height > 0
    assert liar.executor.roots() == honest.executor.roots()


# --- Single behaviours ----------------------------------------------------------------------------------------------


def ref(name: str, origin: int = 0) -> BatchRef:
    return BatchRef(name.encode() * 32, origin, 1, 10)


def behaviour(name: str):
    return make_behaviour(name, spec=SPEC, own=0, members=4, random=Random(7))


def test_who_forks_tells_each_half_a_story_that_fits_together():
    speak = behaviour("forking")
    stories: dict[int, list[object]] = {1: [], 2: [], 3: []}
    for position, name in enumerate("abc", 1):
        proposal = PrePrepare(0, position, (ref(name),))
        for message in (proposal, Prepare(0, position, proposal_digest(proposal.refs))):
            for to, story in stories.items():
                ((receiver, said),) = speak(to, message)
                assert receiver == to
                story.append(said)
    for proposal, vote in (story[at : at + 2] for story in stories.values() for at in (0, 2, 4)):
        assert vote.digest == proposal_digest(proposal.refs)
    told = [[one.refs[0].digest[:1] for one in story if isinstance(one, PrePrepare)] for story in stories.values()]
    assert sorted(told) == [[b"a", b"a", b"b"], [b"a", b"a", b"b"], [b"a", b"b", b"c"]]


def test_who_proposes_late_waits_until_it_is_said_again():
    speak, proposal = behaviour("proposing late"), PrePrepare(0, 1, (ref("a"),))
    for _ in range(PATIENCE - 1):
        assert speak(1, proposal) == []
    assert speak(1, proposal) == speak(1, proposal) == [(1, proposal)]
    assert speak(2, proposal) == []


def test_who_nags_suspects_the_leader_of_each_view_and_does_not_start_over():
    speak, vote = behaviour("nagging"), Prepare(5, 9, bytes(32))
    assert (1, Suspect(5)) in speak(1, vote)
    assert speak(1, vote) == [(1, vote)]


def test_who_censors_leaves_one_member_out_and_nobody_else():
    speak = behaviour("censoring")
    offered = tuple(ref(name, origin) for origin, name in enumerate("abcd"))
    ((_, said),) = speak(1, PrePrepare(0, 1, offered))
    assert len(said.refs) == 3
    assert set(said.refs) < set(offered)


def test_who_thins_certificates_leaves_out_one_signer_with_its_bit_and_its_signature():
    entry = CommitEntry(1, (ref("a"),), CommitProof(certificate_of(b"a" * 32, 0, 2, 3)))
    ((_, said),) = behaviour("thin certificates")(1, Commits((entry, entry), 7))
    assert said == Commits((msgspec.structs.replace(entry, proof=CommitProof(certificate_of(b"a" * 32, 0, 2))),) * 2, 7)
    stable = StableCheckpoint(CheckpointCertificate(Checkpoint(2, 2, *[bytes(32)] * 3), certificate_of(b"b", 1, 2, 3)))
    ((_, said),) = behaviour("thin certificates")(1, stable)
    assert said.certificate.certificate == certificate_of(b"b", 1, 2)
    vote = Prepare(5, 9, bytes(32))
    assert behaviour("thin certificates")(1, vote) == [(1, vote)]


def certificate_of(content: bytes, *signers: int) -> QuorumCertificate:
    votes = {signer: bytes([signer]) * 64 for signer in signers}
    return QuorumCertificate.of(Statement("vote", 0, 1, content), votes, 4)


def a_body() -> BatchBody:
    """Return a batch of a session's opening and of an envelope, as they would be signed."""
    opening = OpenSession(b"k" * 32, b"n" * 16, b"s" * 64)
    envelope = Envelope((3, 1), 5, 2, 4, msgspec.Raw(canonical((b"+1", b"+2"))), b"s" * 64)
    return make_batch(0, 0, [canonical(opening), canonical(envelope)], 3, number=7)


def bodies_of(name: str, seed: int, body: BatchBody) -> list[BatchBody]:
    """Return what a liar says besides a body, the same to everybody, and well-formed."""
    speak = make_behaviour(name, spec=SPEC, own=0, members=4, random=Random(seed))
    (_, first), *besides = speak(1, body)
    assert first is body
    assert [said for _, said in speak(2, body)[1:]] == [said for _, said in besides]
    bodies = [said for _, said in besides]
    assert all(open_body(one.header, one.blob) == one and one.ref.origin == 0 for one in bodies)
    return bodies


def test_who_invents_requests_makes_batches_of_what_no_client_has_signed():
    body, kinds = a_body(), set()
    opening, envelope = decode_batch(body.blob)
    for seed in range(200):
        (invented,) = bodies_of("inventing requests", seed, body)
        assert invented.ref.digest != body.ref.digest
        one, other = decode_batch(invented.blob)
        kinds |= {name for name in opening.__struct_fields__ if getattr(one, name) != getattr(opening, name)}
        kinds |= {name for name in envelope.__struct_fields__ if getattr(other, name) != getattr(envelope, name)}
        kinds |= {"count of the batch"} if invented.ref.count != body.ref.count else set()
    assert kinds == {"nonce", "session", "first", "acknowledged", "commands", "signature", "count of the batch"}


def test_who_floods_bodies_makes_many_batches_of_one_of_its_own():
    body = a_body()
    bodies = bodies_of("flooding bodies", 1, body)
    assert len({one.ref.digest for one in (body, *bodies)}) == 1 + FLOOD_OF_BODIES
    assert all(one.blob == body.blob and one.ref.count == body.ref.count for one in bodies)
    others = msgspec.structs.replace(body, ref=msgspec.structs.replace(body.ref, origin=2))
    assert behaviour("flooding bodies")(1, others) == [(1, others)]


@pytest.mark.parametrize("name", ["nagging", "asking for all"])
def test_made_up_messages_get_past_the_checks_of_their_receivers(name):
    world = world_of(1, 4, BRIEF)
    stage = VerifyStage(world.settings, world.signatures.verify)
    vote = Prepare(5, 9, bytes(32))
    (_, first), *made_up = behaviour(name)(1, vote)
    assert first == vote
    assert len({type(message) for _, message in made_up}) >= 4
    assert all(to == 1 and stage.open(0, message) == message for to, message in made_up)


@pytest.mark.parametrize("name", ["equivocating", "forking", "forking and withholding"])
def test_a_quorum_that_is_one_too_small_does_not_survive_two_stories(name):
    with applied(load_mutants()["quorum: one too small"]):
        found = Schedules(profile=Profile(clients=3, envelopes=10, think_ms=10), count=4, liar=name).run(float("inf"))
    assert found is not None
    assert "two proposals prepared" in found


# --- Small scope ----------------------------------------------------------------------------------------------------

MakeWorld = Callable[[Behaviour], World]

PARTS = 4
"""Tests among which the mutations of one schedule are divided."""


def without_a_fault(speak: Behaviour) -> World:
    """Make a world whose first primary lies, and in which nothing else goes wrong."""
    return world_of(1, 4, BRIEF, n0=speak)


def with_a_change_of_views(speak: Behaviour) -> World:
    """Make a world whose first primary stands still once something has prepared, and whose second primary lies."""

    def watched(to, message):
        first = world.nodes[0]
        if isinstance(message, CommitVote) and message.position == 3 and not first.paused_until_us:
            first.paused_until_us = world.events.now_us + 1_300_000
        return speak(to, message)

    world = world_of(1, 4, msgspec.structs.replace(BRIEF, duration_ms=1_500, clients=2), n1=watched)
    return world


def messages_of(make: MakeWorld) -> list[object]:
    """Say what the liar says while it does not lie, each message once, in order."""
    found: list[object] = []

    def observe(to, message):
        if message not in found:
            found.append(message)
        return [(to, message)]

    assert finish(make(observe)).ok
    return found


@cache
def changes_of(make: MakeWorld) -> list[tuple[object, object]]:
    """List all single mutations of what the liar would say; the message of its type before is what is stale."""
    found: list[tuple[object, object]] = []
    before: dict[type, object] = {}
    for message in messages_of(make):
        if isinstance(message, BatchBody):
            found += [(message, BatchBody(message.ref, header, b"\x90")) for header in (message.header, b"")]
        else:
            found += [(message, change()) for change in mutations(message, before.get(type(message)))]
        before[type(message)] = message
    return found


def expect_no_harm(make: MakeWorld, changes: list[tuple[object, object]]) -> None:
    """Run the same schedule once for each change, with that message replaced, to whomever it goes."""
    for original, changed in changes:

        def speak(to, message, original=original, changed=changed):
            return [(to, changed if message == original else message)]

        violations = finish(make(speak)).violations
        assert violations == (), f"{original} becomes {changed}: {violations}"


@pytest.mark.parametrize("part", range(PARTS))
def test_no_single_change_of_a_message_of_the_primary_does_harm(part):
    changes = changes_of(without_a_fault)
    assert len(changes) > 400
    assert {PrePrepare, Prepare, CommitVote, CheckpointVote, Progress, BatchBody} <= {type(one) for one, _ in changes}
    expect_no_harm(without_a_fault, changes[part::PARTS])


@pytest.mark.parametrize("part", range(PARTS))
def test_no_single_change_of_a_message_around_a_change_of_views_does_harm(part):
    """All changes of what is said on the way to a view, and every fourth of what is said before and afterwards."""
    changes = changes_of(with_a_change_of_views)
    on_the_way = [(one, other) for one, other in changes if isinstance(one, OF_A_VIEW_CHANGE)]
    beside = [(one, other) for one, other in changes if not isinstance(one, OF_A_VIEW_CHANGE)]
    assert len(on_the_way) > 300
    assert {type(one) for one, _ in on_the_way} == set(OF_A_VIEW_CHANGE)
    assert any(one.prepared for one, _ in changes if isinstance(one, ViewChange)), "P is not empty"
    assert any(one.proposals for one, _ in changes if isinstance(one, NewView)), "nor is O"
    expect_no_harm(with_a_change_of_views, [*on_the_way, *beside[::4]][part::PARTS])


def test_who_floods_checkpoints_votes_for_one_position_after_the_other():
    speak = behaviour("flooding checkpoints")
    roots = (bytes(32),) * 3
    for position in (4, 8):
        (_, vote), *besides = speak(1, CheckpointVote(Checkpoint(position, 1, *roots)))
    assert vote.checkpoint.position == 8
    positions = [said.checkpoint.position for _, said in besides]
    assert positions == [8 + 4 * step for step in range(1, FLOOD_OF_CHECKPOINTS)]


def test_who_floods_offers_names_what_does_not_exist():
    speak = behaviour("flooding offers")
    (_, first), (to, offer) = speak(1, Progress(1, 1, 0))
    assert (first, to) == (Progress(1, 1, 0), 1)
    assert len(set(offer.refs)) == FLOOD_OF_OFFERS
    assert speak(1, StableCheckpoint(offer)) != [], "an answer goes on"


def test_who_relabels_puts_true_signatures_under_other_statements():
    speak = behaviour("relabelling")
    refs = (ref("a"),)
    signed = Statement("prepare", 1, 3, proposal_digest(refs))
    certificate = QuorumCertificate.of(signed, dict.fromkeys(range(3), bytes(64)), 4)
    change = view_change(0, 2)
    change = msgspec.structs.replace(change, prepared=(PreparedProof(certificate, refs),))
    (_, first), (_, other), *decisions = speak(1, change)
    assert first is change
    assert other.prepared[0].certificate.signatures == certificate.signatures
    assert other.prepared[0].certificate.statement != signed
    labels = {said.entries[0].proof.certificate.statement for _, said in decisions}
    assert msgspec.structs.replace(signed, kind="commit") in labels
    assert msgspec.structs.replace(signed, position=4) in labels
    assert signed not in labels
    assert all(said.entries[0].refs == refs for _, said in decisions)
    assert speak(1, change) == [(1, change)], "each message is the occasion once"
    entry = CommitEntry(3, refs, CommitProof(certificate))
    assert len(speak(1, Commits((entry,), 3))) > 2
