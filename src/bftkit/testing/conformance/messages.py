"""What messages are: decodable, signed as a whole, and open to those who verify, fetch and route."""

from collections.abc import Callable
from typing import Any

from bftkit.core.batch import BatchRef
from bftkit.core.ids import SIGNATURE_BYTES
from bftkit.core.inputs import EngineInput
from bftkit.core.outputs import Broadcast, EngineOutput, Send
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import SignedMessage
from bftkit.testing.checkers import Violation
from bftkit.testing.conformance.alterations import alterations, leaves
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import eventful
from bftkit.testing.conformance.recordings import Heard, Recording
from bftkit.testing.engine_group import EngineGroup, Instance
from bftkit.wire.codec import Codec
from bftkit.wire.envelope import LANE_KEY_BYTES


def codec(trial: Trial) -> None:
    """Encode and decode whatever a run says and writes down, and look at the keys of lanes."""
    messages, records = Codec[Any](trial.spec.messages), Codec[Any](trial.spec.records)
    recording = Recording(trial)
    for _, message in recording.messages:
        expect(messages.decode(messages.encode(message)) == message, f"it does not decode to itself: {message}")
        key = trial.spec.lane_key(message)
        expect(type(key) is bytes and len(key) <= LANE_KEY_BYTES, f"the lane key of {message} is {key!r}")
    for record in recording.records:
        expect(records.decode(records.encode(record)) == record, f"it does not decode to itself: {record}")


def _refuses(trial: Trial, group: EngineGroup, heard: Heard) -> bool:
    """Say whether a message would be stopped before an engine sees it."""
    context = group.instances[(heard.sender + 1) % len(group.instances)].context
    if not group.decodes(heard.message):
        return True
    if trial.spec.check(context, heard.sender, heard.message) is not None:
        return True
    return group.signing.claims_problem(heard.sender, heard.message) is not None


def claims(trial: Trial) -> None:
    """Flip a bit of every signature in every message: each must be missed by whoever verifies the claims."""
    recording = Recording(trial)
    group = recording.group
    for heard in recording.messages:
        sender, message = heard
        if isinstance(message, SignedMessage):
            own = [claim for claim in trial.spec.claims(sender, message) if claim.signer == sender]
            expect(message.statement() in [claim.statement for claim in own], f"{message} is not claimed by its sender")
        for broken in _with_flipped_signatures(message):
            if not _refuses(trial, group, Heard(sender, broken)):
                raise Violation(f"nobody misses the signature that is broken in {broken}")


def _with_flipped_signatures(message: Any) -> list[Any]:
    signatures = [one for one in leaves(message) if isinstance(one, bytes) and len(one) == SIGNATURE_BYTES]
    flipped = {one: bytes((one[0] ^ 1,)) + one[1:] for one in signatures}
    return [
        one
        for one in alterations(message)
        if any(isinstance(leaf, bytes) and leaf in flipped.values() for leaf in leaves(one))
    ]


def sealed_fields(trial: Trial) -> None:
    """Change one thing in each signed message: no change may pass the check and the signatures."""
    recording = Recording(trial)
    for heard in _one_of_each_shape(recording):
        if isinstance(heard.message, SignedMessage):
            for other in alterations(heard.message):
                if not _refuses(trial, recording.group, Heard(heard.sender, other)):
                    raise Violation(f"{heard.message} may become {other} on its way, and its signature still fits")


def _one_of_each_shape(recording: Recording) -> list[Heard]:
    """Choose of all messages of one type and size the first: the rest have the same fields to change."""
    chosen: dict[tuple[type, int], Heard] = {}
    for heard in recording.messages:
        shape = (type(heard.message), sum(1 for _ in leaves(heard.message)))
        chosen.setdefault(shape, heard)
    return list(chosen.values())


def references(trial: Trial) -> None:
    """Compare what `references` lists with the batches that stand anywhere in a message."""
    for _, message in Recording(trial).messages:
        named = {one for one in leaves(message) if isinstance(one, BatchRef)}
        listed = set(trial.spec.references(message))
        expect(named == listed, f"{message} names {len(named)} batches, and references lists {len(listed)}")


def early(trial: Trial) -> None:
    """Look at every message that may overtake the barrier before it."""

    def watch(group: EngineGroup) -> None:
        group.on_step = _demand_nothing_early(trial)

    trial.play(watch)


def _demand_nothing_early(trial: Trial) -> Callable[[Instance, EngineInput, list[EngineOutput]], None]:
    byzantine = trial.spec.fault_model is FaultModel.BYZANTINE

    def look(instance: Instance, event: EngineInput, outputs: list[EngineOutput]) -> None:
        for output in outputs:
            if isinstance(output, Send | Broadcast) and output.early:
                message = output.message
                proposes = byzantine and any(True for _ in trial.spec.references(message))
                bad = isinstance(message, SignedMessage) or proposes
                bad = bad or instance.engine.status().leader != instance.identity
                expect(not bad, f"{instance.name} lets {message} overtake the disk")

    return look


PROPERTIES = (
    Property(
        "codec",
        "messages",
        "Each message and record decodes to itself; no type holds a float or an untyped field; lane keys are short.",
        codec,
        eventful,
        once=True,
    ),
    Property(
        "claims",
        "messages",
        "`claims` lists every signature inside a message: one broken bit in any of them is found.",
        claims,
        eventful,
        once=True,
    ),
    Property(
        "sealed-fields",
        "messages",
        "Every field of a signed message is under a signature: none can be changed on the way.",
        sealed_fields,
        eventful,
        once=True,
    ),
    Property(
        "references",
        "messages",
        "`references` lists exactly the batches that a message names.",
        references,
        eventful,
        once=True,
    ),
    Property(
        "early",
        "messages",
        "Only a leader's messages may overtake a barrier; never one that is signed, never a byzantine proposal.",
        early,
        eventful,
        once=True,
    ),
)
