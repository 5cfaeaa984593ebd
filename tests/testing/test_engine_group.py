"""Bare engines in a group: they decide, and whatever breaks a rule is a violation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bftkit.core.engine import EngineContext, SigningRule
from bftkit.core.inputs import Available, Received
from bftkit.core.log import CommitEntry, CommitProof
from bftkit.core.outputs import Accuse, Broadcast, Commit, Offer, Persist, ReadReady, Reject, Send, SetTimer, Want
from bftkit.core.statement import Claim, Statement
from bftkit.core.votes import Evidence
from bftkit.plugins import load_engine
from bftkit.testing.checkers import Violation
from bftkit.testing.engine_group import EngineGroup, GroupSettings, Instance
from bftkit.testing.solo import solo_spec

PBFT = load_engine("pbft")
SOLO = solo_spec()


def lengths(group: EngineGroup) -> list[int]:
    return [len(instance.log) for instance in group.instances]


def group_with_work(batches: int = 6, members: int = 4, **settings: Any) -> EngineGroup:
    group = EngineGroup(PBFT, members, settings=GroupSettings(**settings)).start()
    for number in range(batches):
        group.submit(f"b{number}", number % members)
        group.run(10)
    return group


# --- What it does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [4, 5, 7])
@pytest.mark.parametrize("thorough", [False, True])
def test_engines_decide_what_is_submitted(members, thorough):
    group = group_with_work(9, members, thorough=thorough)
    assert lengths(group) == [9] * members
    assert all(instance.stable.position == 8 for instance in group.instances)
    assert len({instance.log_root for instance in group.instances}) == 1
    assert group.steps > group.sent > 0


def test_an_engine_without_certificates_decides_too():
    group = EngineGroup(SOLO, 1, settings=GroupSettings(thorough=True)).start()
    for number in range(20):
        group.submit(f"b{number}")
        group.run(5)
    assert lengths(group) == [20]
    assert group.instances[0].stable.position == 20
    group.crash(0)
    group.submit("while it is down")
    group.restart(0)
    group.submit("when it is back")
    group.run(10)
    assert lengths(group) == [21]


def test_the_same_seed_gives_the_same_run():
    def run(seed: int) -> list[str]:
        group = EngineGroup(PBFT, 4, seed, settings=GroupSettings(traced=True)).start()
        group.loss, group.repeat, group.delay_ms = 0.2, 0.2, (1, 40)
        for number in range(6):
            group.submit(f"b{number}", number % 4)
        group.run(5_000)
        return group.trace

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_what_is_lost_is_made_up_for():
    group = EngineGroup(PBFT, 4, 3).start()
    group.loss, group.repeat, group.delay_ms = 0.3, 0.3, (1, 60)
    for number in range(12):
        group.submit(f"b{number}", number % 4, [number % 4])
    took = group.run_until(lambda: all(len(one.decided) == 12 for one in group.instances), 60_000)
    assert took > 100


def test_a_run_that_takes_too_long_says_where_everybody_stands():
    group = EngineGroup(PBFT, 4, settings=GroupSettings(traced=True)).start()
    group.deliverable = lambda sender, receiver, what: False
    group.submit("a")
    with pytest.raises(Violation, match="not within 500 ms:\nn0 EngineStatus"):
        group.run_until(lambda: lengths(group) == [1] * 4, 500)


def test_hooks_see_each_step_and_each_decision():
    group = EngineGroup(PBFT, 4).start()
    steps: list[tuple[Instance, Any, Any]] = []
    commits: list[tuple[int, CommitEntry]] = []
    group.on_step = lambda instance, event, outputs: steps.append((instance, event, outputs))
    group.on_commit = lambda instance, entry: commits.append((instance.number, entry))
    ref = group.submit("a")
    group.run(10)
    assert len(steps) == group.steps
    assert steps[0][1] == Available(0, (ref,))
    assert [(number, entry.refs) for number, entry in commits] == [(number, (ref,)) for number in range(4)]


def test_contexts_can_be_made_by_a_subclass():
    class Impatient(EngineGroup):
        def make_context(self, number: int, identity: int) -> EngineContext:
            context = super().make_context(number, identity)
            return msgspec.structs.replace(context, options=self.spec.options_type(view_timeout_ms=40 + number))

    group = Impatient(PBFT, 4).start()
    assert [one.context.options.view_timeout_ms for one in group.instances] == [40, 41, 42, 43]
    group.crash(0)
    group.submit("a", 1)
    group.run_until(lambda: lengths(group)[1:] == [1, 1, 1], 200)


def test_a_batch_is_known_by_its_name_and_its_origin():
    group = EngineGroup(PBFT, 4).start()
    assert group.batch("a", 1) == group.batch("a", 1)
    assert group.batch("a", 1).digest != group.batch("a", 2).digest
    assert group.batches((group.batch("a", 1), group.batch("b"))) == "[a b]"


# --- Crashes --------------------------------------------------------------------------------------------------------


def test_an_instance_comes_back_with_its_records_or_without():
    group = group_with_work(6)
    before = group.instances[3].records
    group.crash(3)
    group.submit("away", 1)
    group.run(50)
    assert lengths(group) == [7, 7, 7, 6]
    group.restart(3)
    assert group.instances[3].records == before
    group.run(500)
    assert lengths(group) == [7] * 4
    group.crash(3)
    group.restart(3, memory=False)
    assert group.instances[3].log[-1].position == 7, "it catches up at once"
    assert group.instances[3].life == 2


@pytest.mark.parametrize("outputs", range(12))
def test_an_instance_crashes_between_any_two_outputs(outputs):
    group = EngineGroup(PBFT, 4, settings=GroupSettings(thorough=True)).start()
    group.instances[0].crash_after = outputs
    for number in range(3):
        group.submit(f"b{number}", number)
    group.run(50)
    assert not group.instances[0].alive
    group.restart(0)
    group.run_until(lambda: all(len(one.decided) == 3 for one in group.instances), 10_000)


# --- Twins ----------------------------------------------------------------------------------------------------------


def test_two_instances_share_a_key_and_all_hear_both():
    group = EngineGroup(PBFT, 4, identity=(0, 1, 2, 3, 0)).start()
    assert [one.honest for one in group.instances] == [False, True, True, True, False]
    first, second = group.batch("first"), group.batch("second")
    for instance in group.instances:
        mine = (second, first) if instance.number == 4 else (first, second)
        group.hosting.arrive(instance, mine)
    group.run_until(lambda: all(len(one.decided) == 2 for one in group.instances[1:4]), 60_000)
    assert {accusation.evidence.signer for _, accusation in group.accused} == {0}


def test_the_filter_knows_instances_and_what_passes():
    seen: list[tuple[int, int, str]] = []

    def deliverable(sender: int, receiver: int, what: Any) -> bool:
        seen.append((sender, receiver, type(what).__name__))
        return receiver != 4

    group = EngineGroup(PBFT, 4, identity=(0, 1, 2, 3, 0)).start()
    group.deliverable = deliverable
    for number in range(5):
        group.submit(f"b{number}", 2, [0, 2])
        group.run(20)
    group.run(2_000)
    assert lengths(group) == [5, 5, 5, 5, 0]
    assert all(sender != receiver for sender, receiver, _ in seen)
    assert {"PrePrepare", "Prepare", "Want", "CommitEntry", "CheckpointCertificate"} <= {what for _, _, what in seen}


# --- What must hold: engines that break it --------------------------------------------------------------------------


class Puppet:
    """An engine that does what the test says."""

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs

    def start(self, now: int) -> list[Any]:
        return []

    def step(self, event: Any) -> list[Any]:
        return self.outputs if isinstance(event, Available) else []


def puppets(*outputs: Any, number: int = 0, **changes: Any) -> EngineGroup:
    """Members of which one gives these outputs when a batch comes."""
    group = EngineGroup(msgspec.structs.replace(PBFT, **changes), 4, settings=GroupSettings(thorough=True)).start()
    group.instances[number].engine = Puppet(list(outputs))
    return group


def vote(position: int, text: bytes = b"a", view: int = 0) -> Any:
    return next(one for one in PBFT.messages.__args__ if one.__name__ == "Prepare")(view, position, text * 32)


def decision(group: EngineGroup, position: int, *refs: Any) -> Commit:
    """A decision with the proof that a real run gives for it."""
    real = EngineGroup(PBFT, 4).start()
    for number in range(position - 1):
        real.submit(f"before {number}")
        real.run(10)
    real.hosting.arrive(real.instances[0], refs)
    for instance in real.instances[1:]:
        real.hosting.arrive(instance, refs)
    real.run(10)
    certificate = real.instances[0].log[position - 1].proof.certificate
    assert certificate is not None
    for signer in certificate.signers:
        group.signing.signature(signer, msgspec.msgpack.Encoder(order="deterministic").encode(certificate.statement))
    return Commit(position, real.instances[0].log[position - 1].refs, CommitProof(certificate))


def groundless(signer: int) -> Accuse:
    first, second = (Statement("prepare", 0, 1, content * 32) for content in (b"a", b"b"))
    return Accuse(Evidence(signer, first, bytes(64), second, bytes(64)))


def about_nothing(commit: Commit) -> Commit:
    return msgspec.structs.replace(commit, refs=())


BREAKS: list[tuple[str, str, Any]] = [
    ("contradiction", "another content", lambda group: [Broadcast(vote(1)), Broadcast(vote(1, b"b"))]),
    ("old view", "after view 3", lambda group: [Broadcast(vote(1, view=3)), Broadcast(vote(2, view=2))]),
    ("gap", "position 2 after 0", lambda group: [decision(group, 2, group.batch("a"))]),
    ("no proof", "without votes", lambda group: [Commit(1, (group.batch("a"),), CommitProof())]),
    ("wrong proof", "other batches", lambda group: [about_nothing(decision(group, 1, group.batch("a")))]),
    ("accusation", "without proof", lambda group: [groundless(1)]),
    ("rejection", "who is honest", lambda group: [Reject(1, "just so")]),
    ("malformed", "refuses: positions begin at 1", lambda group: [Broadcast(vote(0))]),
    ("record", "does not decode to itself", lambda group: [Persist(group.batch("a"))]),
    ("message", "does not decode to itself", lambda group: [Broadcast(group.batch("a"))]),
]


@pytest.mark.parametrize(("reason", "outputs"), [one[1:] for one in BREAKS], ids=[one[0] for one in BREAKS])
def test_what_an_honest_engine_must_not_do_is_a_violation(reason, outputs):
    group = puppets()
    group.instances[0].engine.outputs = outputs(group)
    with pytest.raises(Violation, match=reason):
        group.submit("a")
        group.run(10)


def test_two_decisions_for_one_position_are_a_violation():
    group = EngineGroup(PBFT, 4).start()
    first, second = decision(group, 1, group.batch("a")), decision(group, 1, group.batch("b"))
    group.instances[0].engine = Puppet([first])
    group.instances[1].engine = Puppet([second])
    for instance in group.instances:
        instance.bodies.update((ref.digest, ref) for ref in (*first.refs, *second.refs))
    with pytest.raises(Violation, match="another one"):
        group.submit("c", to=[0, 1])


def test_a_decision_whose_bodies_too_few_members_hold_is_a_violation():
    group = EngineGroup(PBFT, 4).start()
    group.instances[0].engine = Puppet([decision(group, 1, group.batch("a"))])
    with pytest.raises(Violation, match="1 members hold its bodies"):
        group.submit("a", to=[0])


def test_a_statement_without_a_rule_is_a_violation():
    rules = {kind: SigningRule() for kind in PBFT.signing if kind != "prepare"}
    group = EngineGroup(msgspec.structs.replace(PBFT, signing=rules), 4).start()
    with pytest.raises(Violation, match="no rule"):
        group.submit("a")
        group.run(10)


def test_a_signature_that_nobody_made_is_found():
    forged = Claim(2, Statement("prepare", 0, 1, bytes(32)), bytes(64))
    group = EngineGroup(msgspec.structs.replace(PBFT, claims=lambda sender, message: [forged]), 4).start()
    with pytest.raises(Violation, match="n2 has not signed"):
        group.submit("a")


def test_liars_are_heard_but_not_believed():
    group = EngineGroup(PBFT, 4).start()
    group.corrupt(3, lambda receiver, message: msgspec.structs.replace(message, signature=bytes(64)))
    for number in range(3):
        group.submit(f"b{number}")
        group.run(10)
    assert group.refused > 0
    assert lengths(group)[:3] == [3, 3, 3]


# --- What a host does -----------------------------------------------------------------------------------------------


def told(group: EngineGroup, number: int, kind: type) -> list[Any]:
    """Note the inputs of a type that an instance gets."""
    seen: list[Any] = []
    group.on_step = lambda instance, event, outputs: (
        seen.append(event) if instance.number == number and isinstance(event, kind) else None
    )
    return seen


def test_a_body_that_is_wanted_is_looked_for_until_it_is_found():
    group = puppets()
    lacking = group.batch("lacking")
    group.instances[0].engine.outputs = [Want((lacking,), (1,))]
    group.submit("a", to=[0])
    group.instances[0].engine.outputs = []
    seen = told(group, 0, Available)
    group.run(1_000)
    assert not seen
    group.submit("lacking", to=[2])
    group.run(200)
    assert [event.refs for event in seen] == [(lacking,)]
    group.run(1_000)
    assert len(seen) == 1


def test_a_body_that_is_offered_is_fetched_once():
    group = puppets()
    mine = group.batch("a")
    group.instances[0].engine.outputs = [Offer((mine,), 2), Offer((mine,), 2)]
    seen = told(group, 2, Available)
    group.submit("a", to=[0])
    group.run(20)
    assert [event.refs for event in seen][:1] == [(mine,)]
    assert mine.digest in group.instances[2].bodies
    assert mine.digest not in group.instances[1].bodies


def test_timers_run_once_and_can_be_set_again_or_stopped():
    group = puppets(SetTimer("t", 50, 5))
    fired: list[int] = []
    group.instances[0].engine.step = lambda event: (
        [SetTimer("t", 50)] if isinstance(event, Available) else fired.append(event.now) or []
    )
    group.submit("a", to=[0])
    group.run(30)
    group.submit("b", to=[0])
    group.run(40)
    assert fired == []
    group.run(100)
    assert fired == [80]


def test_messages_to_oneself_do_not_survive_a_crash():
    group = puppets(Send(0, vote(1)), Send(1, vote(1)))
    heard = told(group, 0, Received)
    group.submit("a", to=[0])
    group.crash(0)
    group.instances[0].bodies.clear()
    group.restart(0)
    group.run(10)
    assert not heard


def test_readers_are_answered():
    group = puppets(ReadReady(7, 3))
    group.submit("a", to=[0])
    assert [(instance.number, answer) for instance, answer in group.reads] == [(0, ReadReady(7, 3))]
