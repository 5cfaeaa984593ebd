"""As many faulty members as the fault model allows do what they like: the others agree, and go on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from bftkit.core.inputs import Received
from bftkit.core.outputs import Accuse
from bftkit.core.quorum import FaultModel
from bftkit.core.statement import SignedMessage
from bftkit.testing.conformance.alterations import alterations
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import eventful, with_liars, with_twins
from bftkit.testing.conformance.recordings import Heard, Recording

_BYZANTINE = (FaultModel.BYZANTINE,)
_DOUBLE_STATEMENTS = 60


def endured(trial: Trial) -> None:
    """Play; the group compares the decisions of the honest, and wants all of theirs decided in the end."""
    trial.play()


def accused(trial: Trial) -> None:
    """Let members hear two statements for one slot: some of it must be noticed, and each accusation must be true."""
    recording = Recording(trial)
    group, found, tried = recording.group, 0, 0
    for number, place, heard in _signed_messages(trial, recording):
        second = _other_statement(trial, recording, number, heard)
        if second is None:
            continue
        tried += 1
        box = recording.sandbox(number, place + 1)
        for output in box.hear(heard.sender, second):
            if isinstance(output, Accuse):
                found += 1
                evidence = output.evidence
                true = evidence.signer == heard.sender and evidence.proves_equivocation
                true = true and all(group.signing.is_signed(claim) for claim in evidence.claims())
                expect(true, f"n{number} accuses n{evidence.signer} without proof: {evidence}")
    expect(found or not tried, f"of {tried} times that a member made two statements for one slot, none was noticed")


def _signed_messages(trial: Trial, recording: Recording) -> Iterator[tuple[int, int, Heard]]:
    """Choose messages that members heard of each other, with the place among their inputs."""
    all_of_them = [
        (number, place, Heard(event.sender, event.message))
        for number, inputs in recording.inputs.items()
        for place, event in enumerate(inputs)
        if isinstance(event, Received) and isinstance(event.message, SignedMessage)
    ]
    others = [one for one in all_of_them if one[2].sender != recording.group.instances[one[0]].identity]
    yield from trial.random.sample(others, min(_DOUBLE_STATEMENTS, len(others)))


def _other_statement(trial: Trial, recording: Recording, number: int, heard: Heard) -> Any:
    """Return a message of the same sender that says something else for the same slot, or None."""
    group, first = recording.group, heard.message.statement()
    context = group.instances[number].context
    variants = list(alterations(heard.message))
    for other in trial.random.sample(variants, len(variants)):
        if not group.decodes(other) or trial.spec.check(context, heard.sender, other) is not None:
            continue
        statement = other.statement()
        if statement.slot == first.slot and statement.content != first.content:
            signed = group.sign(heard.sender, other)
            if group.signing.claims_problem(heard.sender, signed) is None:
                return signed
    return None


PROPERTIES = (
    Property(
        "silent-members",
        "faults",
        "Members that speak to nobody, or to some only, neither divide nor stop the others.",
        endured,
        partial(with_liars, lies=["silent", "partial"]),
        models=_BYZANTINE,
        needs_faults=True,
    ),
    Property(
        "liars",
        "faults",
        "Members that change, exchange and repeat what they say, under their own signatures, neither divide nor stop.",
        endured,
        partial(with_liars, lies=["two-faced", "altering", "stale"]),
        models=_BYZANTINE,
        needs_faults=True,
    ),
    Property(
        "twins",
        "faults",
        "Members that run twice under one key, and so contradict themselves, neither divide nor stop the others.",
        endured,
        with_twins,
        models=_BYZANTINE,
        needs_faults=True,
    ),
    Property(
        "accusations",
        "faults",
        "Two statements for one slot are noticed, and the evidence holds both, signed.",
        accused,
        eventful,
        models=_BYZANTINE,
        once=True,
    ),
)
