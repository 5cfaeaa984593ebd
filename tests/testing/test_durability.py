"""The second opinion beside the gate: what it lets pass, and what it finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.outputs import Broadcast, CancelTimer, Send, SetTimer
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.outputs import Append, Execute, Forget, Loopback, Report, Trim
from bftkit.testing.checkers import Violation
from bftkit.testing.durability import DurabilityAudit
from bftkit_pbft.messages import Prepare

VOTE = Prepare(0, 1, b"d" * 32)


def barrier() -> Append:
    return Append(1, (b"",), True)


def note() -> Append:
    return Append(3, (b"",), False)


VISIBLE = [
    Send(1, "a"),
    Broadcast("b"),
    Execute(1, 1, (), None, False, False),
    Report("view", ""),
    Trim(3),
]


@pytest.mark.parametrize("output", VISIBLE, ids=lambda output: type(output).__name__)
def test_what_follows_a_barrier_is_found_when_it_is_performed_before(output):
    audit = DurabilityAudit(2, 0)
    audit.offered([note(), barrier(), output], 0)
    with pytest.raises(Violation, match=f"n2 performs {type(output).__name__} before record 2 is durable"):
        audit.performing(output, 1)


@pytest.mark.parametrize("output", VISIBLE, ids=lambda output: type(output).__name__)
def test_what_follows_a_barrier_is_fine_once_that_is_durable(output):
    audit = DurabilityAudit(2, 0)
    audit.offered([note(), barrier(), output], 0)
    audit.performing(output, 2)


def test_a_barrier_holds_across_steps_and_lives():
    audit = DurabilityAudit(0, 7)
    first, second = Send(1, "first"), Send(1, "second")
    audit.offered([first], 7)
    audit.performing(first, 7)
    audit.offered([barrier()], 7)
    audit.offered([second], 7)
    with pytest.raises(Violation, match="before record 8"):
        audit.performing(second, 7)


def test_without_a_barrier_only_a_loopback_waits():
    audit = DurabilityAudit(0, 0)
    send, back = Send(1, "a"), Loopback("event")
    audit.offered([note(), send, back], 0)
    audit.performing(send, 0)
    with pytest.raises(Violation, match="performs Loopback before record 1"):
        audit.performing(back, 0)


@pytest.mark.parametrize("output", [SetTimer("t", 5), CancelTimer("t"), Forget((b"d",)), Send(1, "a", early=True)])
def test_what_nobody_sees_and_what_is_early_may_overtake(output):
    audit = DurabilityAudit(0, 0)
    audit.offered([barrier(), output], 0)
    audit.performing(output, 0)


@pytest.mark.parametrize("output", [Send(1, VOTE, early=True), Broadcast(VOTE, early=True)])
def test_a_signed_message_is_never_early(output):
    with pytest.raises(Violation, match="lets a signed message overtake the disk"):
        DurabilityAudit(3, 0).offered([output], 0)


STEPS = st.lists(
    st.one_of(st.sampled_from(["append", "barrier", "send", "early", "timer", "loopback"]), st.integers(0, 30)),
    max_size=60,
)
MAKE = {
    "append": note,
    "barrier": barrier,
    "send": lambda: Send(1, "a"),
    "early": lambda: Send(1, "a", early=True),
    "timer": lambda: SetTimer("t", 1),
    "loopback": lambda: Loopback("event"),
}


class Pair:
    """A gate and the audit beside it, over one log; the gate may believe more than the disk has said."""

    def __init__(self, believed: int = 0) -> None:
        self.believed = believed
        self.appended = self.durable = 0
        self.gate = DurabilityGate(self.append, 0)
        self.audit = DurabilityAudit(0, 0)

    def append(self, output: Append) -> int:
        self.appended += 1
        return self.appended

    def take(self, step: str | int) -> None:
        if isinstance(step, str):
            outputs = [MAKE[step]()]
            self.audit.offered(outputs, self.durable)
            ready = self.gate.offer(outputs)
        else:
            self.durable = max(self.durable, min(step, self.appended))
            ready = self.gate.durable(self.durable + self.believed)
        for output in ready:
            self.audit.performing(output, self.durable)


@given(STEPS)
def test_both_opinions_are_the_same_about_the_real_gate(steps):
    pair = Pair()
    for step in steps:
        pair.take(step)


@given(STEPS)
def test_a_gate_that_takes_too_much_for_durable_is_found_when_it_lets_something_out(steps):
    rash, strict = Pair(believed=1), Pair()
    for step in steps:
        strict.take(step)
        try:
            rash.take(step)
        except Violation:
            assert rash.gate.depth < strict.gate.depth
            return
        assert rash.gate.depth == strict.gate.depth
