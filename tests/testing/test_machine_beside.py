"""The machine beside the members: what it knows of heights ahead of it, at its own, and behind."""

from __future__ import annotations

from bftkit.batteries.counter import Counter
from bftkit.core.batch import CommittedBatch
from bftkit.replica.execution import state_root_of
from bftkit.testing.machine_beside import MachineBeside
from bftkit.testing.profile import Profile
from bftkit.testing.simulation import simulate


def root_of(*commands: bytes) -> bytes:
    counter = Counter()
    counter.apply(CommittedBatch(0, 1, list(commands)))
    return state_root_of(counter, 1)


def test_roots_are_known_at_every_height_up_to_the_present_one_and_beyond():
    beside = MachineBeside(Counter())
    for count, height in enumerate((1, 2, 3, 5), start=1):
        assert beside.execute(CommittedBatch(0, height, [b"1"])) == [b"%d" % count]
        assert beside.height == height
    assert [beside.root_at(height) for height in (0, 2, 3, 5)] == [root_of(b"%d" % total) for total in (0, 2, 3, 4)]
    assert beside.root_at(4) == root_of(b"3"), "there was nothing to execute at that height"
    assert beside.root_at(6) == root_of(b"4"), "nor at those that come"


class Careless(Counter):
    """Is another one after it was asked for a snapshot, which all members are at the same heights."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def snapshot(self) -> bytes:
        self.asked += 1
        return super().snapshot()

    def state_root(self) -> bytes:
        return b"%031d%d" % (self.asked, self.asked % 10)


def test_a_state_that_all_members_have_alike_and_the_log_does_not_give_is_found():
    calm = Profile(snapshot_positions=4, checkpoint_interval=2, clients=2, envelopes=20)
    (violation,) = simulate(Careless, seed=1, faults=calm).violations
    assert "another state at height" in violation
    assert "than another run of the same log" in violation
    assert simulate(Counter, seed=1, faults=calm).ok
