"""Why nothing commits, in words: each sentence when it applies, and not otherwise."""

from __future__ import annotations

from bftkit.core.engine import EngineStatus
from bftkit.core.outputs import Want
from bftkit.replica.explain import explain
from bftkit.replica.inputs import PeerUp, Submission
from bftkit.replica.messages import CheckpointVote, Progress, SnapshotAvailable, StableCheckpoint
from bftkit.replica.settings import ReplicaTuning
from tests.replica.parts import SIGNATURE, Host, body_of, certified, checkpoint_at, settings_of


def fresh(connected: tuple[int, ...] = (1, 2, 3), **tuning) -> Host:
    host = Host(settings_of(tuning=ReplicaTuning(**tuning)))
    host.start()
    for peer in connected:
        host.step(PeerUp(0, peer))
    return host


def test_at_rest_nothing_is_pending():
    assert explain(fresh().replica) == [
        "It is in view 0 (normal), led by n0; position 0 is decided.",
        "Nothing is pending.",
    ]


def test_what_the_engine_waits_for_and_from_whom():
    host = fresh()
    host.engine.status_now = EngineStatus(3, None, 0, "view change", "a new view", (1, 2))
    lines = explain(host.replica)
    assert lines[0] == "It is in view 3 (view change), led by nobody; position 0 is decided."
    assert "The engine waits for a new view from n1, n2." in lines
    host.engine.status_now = EngineStatus(3, 1, 0, "normal", "nothing in particular")
    assert "The engine waits for nothing in particular." in explain(host.replica)


def test_bodies_that_are_missing():
    host = fresh()
    host.do(Want((body_of("a").ref, body_of("b").ref), (1,)))
    assert "It is fetching 2 batch bodies that it lacks." in explain(host.replica)


def test_positions_that_wait_to_be_executed():
    host = fresh()
    host.executing = False
    host.commit()
    assert "1 decided positions have not been executed yet." in explain(host.replica)


def test_votes_that_a_checkpoint_lacks():
    host = fresh()
    for _ in range(4):
        host.commit()
    assert "The checkpoint at position 4 lacks votes from n1, n2, n3." in explain(host.replica)


def test_a_full_window_waits_for_those_whose_votes_are_missing():
    host = fresh()
    full = "a stable checkpoint above 0: the window is full"
    host.engine.status_now = EngineStatus(0, 0, 4, "normal", full)
    assert f"The engine waits for {full}." in explain(host.replica)
    host.executing = False
    for _ in range(4):
        host.commit()
    assert host.replica.status().waiting_on == (0,), "it has not executed so far itself"
    host.executing = True
    for job in host.jobs:
        for event in host.run(job):
            host.step(event)
    own = host.replica.checkpoints.own_checkpoint(4)
    assert own is not None
    host.hear(2, CheckpointVote(own, SIGNATURE))
    assert host.replica.status().waiting_on == (1, 3)
    assert f"The engine waits for {full} from n1, n3." in explain(host.replica)
    host.engine.status_now = EngineStatus(0, 0, 4, "normal", "something else", (2,))
    assert host.replica.status().waiting_on == (2,)
    host.engine.status_now = EngineStatus(0, 0, 4, "normal")
    assert host.replica.status().waiting_on == ()


def test_a_state_on_its_way():
    host = fresh()
    host.hear(2, SnapshotAvailable(certified(checkpoint_at(8, 3)), 100))
    assert "It is fetching a state from n2: 0 of 100 bytes." in explain(host.replica)
    transfer = host.replica.state_transfer
    transfer.installing, transfer.download = transfer.download, None
    assert "It is taking over a state that it fetched." in explain(host.replica)


def test_peers_that_are_further():
    host = fresh()
    host.hear(2, Progress(7, 7, 0))
    assert "A peer says that it is at position 7, which is further." in explain(host.replica)


def test_channels_that_are_closed_and_too_few_members():
    assert "No channel is open to n3." in explain(fresh((1, 2)).replica)
    lines = explain(fresh((1,)).replica)
    assert "No channel is open to n2, n3." in lines
    assert "Only 2 members are in touch where 3 are needed to decide." in lines
    assert not any("in touch" in line for line in explain(fresh((1, 2)).replica))


def test_commands_that_wait():
    host = fresh(batches_in_flight=0)
    host.submit(Submission(1, b"k", b"x", 5))
    lines = explain(host.replica)
    assert "5 commands wait to be put into a batch." in lines
    assert "Nothing is pending." not in lines


def test_a_replica_that_has_stopped_says_only_that():
    host = fresh()
    for _ in range(4):
        host.commit()
    host.hear(1, StableCheckpoint(certified(checkpoint_at(4))))
    (line,) = explain(host.replica)
    assert line.startswith("It has stopped for good: the state at position 4 differs")
