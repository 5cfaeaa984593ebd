"""Nothing is seen before what it depends on is durable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bftkit.core.outputs import Broadcast, CancelTimer, Send, SetTimer
from bftkit.replica.gate import DurabilityGate
from bftkit.replica.outputs import Append, Forget, Loopback, Report


class Disk:
    def __init__(self, durable: int = 0) -> None:
        self.index = durable

    def append(self, output: Append) -> int:
        self.index += 1
        return self.index


def barrier() -> Append:
    return Append(1, (b"",), True)


def note() -> Append:
    return Append(3, (b"",), False)


def test_without_a_barrier_everything_passes_at_once():
    gate = DurabilityGate(Disk().append, 0)
    assert gate.offer([Send(1, "a"), note(), Send(2, "b")]) == [Send(1, "a"), Send(2, "b")]
    assert gate.has_unsynced
    assert not gate.needs_sync


def test_what_follows_a_barrier_waits_for_it_across_steps():
    gate = DurabilityGate(Disk().append, 0)
    assert gate.offer([Send(1, "a"), barrier(), Send(1, "b")]) == [Send(1, "a")]
    assert gate.offer([Send(1, "c"), barrier(), Send(1, "d")]) == []
    assert gate.depth == 3
    assert gate.durable(1) == [Send(1, "b"), Send(1, "c")]
    assert gate.durable(2) == [Send(1, "d")]
    assert not gate.needs_sync


def test_early_outputs_and_timers_overtake_a_barrier():
    gate = DurabilityGate(Disk().append, 0)
    early = [Send(1, "a", early=True), Broadcast("b", early=True), SetTimer("t", 5), CancelTimer("t")]
    assert gate.offer([barrier(), *early, Broadcast("late"), Report("view", "")]) == early
    assert gate.durable(1) == [Broadcast("late"), Report("view", "")]


def test_a_loopback_waits_for_everything_that_was_appended():
    gate = DurabilityGate(Disk().append, 0)
    assert gate.offer([Loopback("at once")]) == [Loopback("at once")]
    assert gate.offer([note(), Loopback("first"), note(), Loopback("second")]) == []
    assert gate.needs_sync
    assert gate.durable(1) == [Loopback("first")]
    assert gate.durable(1) == []
    assert gate.durable(2) == [Loopback("second")]


def test_a_log_that_was_durable_before_counts_from_there():
    gate = DurabilityGate(Disk(7).append, 7)
    assert gate.offer([Send(1, "a")]) == [Send(1, "a")]
    assert gate.offer([barrier(), Send(1, "b")]) == []
    assert gate.durable(7) == []
    assert gate.durable(8) == [Send(1, "b")]


def test_durability_never_goes_back():
    gate = DurabilityGate(Disk().append, 0)
    gate.offer([barrier()])
    gate.durable(1)
    gate.durable(0)
    assert gate.offer([Send(1, "a")]) == [Send(1, "a")]


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["append", "barrier", "send", "early", "timer", "loopback"]),
        st.integers(0, 30),
    ),
    max_size=80,
)


@given(STEPS)
def test_nothing_is_released_before_its_barrier_and_the_order_is_kept(steps):
    disk = Disk()
    gate = DurabilityGate(disk.append, 0)
    durable = last_barrier = 0
    needs: dict[int, int] = {}
    released: list[int] = []

    def see(outputs):
        for output in outputs:
            match output:
                case Send(to) | Loopback(to):
                    assert needs[to] <= durable
                case SetTimer(_, to):
                    pass
            released.append(to)

    for number, step in enumerate(steps, 1):
        needs[number] = 0
        match step:
            case "append":
                gate.offer([note()])
            case "barrier":
                gate.offer([barrier()])
                last_barrier = disk.index
            case "send":
                needs[number] = last_barrier
                see(gate.offer([Send(number, None)]))
            case "early":
                see(gate.offer([Send(number, None, early=True)]))
                assert released[-1] == number
            case "timer":
                see(gate.offer([SetTimer("t", number)]))
                assert released[-1] == number
            case "loopback":
                needs[number] = disk.index
                see(gate.offer([Loopback(number)]))
            case int():
                durable = max(durable, min(step, disk.index))
                see(gate.durable(durable))
    durable = disk.index
    see(gate.durable(durable))
    kinds = dict(enumerate(steps, 1))
    for kind in ("send", "loopback", "early"):
        of_kind = [place for place in released if kinds[place] == kind]
        assert of_kind == sorted(of_kind)
        assert of_kind == [place for place, step in kinds.items() if step == kind], "each exactly once"


def test_a_body_is_forgotten_at_once_lest_it_take_along_one_that_is_stored_again():
    disk = Disk()
    gate = DurabilityGate(disk.append, 0)
    gate.offer([barrier()])
    forget = Forget((b"digest",))
    assert gate.offer([forget]) == [forget]
