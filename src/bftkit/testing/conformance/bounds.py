"""State that does not grow, and silence when there is nothing to say."""

import gc
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec

from bftkit.core.quorum import FaultModel
from bftkit.core.statement import SignedMessage
from bftkit.testing.conformance.alterations import unsigned
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import calm, eventful
from bftkit.testing.conformance.recordings import Recording, Sandbox

_FLOOD = 600
_FLOODS = 4
"""A flood is followed by so many more that must not add to it."""
_SLACK = 256
"""Objects by which a state may differ for other reasons."""

_QUIET_MS = 60_000
_HEARTBEATS_PER_S = 50
"""Most messages of one member to another in a second with nothing to order, where a protocol needs any."""

_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def state_size(engine: Any, *shared: Any) -> int:
    """Count the objects that an engine holds on to, without code and shared values; a long string is several."""
    seen = {id(one) for one in _reach(list(shared), set())}
    return sum(1 + sys.getsizeof(one) // 256 for one in _reach([engine], seen))


def _reach(roots: list[Any], seen: set[int]) -> list[Any]:
    found: list[Any] = []
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _CODE) or one is None:
            continue
        seen.add(id(one))
        found.append(one)
        if isinstance(one, msgspec.Struct):
            waiting.extend(getattr(one, name) for name in one.__struct_fields__)
        else:
            waiting.extend(gc.get_referents(one))
    return found


def flooded(trial: Trial) -> None:
    """Let faulty members speak of views and positions further and further away; look at what is kept of it."""
    recording = Recording(trial)
    for number, inputs in recording.inputs.items():
        box = recording.sandbox(number, len(inputs) * 2 // 3)
        own = box.context.own
        faulty = [who for who in range(trial.members) if who != own][-max(1, trial.quorum.faults) :]
        templates = list(
            {type(one.message): one.message for one in recording.messages if one.sender in faulty}.values()
        )
        if not templates:
            continue
        _flood(trial, recording, box, templates, faulty, 0)
        before = state_size(box.engine, box.context)
        for flood in range(1, _FLOODS + 1):
            _flood(trial, recording, box, templates, faulty, flood)
        after = state_size(box.engine, box.context)
        expect(
            after <= before + before // 8 + _SLACK, f"n{number} held {before} objects after a flood, {after} after more"
        )


def _flood(
    trial: Trial, recording: Recording, box: Sandbox, templates: list[Any], faulty: list[int], flood: int
) -> None:
    group, random = recording.group, trial.random
    for step in range(_FLOOD):
        sender = random.choice(faulty)
        message = _far_away(random.choice(templates), 1 + flood * _FLOOD + step, random.randrange(1, 4))
        if isinstance(message, SignedMessage):
            message = group.sign(sender, unsigned(message))
        sound = trial.spec.check(box.context, sender, message) is None
        if sound and group.signing.claims_problem(sender, message) is None:
            box.hear(sender, message)


def _far_away(message: Any, distance: int, which: int) -> Any:
    """Move some of the numbers of a message away: the first ones, the second ones, or both."""
    numbers = [
        name
        for name in message.__struct_fields__
        if isinstance(getattr(message, name), int) and not isinstance(getattr(message, name), bool)
    ]
    chosen = [name for place, name in enumerate(numbers) if which >> (place % 2) & 1]
    return msgspec.structs.replace(message, **{name: getattr(message, name) + distance for name in chosen})


def window(trial: Trial) -> None:
    """Compare what engines hold after some checkpoints with what they hold after many more."""
    group = trial.play()
    sizes = [state_size(one.engine, one.context) for one in group.instances]
    records = [len(one.records) for one in group.instances]
    for number in range(60):
        group.submit(f"more {number}", number % trial.members)
        group.run(20)
    group.run(2_000)
    for instance, size, count in zip(group.instances, sizes, records, strict=True):
        after, kept = state_size(instance.engine, instance.context), len(instance.records)
        expect(
            after <= size + size // 4 + _SLACK,
            f"{instance.name} held {size} objects after the scenario, and {after} after 60 batches more",
        )
        limit = count + 8 * instance.context.limits.checkpoint_interval
        expect(kept <= limit, f"{instance.name} has {kept} records: a stable checkpoint lets none be trimmed")


def quiet(trial: Trial) -> None:
    """Listen for a minute after all work is done."""
    group = trial.play()
    group.run(_QUIET_MS)
    before = group.sent
    group.run(_QUIET_MS)
    said = group.sent - before
    if trial.spec.fault_model is FaultModel.BYZANTINE:
        expect(not said, f"{said} messages were sent in a minute in which there was nothing to order")
    limit = _HEARTBEATS_PER_S * trial.members**2 * _QUIET_MS // 1_000
    expect(said <= limit, f"{said} messages were sent in a minute in which there was nothing to order")


PROPERTIES = (
    Property(
        "bounded",
        "bounds",
        "What faulty members say of far views and positions is not kept without end.",
        flooded,
        eventful,
        once=True,
    ),
    Property(
        "window",
        "bounds",
        "State and records below a stable checkpoint are let go: a long run holds no more than a short one.",
        window,
        lambda trial: calm(trial, 24, interval=4),
        once=True,
    ),
    Property(
        "quiet",
        "bounds",
        "With nothing to order, members say nothing but heartbeats, where a protocol needs them.",
        quiet,
        calm,
    ),
)
