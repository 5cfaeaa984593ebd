"""What a specification declares: names, options, windows, rules of signing."""

import re
from typing import Any

import msgspec

from bftkit.core.checkpoint import CHECKPOINT_KIND
from bftkit.core.engine import EngineContext, SigningRule, widest_window
from bftkit.core.epoch import Limits
from bftkit.core.ids import canonical
from bftkit.core.quorum import FaultModel
from bftkit.testing.conformance.case import Property, Trial, expect
from bftkit.testing.conformance.plans import eventful
from bftkit.testing.group_settings import membership_of

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_LONGEST_KIND = 64
_NONSENSE = (-1, 2**62)
"""Numbers that no option can mean."""


def declared(trial: Trial) -> None:
    """Look at everything in the specification that is not a function of messages."""
    spec = trial.spec
    expect(_NAME.fullmatch(spec.name), f"the name {spec.name!r} is not made of small letters, digits, - and _")
    expect(spec.version, "there is no version")
    expect(isinstance(spec.fault_model, FaultModel), f"{spec.fault_model!r} is no fault model")
    expect(spec.min_members >= 1, f"min_members is {spec.min_members}")
    problem = spec.leaders_problem(membership_of(spec, trial.members), spec.options_type())
    expect(spec.successive_leaders(spec.options_type()) >= 1, "nothing is ever decided without a leader")
    expect(problem is None, f"{problem}")
    interval = 16
    context = EngineContext(
        0, membership_of(spec, trial.members), spec.options_type(), Limits(checkpoint_interval=interval)
    )
    window = spec.window(context)
    expect(
        interval <= window <= widest_window(context),
        f"the window is {window}: it must hold a checkpoint interval, {interval}, and {widest_window(context)} at most",
    )


def signing_rules(trial: Trial) -> None:
    """Look at the rules, and let a run sign all kinds that it can; the group wants a rule for each."""
    for kind, rule in trial.spec.signing.items():
        expect(0 < len(kind) <= _LONGEST_KIND, f"{kind!r} is no kind of statement")
        expect(kind != CHECKPOINT_KIND, "checkpoints are signed by the replica, not by an engine")
        expect(isinstance(rule, SigningRule), f"{rule!r} is no rule of signing")
        expect(rule.raises_floor is None or rule.raises_floor >= 0, f"{kind}: the floor of views never falls")
    trial.play()


def options(trial: Trial) -> None:
    """Try defaults, encodings, unknown names and numbers that mean nothing."""
    kind = trial.spec.options_type
    defaults = kind()
    expect(
        msgspec.msgpack.decode(canonical(defaults), type=kind) == defaults, "the defaults do not decode to themselves"
    )
    expect(_is_refused(kind, {"no_such_option": 1}), "an option that does not exist is not refused")
    for name in kind.__struct_fields__:
        expect(_is_refused(kind, {name: {"of": "no type"}}), f"{name} may be a mapping")
        value = getattr(defaults, name)
        if isinstance(value, bool) or not _may_be_a_number(kind, name):
            continue
        for number in _NONSENSE:
            expect(_is_refused(kind, {name: number}), f"{name} may be {number}")


def _may_be_a_number(kind: type[msgspec.Struct], name: str) -> bool:
    field = next(one for one in msgspec.structs.fields(kind) if one.name == name)
    return not _is_type_error(field.type)


def _is_type_error(kind: Any) -> bool:
    try:
        msgspec.convert(1, kind)
    except msgspec.ValidationError:
        return True
    return False


def _is_refused(kind: type[msgspec.Struct], values: dict[str, Any]) -> bool:
    try:
        msgspec.convert(values, kind)
    except msgspec.ValidationError:
        return True
    return False


PROPERTIES = (
    Property(
        "declared",
        "declarations",
        "A specification has a name, a version, a fault model, and a window within the bounds of the contract.",
        declared,
        once=True,
    ),
    Property(
        "signing-rules",
        "declarations",
        "There is a rule of signing for each kind of statement that the engine signs, and none for others' kinds.",
        signing_rules,
        eventful,
        once=True,
    ),
    Property(
        "options",
        "declarations",
        "Options have defaults, decode to themselves, and refuse unknown names and numbers that mean nothing.",
        options,
        once=True,
    ),
)
