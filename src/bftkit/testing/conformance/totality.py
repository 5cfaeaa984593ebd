"""Nothing that a peer may say makes an engine raise."""

from itertools import pairwise
from typing import Any

from bftkit.core.engine import EngineStatus
from bftkit.core.inputs import TimerFired
from bftkit.core.outputs import EngineOutput
from bftkit.core.statement import SignedMessage
from bftkit.testing.conformance.alterations import alterations, exchanges
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import eventful
from bftkit.testing.conformance.recordings import Heard, Recording, Sandbox

_VARIANTS = 40
"""Altered messages that are tried for each message."""
_BOXES = 24
_TOLD = 40
"""Strange things that one engine is told."""


def functions(trial: Trial) -> None:
    """Ask everything about messages and decisions that are not quite what they were."""
    recording = Recording(trial)
    spec, group, members = trial.spec, recording.group, trial.members
    contexts = [instance.context for instance in group.instances]
    for _, message in recording.messages:
        for other in _some(trial, list(alterations(message)), _VARIANTS):
            if not group.decodes(other):
                continue
            tuple(spec.references(other))
            expect(isinstance(spec.lane_key(other), bytes), f"the lane key of {other} is not bytes")
            sender, context = trial.random.randrange(members), trial.random.choice(contexts)
            problem = spec.check(context, sender, other)
            if problem is not None:
                expect(problem, f"check refuses {other}, and does not say why")
            else:
                tuple(spec.claims(sender, other))
    for entry in recording.entries:
        for changed in _some(trial, list(alterations(entry)), _VARIANTS):
            problem = spec.commit_problem(contexts[0], changed)
            expect(problem is None or problem, f"commit_problem refuses {changed}, and does not say why")


def _some(trial: Trial, variants: list[Any], count: int) -> list[Any]:
    return variants if len(variants) <= count else trial.random.sample(variants, count)


def steps(trial: Trial) -> None:
    """Tell engines in many states what faulty members may say, old and new, and let timers run out at odd times."""
    recording = Recording(trial)
    honest = [one.number for one in recording.group.instances if len(recording.inputs[one.number]) > 1]
    said = list(recording.messages)
    for _ in range(_BOXES if honest else 0):
        number = trial.random.choice(honest)
        box = recording.sandbox(number, trial.random.randrange(len(recording.inputs[number])))
        for _ in range(_TOLD):
            box.now += trial.random.choice([0, 1, 400, 20_000])
            _tell_something(trial, recording, box, said)


def _tell_something(trial: Trial, recording: Recording, box: Sandbox, said: list[Heard]) -> None:
    timers = [*recording.timers, "no such timer"]
    if not said or trial.random.random() < 1 / 5:
        _expect_sense(box, box.tell(TimerFired(box.now, trial.random.choice(timers))))
        return
    heard = strange(trial, recording, box, trial.random.choice(said))
    if heard is not None and heard.sender != box.context.own:
        _expect_sense(box, box.hear(*heard))


def _expect_sense(box: Sandbox, outputs: list[EngineOutput]) -> None:
    """Look at answers: they are outputs, and the engine can still say how it is."""
    for output in outputs:
        expect(isinstance(output, EngineOutput), f"{output!r} is no output")
    expect(isinstance(box.engine.status(), EngineStatus), "it cannot say how it is")


def strange(trial: Trial, recording: Recording, box: Sandbox, heard: Heard) -> Heard | None:
    """Return a message as it was, or as its sender may have changed it; None where nobody would let it in."""
    random, group, (sender, message) = trial.random, recording.group, heard
    if random.random() < 2 / 3:
        donors = [one for one in _some(trial, list(recording.messages), 20) if type(one.message) is type(message)]
        variants = list(alterations(message))
        for donor in donors[:1]:
            variants += exchanges(message, donor.message)
        message = random.choice(variants) if variants else message
        if not group.decodes(message):
            return None
    if trial.spec.check(box.context, sender, message) is not None:
        return None
    if isinstance(message, SignedMessage):
        message = group.sign(sender, message)
    return None if group.signing.claims_problem(sender, message) is not None else Heard(sender, message)


def chained(trial: Trial) -> None:
    """Tell a fresh engine all messages of a run in a wrong order, then the other way round."""
    recording = Recording(trial)
    said = list(recording.messages)
    for number in recording.inputs:
        box = recording.sandbox(number, 0)
        mixed = trial.random.sample(said, len(said))
        for order in (mixed, mixed[::-1]):
            for before, heard in pairwise([*order, *order[:1]]):
                box.now += trial.random.choice([0, 1, 300])
                for sender, message in (heard, before):
                    if sender != box.context.own and trial.spec.check(box.context, sender, message) is None:
                        _expect_sense(box, box.hear(sender, message))


PROPERTIES = (
    Property(
        "total-functions",
        "totality",
        "`check`, `claims`, `references`, `lane_key` and `commit_problem` answer whatever a peer may have made up.",
        functions,
        eventful,
        once=True,
    ),
    Property(
        "total-steps",
        "totality",
        "No message that passed `check`, with valid signatures, makes `step` raise, in whatever state.",
        steps,
        eventful,
    ),
    Property(
        "any-order",
        "totality",
        "No order of messages makes `step` raise.",
        chained,
        eventful,
        once=True,
    ),
)
