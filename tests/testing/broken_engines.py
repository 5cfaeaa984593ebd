"""One engine for each promise of the contract that breaks it, made of the engines that keep them all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bftkit.core.engine import ConsensusEngine, EngineSpec, EngineStatus, SigningRule
from bftkit.core.inputs import Available, Received, Sealed, TimerFired
from bftkit.core.outputs import (
    Accuse,
    Broadcast,
    Commit,
    Persist,
    ReadReady,
    Reject,
    SetTimer,
)
from bftkit.core.quorum import FaultModel, Quorum
from bftkit.core.statement import Claim, SignedMessage, Statement
from bftkit.plugins import load_engine
from bftkit.testing.solo import solo_spec

PBFT, SOLO = load_engine("pbft"), solo_spec()
KINDS = {kind.__name__: kind for kind in PBFT.messages.__args__}

Alter = Callable[[Any, list[Any]], list[Any]]
"""What becomes of the outputs of a step."""


class Wrapped:
    """An engine around another one: inputs and outputs may be changed on their way."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        self.inner: Any = inner

    def start(self, now: int) -> list[Any]:
        return self.inner.start(now)

    def step(self, event: Any) -> list[Any]:
        return self.inner.step(event)

    @property
    def view(self) -> int:
        return self.inner.view

    def status(self) -> EngineStatus:
        return self.inner.status()


def broken(spec: EngineSpec, kind: type[Wrapped] = Wrapped, **changes: Any) -> EngineSpec:
    """The specification with engines of another kind, under a name whose owner promises nothing besides."""

    def build(*arguments: Any) -> Wrapped:
        return kind(spec.build(*arguments))

    return msgspec.structs.replace(spec, **{"name": "broken", "build": build, **changes})


def altering(spec: EngineSpec, alter: Callable[[Any, Any], list[Any]], **changes: Any) -> EngineSpec:
    """The specification with engines that change single outputs: what `alter` makes of an event and an output."""

    class Altering(Wrapped):
        def step(self, event: Any) -> list[Any]:
            return [one for output in self.inner.step(event) for one in alter(event, output)]

    return broken(spec, Altering, **changes)


def without(*kinds: type, message: str = "", timer: str = "") -> Callable[[Any, Any], list[Any]]:
    """Leave outputs out: those of some types, perhaps only with a type of message or a name of a timer."""

    def alter(event: Any, output: Any) -> list[Any]:
        if not isinstance(output, kinds):
            return [output]
        said = type(getattr(output, "message", None)).__name__
        return [output] if (message and said != message) or (timer and output.timer != timer) else []

    return alter


def deaf_to(kind: type) -> type[Wrapped]:
    """An engine that does not take inputs of a type."""

    class Deaf(Wrapped):
        def step(self, event: Any) -> list[Any]:
            return [] if isinstance(event, kind) else self.inner.step(event)

    return Deaf


# --- Messages -------------------------------------------------------------------------------------------------------


class Weather(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="weather"):
    """A message whose encoding nobody can rely on."""

    temperature: float


class Hint(SignedMessage, tag="hint", frozen=True):
    """A signed message with something in it that the signature does not cover."""

    number: int
    hint: int
    signature: bytes = b""

    def statement(self) -> Statement:
        return Statement("hint", 1_000 + self.number, 0, bytes(32))


class Hinting(Wrapped):
    """An engine that says a hint whenever it gets work, and takes none."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.number = 0

    def step(self, event: Any) -> list[Any]:
        if isinstance(event, Received) and isinstance(event.message, Hint):
            return []
        out = self.inner.step(event)
        if isinstance(event, Available):
            self.number += 1
            out = [*out, Broadcast(Hint(self.number, 7))]
        return out


def hinting() -> EngineSpec:
    def check(context: Any, sender: int, message: Any) -> str | None:
        return None if isinstance(message, Hint) else PBFT.check(context, sender, message)

    def claims(sender: int, message: Any) -> Any:
        if isinstance(message, Hint):
            return [Claim(sender, message.statement(), message.signature)]
        return PBFT.claims(sender, message)

    def lane_key(message: Any) -> bytes:
        return b"" if isinstance(message, Hint) else PBFT.lane_key(message)

    rules = {**PBFT.signing, "hint": SigningRule(guarded=False)}
    return broken(
        PBFT, Hinting, messages=PBFT.messages | Hint, check=check, claims=claims, lane_key=lane_key, signing=rules
    )


def lane_key_of_four_bytes(message: Any) -> bytes:
    return int(getattr(message, "position", 0)).to_bytes(4, "big")


def first_claim_only(sender: int, message: Any) -> list[Claim]:
    return list(PBFT.claims(sender, message))[:1]


def early(event: Any, output: Any) -> list[Any]:
    if isinstance(output, Broadcast) and isinstance(output.message, KINDS["Prepare"]):
        return [Broadcast(output.message, early=True)]
    return [output]


# --- Determinism ----------------------------------------------------------------------------------------------------


class AskingTheTime(Wrapped):
    """An engine that cares what the clock shows."""

    def step(self, event: Any) -> list[Any]:
        out = self.inner.step(event)
        return [*out, SetTimer("extra", 50)] if event.now > 1_000_000 and isinstance(event, Available) else out


class InTheOrderOfASet(Wrapped):
    """An engine that iterates over a set of strings."""

    def step(self, event: Any) -> list[Any]:
        if isinstance(event, TimerFired) and event.timer.startswith("extra"):
            return []
        out = self.inner.step(event)
        if isinstance(event, Available):
            out = [*out, *(SetTimer(name, 50) for name in {f"extra {number}" for number in range(9)})]
        return out


def build_in_the_order_of_a_set(*arguments: Any) -> Wrapped:
    """Build it; another process can import this function."""
    return InTheOrderOfASet(PBFT.build(*arguments))


# --- Totality and order ---------------------------------------------------------------------------------------------


class Trusting(Wrapped):
    """An engine that takes for granted that numbers are small."""

    def step(self, event: Any) -> list[Any]:
        if isinstance(event, Received):
            assert getattr(event.message, "position", 0) < 2**40
        return self.inner.step(event)


class Orderly(Wrapped):
    """An engine that takes for granted that a proposal comes before the votes for it."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.proposed = [0]

    def step(self, event: Any) -> list[Any]:
        message = getattr(event, "message", None)
        if isinstance(message, KINDS["CommitVote"]) and message.position not in self.proposed:
            raise KeyError(message.position)
        if isinstance(message, KINDS["Prepare"] | KINDS["PrePrepare"]):
            self.proposed.append(message.position)
        return self.inner.step(event)


class _Loose(dict[bytes, int]):
    def __delitem__(self, key: bytes) -> None:
        self.pop(key, None)


class Twice(Wrapped):
    """An engine that orders everything twice."""

    def step(self, event: Any) -> list[Any]:
        out = self.inner.step(event)
        if isinstance(event, Available):
            self.inner._taken = _Loose()
            out += self.inner.step(event)
        return out


class Skipping(Wrapped):
    """An engine that loses the first decision after a change of views."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.lost_in = 0
        """The view of the last decision that was lost."""

    def step(self, event: Any) -> list[Any]:
        out = self.inner.step(event)
        if self.view != self.lost_in and any(isinstance(one, Commit) for one in out):
            self.lost_in = self.view
            out = [one for one in out if not isinstance(one, Commit)]
        return out


class Touchy(Wrapped):
    """An engine that holds it against others when they say something twice."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.heard: list[Any] = []

    def step(self, event: Any) -> list[Any]:
        if isinstance(event, Received) and isinstance(event.message, KINDS["PrePrepare"]):
            if event.message in self.heard:
                return [Reject(event.sender, "that was said before")]
            self.heard.append(event.message)
        return self.inner.step(event)


# --- Bounds ---------------------------------------------------------------------------------------------------------


class Hoarding(Wrapped):
    """An engine that keeps every message that is not for now."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.kept: list[Any] = []

    def step(self, event: Any) -> list[Any]:
        if isinstance(event, Received) and getattr(event.message, "view", 0) > self.inner.status().view:
            self.kept.append(event.message)
        return self.inner.step(event)


class Remembering(Wrapped):
    """An engine that keeps every decision."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.kept: dict[int, Any] = {}

    def step(self, event: Any) -> list[Any]:
        out = self.inner.step(event)
        self.kept.update((one.position, one) for one in out if isinstance(one, Commit))
        return out


class Chatty(Wrapped):
    """An engine that asks around every second."""

    def start(self, now: int) -> list[Any]:
        return [*self.inner.start(now), SetTimer("chat", 1_000)]

    def step(self, event: Any) -> list[Any]:
        if isinstance(event, TimerFired) and event.timer == "chat":
            return [SetTimer("chat", 1_000), Broadcast(KINDS["FetchNewView"](0))]
        return self.inner.step(event)


# --- Liveness -------------------------------------------------------------------------------------------------------


class Fading(Wrapped):
    """An engine that repeats itself more and more seldom, without a bound, until something is decided."""

    def __init__(self, inner: ConsensusEngine[Any]) -> None:
        super().__init__(inner)
        self.repeated = 0

    def step(self, event: Any) -> list[Any]:
        out = self.inner.step(event)
        if any(isinstance(one, Commit) for one in out):
            self.repeated = 0
        for place, one in enumerate(out):
            if isinstance(one, SetTimer):
                self.repeated += 1
                out[place] = SetTimer(one.timer, one.delay_ms << min(30, self.repeated))
        return out


class Secretive(Wrapped):
    """An engine that does not say what it waits for."""

    def status(self) -> EngineStatus:
        return msgspec.structs.replace(self.inner.status(), waiting_for="", waiting_on=())


class Vague(Wrapped):
    """An engine that says for what it waits, and not for whom."""

    def status(self) -> EngineStatus:
        return msgspec.structs.replace(self.inner.status(), waiting_on=())


class Modern(Wrapped):
    """An engine whose timers are longer under one interpreter: the environment stands for the version."""

    def step(self, event: Any) -> list[Any]:
        longer = int(os.environ.get("LONGER_MS", "0"))
        return [
            msgspec.structs.replace(one, delay_ms=one.delay_ms + longer) if isinstance(one, SetTimer) else one
            for one in self.inner.step(event)
        ]


def build_modern(*arguments: Any) -> Modern:
    return Modern(PBFT.build(*arguments))


# --- Records, proofs, inputs ----------------------------------------------------------------------------------------


def forgetting(*kinds: str) -> EngineSpec:
    """An engine that does not read its records, or not those of some types."""

    def build(context: Any, genesis: Any, checkpoint: Any, records: Sequence[Any]) -> Wrapped:
        kept = [one for one in records if kinds and type(one).__name__ not in kinds]
        return Wrapped(PBFT.build(context, genesis, checkpoint, kept))

    return broken(PBFT, build=build)


def keeping_records(event: Any, output: Any) -> list[Any]:
    return [Persist(output.record)] if isinstance(output, Persist) else [output]


def old_reads(event: Any, output: Any) -> list[Any]:
    return [ReadReady(output.token, 0)] if isinstance(output, ReadReady) else [output]


# --- Faults ---------------------------------------------------------------------------------------------------------


def with_quorum(choose: Callable[[Quorum], int]) -> type[Wrapped]:
    """An engine that counts to another number."""

    class Counting(Wrapped):
        def __init__(self, inner: ConsensusEngine[Any]) -> None:
            super().__init__(inner)
            quorum: Quorum = self.inner.state.quorum
            self.inner.state.quorum = msgspec.structs.replace(quorum, quorum=choose(quorum))

    return Counting


class Credulous(Wrapped):
    """An engine that takes every vote for a vote for what it holds itself."""

    def step(self, event: Any) -> list[Any]:
        message = getattr(event, "message", None)
        if isinstance(message, KINDS["CommitVote"] | KINDS["Prepare"]):
            slot = self.inner.state.slots.get(message.position)
            if slot is not None and slot.refs is not None:
                event = msgspec.structs.replace(event, message=msgspec.structs.replace(message, digest=slot.digest))
        return self.inner.step(event)


def anything_is_proved(context: Any, entry: Any) -> str | None:
    return None


class LooseOptions(msgspec.Struct, frozen=True):
    """Options that mean anything."""

    batches_per_position: int = 16


CRASH_TOLERANT = msgspec.structs.replace(PBFT, name="majorities", fault_model=FaultModel.CRASH, min_members=2)
"""PBFT among members that only crash: a majority is a quorum, and the word of one is enough to follow."""

BROKEN: dict[str, EngineSpec] = {
    "declared": broken(PBFT, window=lambda context: 1),
    "signing-rules": broken(PBFT, signing={kind: rule for kind, rule in PBFT.signing.items() if kind != "new-view"}),
    "options": broken(SOLO, options_type=LooseOptions),
    "codec": broken(PBFT, messages=PBFT.messages | Weather),
    "claims": broken(PBFT, claims=first_claim_only),
    "sealed-fields": hinting(),
    "references": broken(PBFT, references=lambda message: getattr(message, "refs", ())),
    "early": altering(PBFT, early),
    "repeatable": broken(PBFT, AskingTheTime),
    "hash-seeds": broken(PBFT, build=build_in_the_order_of_a_set),
    "total-functions": broken(PBFT, lane_key=lane_key_of_four_bytes),
    "total-steps": broken(PBFT, Trusting),
    "any-order": broken(PBFT, Orderly),
    "ordered": broken(PBFT, Skipping),
    "calm": broken(SOLO, Twice),
    "repetition": broken(PBFT, Touchy),
    "bounded": broken(PBFT, Hoarding),
    "window": broken(PBFT, Remembering),
    "quiet": broken(PBFT, Chatty),
    "armed": altering(PBFT, without(SetTimer, timer="watch")),
    "under-loss": altering(PBFT, without(SetTimer, timer="retransmit")),
    "without-leader": altering(PBFT, without(Broadcast, message="Suspect")),
    "heals": broken(PBFT, Fading),
    "explains": broken(PBFT, Secretive),
    "restarts": forgetting(),
    "everybody-restarts": forgetting("Prepared", "Snapshot"),
    "rebuilt": forgetting("ViewLeft", "ViewEntered", "Snapshot"),
    "proofs": broken(PBFT, commit_problem=anything_is_proved),
    "any-input": altering(PBFT, keeping_records),
    "sealed": broken(PBFT, deaf_to(Sealed)),
    "reads": altering(SOLO, old_reads),
    "silent-members": broken(PBFT, with_quorum(lambda quorum: quorum.members)),
    "liars": broken(PBFT, Credulous),
    "twins": broken(PBFT, with_quorum(lambda quorum: quorum.weak), commit_problem=anything_is_proved),
    "accusations": altering(PBFT, without(Accuse)),
}
"""For each promise an engine that breaks it."""
